"""Whether images are there, before work starts: a look at the file system, or a HEAD request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

from saccade.jobs.finding import ZARR
from saccade.jobs.manifest_places import is_remote
from saccade.jobs.problems import Problem
from saccade.workers.tasks import ImageEntry

AT_ONCE = 32
"""Requests in flight, at most."""
AHEAD = 256
"""Images that are looked at before the first of them is handed on."""
ZARR_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True, slots=True)
class Claim:
    """An image that an argument or a row names."""

    entry: ImageEntry
    """As it was named."""
    where: str
    """The argument, or file and line."""
    seen: bool = False
    """Whether a listing named it, so that it is there."""


@dataclass
class Presence:
    """Looks for what claims name, a bounded number at a time, and keeps their order."""

    at_once: int = AT_ONCE
    """Requests in flight, at most."""
    ahead: int = AHEAD
    """Claims that are held, at most."""

    def checked(self, claims: Iterable[Claim | Problem]) -> Iterator[Claim | Problem]:
        """The same in the same order, with a problem in place of an image that is missing."""
        waiting = iter(claims)
        with ThreadPoolExecutor(self.at_once) as pool:
            while window := list(islice(waiting, self.ahead)):
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
    mask = entry.overrides.get("mask")
    return [entry.uri, mask] if isinstance(mask, str) else [entry.uri]


def missing(place: str) -> str:
    """Why there is no image at a place; empty where something is."""
    if not is_remote(place):
        return "" if os.path.exists(place) else "no such file"  # noqa: PTH110
    from saccade.pipeline.errors import SaccadeError
    from saccade.pipeline.remote import head

    documents = [f"{place}/{name}" for name in ZARR_DOCUMENTS]
    said = ""
    for url in documents if urlsplit(place).path.endswith(ZARR) else [place]:
        try:
            head(url)
        except SaccadeError as error:
            said = said or str(error)
        else:
            return ""
    return said
