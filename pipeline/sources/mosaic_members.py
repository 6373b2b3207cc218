"""Files of a mosaic, opened when they are read and kept open in bounded number. Knows no grid."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.mosaic_parts import PartFacts

MOST_OPEN = 64
"""Files that stay open while nobody reads them."""
MOST_HELD_NBYTES = 512 << 20
"""Decoded tiles that files which nobody reads may hold, all together."""

Open = Callable[[str], Source]


def facts_of(source: Source) -> PartFacts:
    """What the whole needs to know of a file."""
    return PartFacts(
        uri=source.uri,
        levels=source.levels,
        channels=source.channels,
        bands=source.bands,
        dtype=source.dtype,
        nodata=source.nodata,
        lacks_data=source.lacks_data,
        pixel_size=source.pixel_size,
        georeference=source.georeference,
        identity=source.identity(),
        held_nbytes=min(source.cache_nbytes, _decoded_nbytes(source)),
    )


def _decoded_nbytes(source: Source) -> int:
    """Memory of all tiles of all levels."""
    pixels = 0
    for level in source.levels:
        height, width = level.tile or level.shape
        rows, columns = -(-level.shape[0] // height), -(-level.shape[1] // width)
        pixels += rows * columns * height * width
    return pixels * source.channels * source.dtype.itemsize


@dataclass
class _Held:
    """One file; its lock is held while it opens."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    source: Source | None = None
    users: int = 0


class OpenFiles:
    """Opens files once for all threads; those that nobody reads are closed, the oldest first."""

    def __init__(self, files: Sequence[PartFacts], open_file: Open) -> None:
        self._files, self._open_file = files, open_file
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()

    @contextmanager
    def use(self, index: int) -> Iterator[Source]:
        """One of the files, open for the length of a block."""
        with self._lock:
            held = self._held.setdefault(index, _Held())
            self._held.move_to_end(index)
            held.users += 1
        try:
            with held.lock:
                if held.source is None:
                    held.source = self._open_file(self._files[index].uri)
            yield held.source
        finally:
            with self._lock:
                held.users -= 1
                idle = self._overdue()
            _close(idle)

    def _overdue(self) -> list[_Held]:
        """Takes out what is too much: by number, and by what the rest may hold."""
        idle = [index for index, held in self._held.items() if not held.users]
        nbytes = sum(self._files[index].held_nbytes for index in idle)
        out = []
        while idle and (len(idle) > MOST_OPEN or nbytes > MOST_HELD_NBYTES):
            index = idle.pop(0)
            nbytes -= self._files[index].held_nbytes
            out.append(self._held.pop(index))
        return out

    def close(self) -> None:
        """Close all; a file that is being read is closed by its reader's end."""
        with self._lock:
            out = [self._held.pop(i) for i, held in list(self._held.items()) if not held.users]
        _close(out)


def _close(files: Sequence[_Held]) -> None:
    for held in files:
        if held.source is not None:
            held.source.close()
