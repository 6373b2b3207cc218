"""``saccade manifest``: a manifest of images as they are found, with what their headers say.

Reads headers only, several at once, and keeps no more than a window of them. An image that does not
open is a problem, told at the end; it does not end the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from saccade.jobs.manifests.listing import Listing
from saccade.jobs.manifests.manifest import Given, ListOptions, read_images
from saccade.jobs.manifests.places import is_remote
from saccade.jobs.manifests.problems import Problem
from saccade.jobs.manifests.rows import row_of
from saccade.jobs.manifests.writing import RowSpool
from saccade.pipeline.errors import SaccadeError
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import PixelSize, Source
from saccade.workers.tasks import ImageEntry

AT_ONCE = 8
"""Headers that are read at a time."""
AHEAD = 64
SQUARE = 0.01
"""Pixels whose sides differ by a larger share have no single size that a manifest could state."""


@dataclass(frozen=True, slots=True)
class Made:
    """A manifest, not yet written."""

    rows: RowSpool
    """One per image."""
    listing: Listing
    """The images again, and what was wrong with others."""


def make_manifest(arguments: Given, options: ListOptions | None = None) -> Made:
    """A manifest of everything that arguments name.

    Images that would have one name get the folder before it, or a number.

    Args:
        arguments: files, folders, globs, URLs, other manifests.
        options: how they are understood.

    Raises:
        ManifestError: a pixel size that is none.
        StorageGone: an object store does not answer.
    """
    listing, rows = Listing(), RowSpool()
    how = replace(options or ListOptions(), rename=True)
    for one in described(read_images(arguments, how, listing=listing)):
        if isinstance(one, Problem):
            listing.note(one)
        else:
            rows.add(one)
    return Made(rows, listing)


def described(found: Iterable[ImageEntry | Problem]) -> Iterator[dict[str, Any] | Problem]:
    """The row of each image in order, or why it has none."""
    waiting = iter(found)
    with ThreadPoolExecutor(AT_ONCE, "headers") as pool:
        while window := list(islice(waiting, AHEAD)):
            yield from pool.map(_described, window)


def _described(one: ImageEntry | Problem) -> dict[str, Any] | Problem:
    if isinstance(one, Problem):
        return one
    try:
        one.uri.encode()
        source = open_source(one.uri)
        try:
            return row_of(one) | _facts(one, source)
        finally:
            source.close()
    except SaccadeError as error:
        return Problem(one.uri, str(error).removeprefix(f"{one.uri}: "))
    except Exception as error:  # a damaged header may raise anything in a library
        return Problem(one.uri, f"can't be opened ({type(error).__name__}: {error})")


def _facts(entry: ImageEntry, source: Source) -> dict[str, Any]:
    """What a header says, as columns."""
    height, width = source.levels[0].shape
    facts: dict[str, Any] = {"format": source.format, "width": width, "height": height}
    facts["levels"] = len(source.levels)
    if entry.pixel_size is None:
        facts |= _size(source.pixel_size)
    nbytes = _nbytes(entry.uri)
    return facts if nbytes is None else facts | {"bytes": nbytes}


def _size(size: PixelSize | None) -> dict[str, float]:
    if size is None or abs(size.y - size.x) > SQUARE * size.x:
        return {}
    return {"mpp" if size.unit == "um" else "gsd": size.mean_in(size.unit)}


def _nbytes(uri: str) -> int | None:
    """Bytes of a file; None of a folder, whose files nobody should have to look at."""
    if not is_remote(uri):
        path = Path(uri)
        return path.stat().st_size if path.is_file() else None
    from saccade.pipeline.remote import head

    try:
        return head(uri).nbytes
    except SaccadeError:
        return None
