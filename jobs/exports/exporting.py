"""`saccade export`: results in formats that other programs read, one image after the other.

Which images, which files, and what is told of them; what is in a file is decided in
``pipeline.exports``. A file or folder is written beside its place and renamed when it is whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from saccade.jobs.exports import tables
from saccade.jobs.exports.one_image import ImageExport
from saccade.jobs.exports.options import WHOLE, ExportOptions
from saccade.pipeline.errors import StorageFull, StoreError, UsageError
from saccade.pipeline.exports.geoparquet import check_geoparquet
from saccade.pipeline.result import open_result
from saccade.pipeline.store_object_shelf import Where
from saccade.workers.folder import RunFolder

MAX_LISTED = 20


def export(
    run: Path, options: ExportOptions, images: Sequence[str] = (), folder: Path | None = None
) -> Iterator[Path]:
    """Export images of a run, complete or not; gives each file as it is in its place.

    Images that share no ground with the area to cut along have no file.

    Args:
        run: its folder, or the result of one image (``NAME.ome.zarr``).
        options: what and how.
        images: their names; all that have a result if none are named.
        folder: where files go; by default 'exports' in the run's folder, and beside a result that
            stands alone.

    Raises:
        UsageError: no such image or class, nothing to export yet, or a format that is not
            installed.
        StoreError: some results can't be read; after all others were exported.
        StorageFull: no space is left; at once.
    """
    alone = (run / "zarr.json").is_file()
    prepared = open_result(run).images
    place: Callable[[str], Where] = (lambda _: run) if alone else RunFolder(run).result
    chosen = {name: place(name) for name in _chosen(run, prepared, images)}
    if options.to == "parquet":
        tables.check_parquet()
    if options.to == "geoparquet":
        check_geoparquet()
    if folder is None:
        folder = (run.absolute().parent if alone else run) / "exports"
    return _exported(chosen, options, folder)


def _chosen(run: Path, prepared: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
    if not prepared:
        raise UsageError(
            f"{run}: nothing to export yet: no image of this run is prepared; export again once "
            "the first glance has begun"
        )
    for name in wanted:
        if name not in prepared:
            near = difflib.get_close_matches(name, prepared, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            more = "" if len(prepared) <= MAX_LISTED else f", and {len(prepared) - MAX_LISTED} more"
            known = ", ".join(prepared[:MAX_LISTED]) + more
            raise UsageError(f"{run}: no image {name!r} has a result; {hint}there are: {known}")
    return wanted or prepared


def _exported(results: Mapping[str, Where], options: ExportOptions, folder: Path) -> Iterator[Path]:
    failed: list[str] = []
    outside: list[str] = []
    for name, path in results.items():
        try:
            one = ImageExport(path, name, options, folder)
            if one.outside:
                outside.append(name)
                continue
            yield from one.files()
        except StorageFull:
            raise
        except StoreError as error:
            failed.append(f"{name}: {error}")
    if len(outside) == len(results):
        raise StoreError(
            f"{', '.join(outside[:MAX_LISTED])}: the area to cut along shares no ground with "
            f"any of the images; check its CRS, or export whole tiles with '--area {WHOLE}'"
        )
    if failed:
        told = "\n".join(failed[:MAX_LISTED])
        raise StoreError(f"{len(failed)} of {len(results)} images could not be exported:\n{told}")
