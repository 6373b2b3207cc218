"""``saccade manifest --mosaic``: a description of the files found that lie on one grid.

Reads headers only. Of several grids that of most files is taken; what does not lie on it is told
with by how much, in the words of opening such a mosaic.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from saccade.jobs.manifests.listing import Listing
from saccade.jobs.manifests.manifest import Given, ListOptions, read_images
from saccade.jobs.manifests.places import is_remote
from saccade.jobs.manifests.problems import Problem
from saccade.pipeline.errors import SaccadeError, UsageError
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.mosaic_members import facts_of
from saccade.pipeline.sources.mosaic_parts import PartFacts, check_channels, lay_out
from saccade.pipeline.sources.suffixes import MOSAICS
from saccade.workers.tasks import ImageEntry

AT_ONCE = 8
"""Headers that are read at a time."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A description of a mosaic, written."""

    files: tuple[str, ...]
    """That are in it, in the order in which they were found."""
    listing: Listing
    """What was left out, and why."""


def write_mosaic(path: Path, arguments: Given, options: ListOptions | None = None) -> Mosaic:
    """Describe a mosaic of the files that arguments name, as far as they lie on one grid.

    Args:
        path: of the description.
        arguments: files, folders, globs, URLs, manifests.
        options: how they are understood.

    Raises:
        UsageError: the name is not that of a mosaic, or no file says where it lies.
    """
    if not path.name.lower().endswith(MOSAICS):
        raise UsageError(f"{path}: a name that ends in {' or '.join(MOSAICS)} expected")
    how, listing = replace(options or ListOptions(), rename=True), Listing()
    found = list(headers(read_images(arguments, how)))
    files, others = on_one_grid([one for one in found if isinstance(one, PartFacts)])
    for problem in (*(one for one in found if isinstance(one, Problem)), *others):
        listing.note(problem)
    if not files:
        few = f": {listing.told(None)}" if listing.problems else ""
        raise UsageError(f"{path}: a file that says where it lies expected, found none{few}")
    uris = tuple(one.uri for one in files)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_described(uris, path.absolute().parent), "utf-8")
    return Mosaic(uris, listing)


def headers(found: Iterable[ImageEntry | Problem]) -> Iterable[PartFacts | Problem]:
    """What each file says, in order, or why it can't be part of a mosaic."""
    with ThreadPoolExecutor(AT_ONCE, "headers") as pool:
        yield from pool.map(_header, found)


def _header(one: ImageEntry | Problem) -> PartFacts | Problem:
    if isinstance(one, Problem):
        return one
    try:
        with closing(open_source(one.uri)) as source:
            return facts_of(source)
    except SaccadeError as error:
        return _problem(one.uri, error)


def on_one_grid(files: Sequence[PartFacts]) -> tuple[list[PartFacts], list[Problem]]:
    """The files on the grid of most of them, and why others are not; the first of equals counts."""
    grids: list[list[PartFacts]] = []
    for one in files:
        mine = next((grid for grid in grids if _misfit(one, grid[0]) is None), None)
        if mine is not None:
            mine.append(one)
        elif _misfit(one, one) is None:
            grids.append([one])
    chosen = max(grids, key=len, default=[])
    kept = {id(one) for one in chosen}
    left = [one for one in files if id(one) not in kept]
    wrong = [(one, _misfit(one, chosen[0] if chosen else one)) for one in left]
    return chosen, [problem for _, problem in wrong if problem is not None]


def _misfit(one: PartFacts, first: PartFacts) -> Problem | None:
    """Why a file can't be in a mosaic that begins with another one."""
    try:
        lay_out([first, one])
        check_channels(one, first)
    except SaccadeError as error:
        return _problem(one.uri, error)
    return None


def _problem(uri: str, error: SaccadeError) -> Problem:
    return Problem(uri, str(error).removeprefix(f"{uri}: "))


def _described(uris: Sequence[str], folder: Path) -> str:
    """The text of a description; what lies on this disk is told from its own folder."""
    files = [uri if is_remote(uri) else os.path.relpath(uri, folder) for uri in uris]
    tree = {"mosaic": {"files": files, "overlap": "first"}}
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text
