"""The images behind one argument: a file, a folder, a glob, a URL, everything below a URL.

Looks at names only; opens no image.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from saccade.jobs.manifests.places import is_remote, resolved, suffix_of
from saccade.jobs.manifests.problems import Problem
from saccade.pipeline.errors import SourceError
from saccade.pipeline.remote_stores import join
from saccade.pipeline.sources.suffixes import MIRAX, RASTERS, SLIDES, ZARR

IMAGE_SUFFIXES = SLIDES | RASTERS | {ZARR}
"""What a folder is searched for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies, by what a person typed."""

    uri: str
    """A path in full, or a URL."""
    seen: bool
    """Whether a listing named it, so that it is there."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Which files of a folder are images."""

    suffixes: frozenset[str] = IMAGE_SUFFIXES
    """In small letters, each with its dot."""

    @classmethod
    def of(cls, stated: str | None) -> Formats:
        """As a person states them: 'svs,tif'."""
        words = [word for word in re.split(r"[,\s]+", stated or "") if word]
        return cls(frozenset("." + w.lower().lstrip("*.") for w in words)) if words else cls()

    def take(self, name: str) -> bool:
        """Whether a file of this name is an image."""
        return any(name.lower().endswith(suffix) for suffix in self.suffixes)


Found = Iterator[Place | Problem]


def find(argument: str, formats: Formats) -> Found:
    """The images behind one argument, or why there are none."""
    if is_remote(argument):
        return _find_remote(argument, formats)
    return _find_local(resolved(argument, "."), argument, formats)


# ------------------------------------------------------------------------------------ file systems


def _find_local(path: str, argument: str, formats: Formats) -> Found:
    if os.path.isdir(path) and not is_zarr(path):  # noqa: PTH112
        yield from _images_below(path, formats, ())
    elif os.path.exists(path) or not glob.has_magic(argument):  # noqa: PTH110
        yield Place(path, seen=False)
    else:
        files = sorted(glob.iglob(argument, recursive=True))  # noqa: PTH207
        yield from (Place(resolved(file, "."), seen=True) for file in files)
        if not files:
            yield Problem(argument, "no file matches")


def is_zarr(path: str | Path) -> bool:
    """Whether a folder is a zarr array or group."""
    return any((Path(path) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _images_below(folder: str, formats: Formats, above: tuple[tuple[int, int], ...]) -> Found:
    """Images in a folder and below, sorted; a zarr is an image, not a folder.

    ``above`` are the folders on the way, so that links in a circle end.
    """
    try:
        facts = Path(folder).stat()
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names of a million files, not paths
    except OSError as error:
        yield Problem(folder, f"the folder can't be read: {error.strerror}")
        return
    here = (facts.st_dev, facts.st_ino)
    for name in names if here not in above else ():
        path = f"{folder.rstrip('/')}/{name}"
        if name.startswith("."):
            continue
        if os.path.isdir(path) and not is_zarr(path):  # noqa: PTH112
            yield from _images_below(path, formats, (*above, here))
        elif formats.take(name) and not _belongs_to_another(path):
            yield Place(path, seen=True)


def _belongs_to_another(path: str) -> bool:
    """Whether a file is only a part of a slide: MIRAX keeps a folder beside its own file."""
    return Path(path).parent.with_suffix(MIRAX).is_file()


# ----------------------------------------------------------------------------------- object stores


def _find_remote(url: str, formats: Formats) -> Found:
    if "*" in url:
        return _matching(url, formats)
    if url.endswith("/") or not suffix_of(url):
        return _below(url, formats, lambda _: True)
    return iter([Place(url, seen=False)])


def _matching(pattern: str, formats: Formats) -> Found:
    """What matches a pattern; ``**`` stands for any number of folders, ``*`` for part of a name."""
    fixed = posixpath.dirname(pattern[: pattern.index("*")])
    matches = _pattern(pattern).fullmatch
    found = False
    for one in _below(fixed, formats, lambda url: matches(url) is not None):
        found = True
        yield one
    if not found:
        yield Problem(pattern, "no object matches")


def _pattern(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/?|\*)", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))


def _below(prefix: str, formats: Formats, wanted: Callable[[str], bool]) -> Found:
    """Images below a prefix, in the order of the listing; a zarr is one of them."""
    from saccade.pipeline.remote import list_below

    sieve = Sieve(formats)
    try:
        for key, _ in list_below(prefix):
            image = sieve.image_of(key)
            if image and wanted(url := join(prefix, image)):
                yield Place(url, seen=True)
    except SourceError as error:
        yield Problem(prefix, f"can't be listed: {error}")


class Sieve:
    """Tells images from the objects that belong to them, as a listing names one after the other.

    Stores list by name, so that a zarr's objects come together and a MIRAX file before its folder.
    """

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._zarr = ""
        self._miraxes: set[str] = set()

    def image_of(self, key: str) -> str:
        """The image that an object is or begins; nothing for others."""
        *folders, name = key.split("/")
        if any(part.startswith(".") for part in folders):
            return ""
        for depth, part in enumerate(folders, 1):
            if part.endswith(ZARR):
                return self._zarr_of("/".join(folders[:depth]))
        if name.endswith(MIRAX):
            self._miraxes.add(key.removesuffix(MIRAX))
        apart = not name.startswith(".") and "/".join(folders) not in self._miraxes
        return key if apart and self._formats.take(name) else ""

    def _zarr_of(self, key: str) -> str:
        """A zarr, at the first of its objects."""
        if key == self._zarr or not self._formats.take(key):
            return ""
        self._zarr = key
        return key
