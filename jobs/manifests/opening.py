"""A manifest's bytes, wherever it lies: a file, or a URL that is read by ranges."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from saccade.jobs.manifests.places import is_remote

BLOCK_NBYTES = 4 << 20
"""Of a manifest behind a URL, so much is asked for at a time."""


def open_bytes(place: str) -> BinaryIO:
    """A manifest, at its beginning; it can be sought in.

    Raises:
        OSError: it can't be opened.
        SaccadeError: it lies behind a URL and can't be opened.
    """
    if not is_remote(place):
        return Path(place).open("rb")
    return cast(BinaryIO, io.BufferedReader(_Ranges(place), BLOCK_NBYTES))


class _Ranges(io.RawIOBase):
    """A file behind a URL."""

    def __init__(self, url: str) -> None:
        from saccade.pipeline.remote import head

        self._url, self._at = url, 0
        self._nbytes = head(url).nbytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._nbytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        from saccade.pipeline.remote import read_range

        length = min(len(buffer), self._nbytes - self._at)
        if length <= 0:
            return 0
        block = read_range(self._url, self._at, length)
        buffer[: len(block)] = bytes(block)
        self._at += len(block)
        return len(block)
