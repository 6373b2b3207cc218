"""Whether images are there, before work starts: a look at the file system, or a HEAD request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from saccade.jobs.manifests.places import is_remote, suffix_of
from saccade.jobs.manifests.problems import Problem
from saccade.jobs.manifests.rows import area_file
from saccade.pipeline.errors import SourceError
from saccade.pipeline.remote_stores import join
from saccade.pipeline.sources.identities import ZARR_DOCUMENTS
from saccade.pipeline.sources.suffixes import ZARR
from saccade.workers.tasks import ImageEntry

AT_ONCE = 64
"""Requests in flight, at most."""
AHEAD = 512
"""Images that are looked at before the first of them is handed on."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An image that an argument or a row names."""

    entry: ImageEntry
    """As it was named."""
    where: str
    """The argument, or file and line."""
    seen: bool = False
    """Whether a listing named it, so that it is there."""


def checked(claims: Iterable[Claim | Problem], ahead: int = AHEAD) -> Iterator[Claim | Problem]:
    """The same in the same order, with a problem in place of an image that is missing.

    A window of them is looked at before the first is handed on; what lies behind the network is
    asked for at once, a bounded number at a time.

    Raises:
        StorageGone: an object store does not answer.
    """
    waiting = iter(claims)
    with ThreadPoolExecutor(AT_ONCE, "presence") as pool:
        while window := list(islice(waiting, ahead)):
            far = any(_asks_network(one) for one in window)
            yield from pool.map(look, window) if far else map(look, window)


def _asks_network(one: Claim | Problem) -> bool:
    return isinstance(one, Claim) and not one.seen and any(map(is_remote, _places(one.entry)))


def look(one: Claim | Problem) -> Claim | Problem:
    """A claim where everything that it names is there, else what is missing."""
    if isinstance(one, Problem):
        return one
    for place in _places(one.entry)[one.seen :]:
        if why := missing(place):
            return Problem(place, f"{why} ({one.where})" if one.where != place else why)
    return one


def _places(entry: ImageEntry) -> list[str]:
    mask, area = entry.overrides.get("mask"), entry.overrides.get("area")
    beside = [mask, area_file(area) if area else None]
    return [entry.uri, *(place for place in beside if isinstance(place, str))]


def missing(place: str) -> str:
    """Why there is no image at a place; empty where something is.

    Raises:
        StorageGone: an object store does not answer.
    """
    if not is_remote(place):
        return "" if os.path.exists(place) else "no such file"  # noqa: PTH110
    urls = [place]
    if suffix_of(place) == ZARR:
        urls = [join(place, name) for name in ZARR_DOCUMENTS]
    said = ""
    for url in urls:
        why = _absent(url)
        if not why:
            return ""
        said = said or why
    return said


def _absent(url: str) -> str:
    from saccade.pipeline.remote import head

    try:
        head(url)
    except SourceError as error:
        return str(error).removeprefix(f"{url}: ")
    return ""
