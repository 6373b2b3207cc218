"""Where images may lie: paths and URLs, as text. Pure.

A place is a path on this machine's file system, or a URL with ``://``.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

FILE = "file://"


def is_remote(place: str) -> bool:
    """Whether a place is a URL."""
    return "://" in place


def resolved(place: str, base: str) -> str:
    """A place in full: relative paths begin at a base, ``file://`` is a path.

    Args:
        place: as a person or a manifest states it.
        base: a folder, or the URL of one.
    """
    if place.startswith(FILE):
        return unquote(urlsplit(place).path)
    if is_remote(place):
        return place
    if is_remote(base) and not posixpath.isabs(place):
        return _beneath(base, place)
    return str((Path(base) / place).absolute())


def _beneath(base: str, place: str) -> str:
    """A relative place in an object store; ``..`` never leaves its root."""
    scheme, bucket, folder, _, _ = urlsplit(base)
    key = posixpath.normpath(posixpath.join("/", folder.lstrip("/"), place))
    return urlunsplit((scheme, bucket, key, "", ""))


def folder_of(place: str) -> str:
    """What relative paths in a manifest start from."""
    if is_remote(place):
        scheme, bucket, key, _, _ = urlsplit(place)
        return urlunsplit((scheme, bucket, posixpath.dirname(key), "", ""))
    return str(Path(place).parent)


def suffix_of(place: str) -> str:
    """The suffix in small letters, that of a URL without its query."""
    path = urlsplit(place).path if is_remote(place) else place
    return posixpath.splitext(path.rstrip("/"))[1].lower()
