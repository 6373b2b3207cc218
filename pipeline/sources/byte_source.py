"""Where the bytes of a file come from: a disk, or an object store asked for ranges.

A disk is read piece by piece, at the moment a piece is needed. An object store is asked for all
that a read will need at once, because a request takes as long as many tiles do. Knows no format.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from saccade.pipeline import remote
from saccade.pipeline.errors import AccessDenied, StorageGone
from saccade.pipeline.remote import Range, RemoteFacts
from saccade.pipeline.sources.base import Identity, file_identity
from saccade.pipeline.sources.identities import object_identity

Read = Callable[[int, int], bytes]
"""``(offset, nbytes)`` -> those bytes; fewer where the file ends before."""

BLOCK_NBYTES = 64 << 10
"""The least that a header is read in from an object store."""
MOST_BLOCKS_AHEAD = 16
"""Blocks of one request, where a header is read on and on."""
MOST_BLOCKS_KEPT = 256


class ByteSource(Protocol):
    """The bytes of one file, for any number of threads."""

    name: str
    """What was opened: a path or a URI."""
    gathers: bool
    """Whether pieces cost less when asked for together: then ``gather`` before reading."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Some bytes; fewer where the file ends before."""
        ...

    def gather(self, ranges: Sequence[Range]) -> Read:
        """Fetch several pieces at once; returns what reads them, and any others, from now on."""
        ...

    def as_file(self) -> io.IOBase:
        """The same bytes as a file of its own, to be closed; for reading headers."""
        ...

    def identity(self) -> Identity:
        """What tells this file from another one."""
        ...

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        ...


class LocalBytes:
    """A file on a disk, read at any place without a common position."""

    gathers = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = path.open("rb", buffering=0)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Some bytes; fewer where the file ends before."""
        return os.pread(self._file.fileno(), nbytes, offset)

    def gather(self, ranges: Sequence[Range]) -> Read:
        """Nothing is gained by reading ahead: the system does it already."""
        del ranges
        return self.read

    def as_file(self) -> io.IOBase:
        """The file, opened once more."""
        return Path(self.name).open("rb")

    def identity(self) -> Identity:
        """Size, modification time and quick hash."""
        return file_identity(Path(self.name))

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        self._file.close()


class RemoteBytes:
    """An object in a store, read by range requests; another object in its place is an error.

    Raises:
        NoSuchObject: nothing lies there.
        AccessDenied: no permission to read it.
        StorageGone: the store does not answer.
    """

    gathers = True

    def __init__(self, uri: str) -> None:
        self.name = uri
        self.facts: RemoteFacts = remote.head(uri)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Some bytes; fewer where the object ends before."""
        return self._ask([(offset, nbytes)])[0]

    def gather(self, ranges: Sequence[Range]) -> Read:
        """Fetch several pieces with few requests, some of them at the same time."""
        held = dict(zip(ranges, self._ask(ranges), strict=True))

        def read(offset: int, nbytes: int) -> bytes:
            data = held.get((offset, nbytes))
            return self.read(offset, nbytes) if data is None else data

        return read

    def _ask(self, ranges: Sequence[Range]) -> list[bytes]:
        within = [self._within(*one) for one in ranges]
        asked = [one for one in within if one[1]]
        try:
            parts = iter(remote.read_ranges(self.name, asked, etag=self.facts.strong_etag))
        except AccessDenied as error:
            raise StorageGone(
                f"{error}; it could be read before: renew the credentials and run the same "
                "command: what is done is kept"
            ) from error
        return [next(parts) if one[1] else b"" for one in within]

    def _within(self, offset: int, nbytes: int) -> Range:
        """The part of a range that the object has: a damaged header may point anywhere."""
        start = min(max(0, offset), self.facts.nbytes)
        return start, max(0, min(nbytes, self.facts.nbytes - start))

    def as_file(self) -> io.IOBase:
        """The object as a file, read in blocks that are kept until it is closed."""
        return _RemoteFile(self)

    def identity(self) -> Identity:
        """Size, date and ETag."""
        return object_identity(self.name, self.facts, self.read)

    def close(self) -> None:
        """Nothing is held: connections are shared."""


class _RemoteFile(io.RawIOBase):
    """An object as a file for one thread, in blocks: twice as many each time it is read on."""

    def __init__(self, source: RemoteBytes) -> None:
        super().__init__()
        self.name = source.name
        self._source = source
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next, self._ahead = 0, 1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence, self._nbytes)
        self._position = max(0, base + offset)
        return self._position

    @property
    def _nbytes(self) -> int:
        return self._source.facts.nbytes

    def read(self, nbytes: int | None = -1, /) -> bytes:
        rest = max(0, self._nbytes - self._position)
        wanted = rest if nbytes is None or nbytes < 0 else min(nbytes, rest)
        if wanted > MOST_BLOCKS_AHEAD * BLOCK_NBYTES:
            data = self._source.read(self._position, wanted)
        else:
            data = self._from_blocks(self._position, wanted)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _from_blocks(self, start: int, wanted: int) -> bytes:
        first, last = start // BLOCK_NBYTES, -(-(start + wanted) // BLOCK_NBYTES)
        data = b"".join(self._block(number, last - number) for number in range(first, last))
        return data[start - first * BLOCK_NBYTES :][:wanted]

    def _block(self, number: int, wanted: int) -> bytes:
        if number not in self._blocks:
            self._ahead = min(2 * self._ahead, MOST_BLOCKS_AHEAD) if number == self._next else 1
            self._fetch(number, max(wanted, self._ahead))
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int, count: int) -> None:
        data = self._source.read(number * BLOCK_NBYTES, count * BLOCK_NBYTES)
        self._next = number + count
        for one in range(count):
            self._blocks[number + one] = data[one * BLOCK_NBYTES : (one + 1) * BLOCK_NBYTES]
        while len(self._blocks) > MOST_BLOCKS_KEPT:
            self._blocks.popitem(last=False)

    def close(self) -> None:
        self._blocks.clear()
        super().close()
