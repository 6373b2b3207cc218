"""`saccade export`: results in formats that other programs read, one image after the other.

Which images, which files, and what is told of them; what is in a file is decided in
``pipeline.exports``. A file or folder is written beside its place and renamed when it is whole.
"""

from __future__ import annotations

import difflib
import glob
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

from saccade.jobs.exports import tables
from saccade.pipeline.errors import StorageFull, StoreError, UsageError
from saccade.pipeline.exports.frame import ImagePixels
from saccade.pipeline.exports.geojson import FeatureStyle, ObjectType, feature_collection
from saccade.pipeline.exports.labelling import Labelling, chosen_classes
from saccade.pipeline.exports.ome_xml import ome_xml
from saccade.pipeline.exports.ome_zarr_v2 import write_ome_zarr
from saccade.pipeline.exports.rasters import labels_raster, scores_raster
from saccade.pipeline.exports.tiles_table import columns_of, feature_count, tile_rows
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.result import open_result
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_metadata import label_legend
from saccade.pipeline.store_object_shelf import Where
from saccade.pipeline.store_shelf import FULL, PARTIAL
from saccade.workers.folder import RunFolder

Format = Literal["geojson", "ome-tiff", "ome-zarr-0.4", "csv", "parquet", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
Content = Literal["labels", "scores"]
MAX_LISTED = 20
TAKES: Mapping[str, tuple[Format, ...]] = {
    "classes": ("geojson", "ome-tiff", "csv", "parquet", "png"),
    "threshold": ("geojson", "ome-tiff"),
    "content": ("ome-tiff",),
    "object_type": ("geojson",),
    "least_px": ("geojson",),
    "longest_px": ("png",),
}
"""Which formats heed an option."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and how; None leaves a choice to the format."""

    to: Format
    """The format."""
    classes: tuple[str, ...] = ()
    """That count; all but the background where none are named."""
    threshold: float | None = None
    """A pixel is of a class only where its score is at least this; None takes the run's labels."""
    content: Content | None = None
    """What an OME-TIFF holds; labels by default."""
    object_type: ObjectType | None = None
    """What regions are for QuPath; annotations by default."""
    least_px: int | None = None
    """Regions of fewer pixels of the result are left out; 1 by default."""
    longest_px: int | None = None
    """Longer side of the image in a picture; 2048 by default."""

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            near = difflib.get_close_matches(self.to, FORMATS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"no format {self.to!r}; {hint}there are: {', '.join(FORMATS)}")
        self._check_word("content", self.content, get_args(Content))
        self._check_word("objects", self.object_type, get_args(ObjectType))
        for name, formats in TAKES.items():
            if getattr(self, name) not in (None, ()) and self.to not in formats:
                raise UsageError(
                    f"{name}: heeded by {', '.join(formats)}; {self.to} does not take it, leave it "
                    "out"
                )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold: a score from 0 to 1 expected; found {self.threshold:g}")

    @staticmethod
    def _check_word(option: str, word: str | None, known: tuple[str, ...]) -> None:
        if word is not None and word not in known:
            raise UsageError(f"{option}: one of {', '.join(known)} expected; found {word!r}")


def export(
    run: Path, options: ExportOptions, images: Sequence[str] = (), folder: Path | None = None
) -> Iterator[Path]:
    """Export images of a run, complete or not; gives each file as it is in its place.

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
    for name, path in results.items():
        try:
            yield from _Image(path, name, options, folder).files()
        except StorageFull:
            raise
        except StoreError as error:
            failed.append(f"{name}: {error}")
    if failed:
        told = "\n".join(failed[:MAX_LISTED])
        raise StoreError(f"{len(failed)} of {len(results)} images could not be exported:\n{told}")


class _Image:
    """One image on its way into files."""

    def __init__(self, path: Where, name: str, options: ExportOptions, folder: Path) -> None:
        self._name, self._options, self._folder = name, options, folder
        self._result = result = open_result(path)
        self._store = ImageStore.open(path)
        classes = chosen_classes(_known(result.plan, options.to), options.classes)
        self._labelling = Labelling(result, classes, options.threshold)

    def files(self) -> Iterator[Path]:
        """Write them; gives each when it is in its place."""
        write = {
            "geojson": self._geojson,
            "ome-tiff": self._ome_tiff,
            "ome-zarr-0.4": self._ome_zarr,
            "csv": self._csv,
            "parquet": self._parquet,
            "png": self._png,
        }[self._options.to]
        yield from write()

    def _facts(self) -> dict[str, Any]:
        """What a file says of itself, plain JSON."""
        plan = self._result.plan
        return {
            "image": plan.name,
            "state": "complete" if self._result.complete else "unfinished",
            "version": version("saccade"),
            "downsample": plan.last.score_downsample,
            "classes": list(self._labelling.classes),
            "threshold": self._options.threshold,
        }

    def _texts(self) -> dict[str, str]:
        """The same as words."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in self._facts().items()
        }

    # ------------------------------------------------------------------------------------ formats

    def _geojson(self) -> Iterator[Path]:
        style = FeatureStyle(self._options.object_type or "annotation", self._options.least_px or 1)
        frame = ImagePixels.of(self._result.plan)
        with (
            _placed(self._folder / f"{self._name}.geojson") as place,
            place.partial.open("w", encoding="utf-8") as file,
        ):
            file.writelines(feature_collection(self._labelling, frame, self._facts(), style))
        yield place.path

    def _ome_tiff(self) -> Iterator[Path]:
        from saccade.pipeline.exports.ome_tiff import write_ome_tiff

        content = self._options.content or "labels"
        make = {"labels": labels_raster, "scores": scores_raster}[content]
        raster, size = make(self._labelling), self._result.pixel_size
        facts = self._texts() | (self._legend() if content == "labels" else {})
        channels = list(zip(raster.channels, raster.colours, strict=True))
        described = ome_xml(self._name, raster.shape, raster.dtype, channels, size, facts)
        with _placed(self._folder / f"{self._name}.{content}.ome.tif") as place:
            write_ome_tiff(place.partial, raster, described, size)
        yield place.path

    def _legend(self) -> dict[str, str]:
        """What the values of labels mean."""
        known = {*self._labelling.values.values(), LABEL_NODATA, LABEL_UNKNOWN}
        legend = label_legend(self._result.classes).items()
        if len(self._result.classes) == 1:
            known.add(0)
        return {f"label {value}": name for value, (name, _, _) in legend if value in known}

    def _ome_zarr(self) -> Iterator[Path]:
        plan = self._result.plan
        whole = Labelling(self._result, plan.classes)
        facts = self._facts() | {"classes": list(plan.classes)}
        with _placed(self._folder / f"{self._name}.ome.zarr") as place:
            write_ome_zarr(place.partial, plan, scores_raster(whole), labels_raster(whole), facts)
        yield place.path

    def _csv(self) -> Iterator[Path]:
        count = feature_count(self._store, self._result.plan)
        columns = columns_of(self._result.plan, self._options.classes, count)
        with _placed(self._folder / f"{self._name}.tiles.csv") as place:
            tables.write_csv(place.partial, columns, count, tile_rows(self._result, self._store))
        yield place.path

    def _parquet(self) -> Iterator[Path]:
        count = feature_count(self._store, self._result.plan)
        columns = columns_of(self._result.plan, self._options.classes, count)
        with _placed(self._folder / f"{self._name}.tiles.parquet") as place:
            rows = tile_rows(self._result, self._store)
            tables.write_parquet(place.partial, columns, rows, self._texts())
        yield place.path

    def _png(self) -> Iterator[Path]:
        from saccade.jobs.exports.overlay import draw_overlays, write_page

        longest = self._options.longest_px or 2048
        classes = self._labelling.classes
        pages = draw_overlays(self._result, self._store, classes, longest)
        for name, page in pages.items():
            with _placed(self._folder / f"{self._name}.{_safe(name)}.png") as place:
                write_page(place.partial, page, json.dumps(self._facts()))
            yield place.path


def _known(plan: ImagePlan, to: Format) -> tuple[str, ...]:
    """The classes that can be named: of the result; in a table of tiles, of any pass."""
    if to not in ("csv", "parquet"):
        return plan.classes
    return tuple(dict.fromkeys(name for one in plan.passes for name in one.classes))


def _safe(name: str) -> str:
    """A class's name as part of a file's."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file or folder goes."""

    path: Path
    """Once it is whole."""
    partial: Path
    """Until then."""


@contextmanager
def _placed(path: Path) -> Iterator[Place]:
    """A file or folder that is renamed into its place at the end of a block that succeeds.

    Raises:
        StorageFull: no space is left.
        StoreError: it can't be written for another reason.
    """
    place = Place(path, path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
            _remove(left)  # by an export that was killed
        yield place
        if path.is_dir():
            _remove(path)
        place.partial.replace(path)
    except OSError as error:
        kind = StorageFull if error.errno in FULL else StoreError
        raise kind(
            f"{path}: can't be written ({error.strerror or error}); check that the folder is there "
            "and has space, or give another one with --output"
        ) from error
    finally:
        _remove(place.partial)


def _remove(path: Path) -> None:
    """Remove a folder with all it holds, or a file; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
