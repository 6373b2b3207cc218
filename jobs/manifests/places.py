"""Where images may lie: paths and URLs, as text. Pure, but for a look at folders before a ``..``.

A place is a path on this machine's file system, or the URL of an object (``is_remote``).
"""

from __future__ import annotations

import os
import posixpath
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from saccade.pipeline.remote_stores import file_name, is_remote, is_web

__all__ = ["folder_of", "is_remote", "last_part", "resolved", "suffix_of"]

FILE = "file://"


def resolved(place: str, base: str) -> str:
    """A place in full: relative paths begin at a base, ``file://`` is a path.

    No symbolic link is resolved: ``..`` stays where it follows one, for there it leads elsewhere.

    Args:
        place: as a person or a manifest states it.
        base: a folder, or the URL of one.
    """
    if place.startswith(FILE):
        return _tidy(unquote(urlsplit(place).path))
    if is_remote(place):
        return place
    if is_remote(base) and not posixpath.isabs(place):
        return _beneath(base, place)
    return _tidy(posixpath.join(os.getcwd(), base, place))  # noqa: PTH109 - likewise


def _tidy(path: str) -> str:
    """A path without what says nothing; as a text, because pathlib never forgets a part's name."""
    if "/.." in path:
        folder, _, name = path.rpartition("/")
        path = _upward(path) if name == ".." else posixpath.join(_upward(folder), name)
    tidy = all(mark not in path for mark in ("//", "/./")) and not path.endswith(("/", "/."))
    return path if tidy else str(Path(path))


@lru_cache(maxsize=1024)
def _upward(path: str) -> str:
    """A path without ``..`` and what it takes back, but where that is a link to elsewhere."""
    parts: list[str] = []
    for part in Path(path).parts:
        gone_up = part == ".." and parts and parts[-1] != ".."
        # a folder that may not be looked at is taken to be none
        if not gone_up or os.path.islink(posixpath.join(*parts)):  # noqa: PTH114
            parts.append(part)
        elif len(parts) > 1:  # above the root is the root
            parts.pop()
    return str(Path(*parts))


def _beneath(base: str, place: str) -> str:
    """A relative place in an object store; ``..`` never leaves the store's root."""
    store, folder, query = _parts(base)
    return f"{store}{posixpath.normpath(posixpath.join('/', folder, place))}{query}"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme and bucket or server; path; query (as of signed URLs), if that is one."""
    path, mark, query = url.partition("?") if is_web(url) else (url, "", "")
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key, mark + query


def folder_of(place: str) -> str:
    """What relative paths in a manifest start from."""
    if is_remote(place):
        store, key, query = _parts(place)
        return f"{store}/{posixpath.dirname(key)}{query}"
    return str(Path(place).parent)


def last_part(place: str) -> str:
    """The file's name, that of a URL without its query."""
    return file_name(place) if is_remote(place) else place.rstrip("/").rpartition("/")[2]


def suffix_of(place: str) -> str:
    """The suffix in small letters."""
    return posixpath.splitext(last_part(place))[1].lower()
