"""Reading one TIFF directory: only the tiles or strips that a box touches. Knows no levels.

Bytes are read at their place in the file and not through a memory map: that costs 2 microseconds
of the 100 that a tile takes, and then a file that shrinks or vanishes is an error instead of the
end of the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tifffile import TiffPage

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.remote import Range
from saccade.pipeline.sources.byte_source import ByteSource, Read
from saccade.pipeline.sources.reader import OtherReaderNeeded
from saccade.pipeline.sources.tiff_decoder import TileDecoder
from saccade.pipeline.sources.tile_cache import TileCache

MAX_SEGMENT_BYTES = 1 << 31
SMALL_RATIO, SMALL_NBYTES = 96, 1024
"""A tile that was compressed by this much, or to this little, may be background like many others;
its bytes are compared."""
GATHERED_NBYTES = 32 << 20
"""Of tiles that are fetched together, before any of them is decoded."""


class Place(NamedTuple):
    """One tile or strip."""

    channel: int
    """Where its sample goes in what is read, where each sample has tiles of its own; else 0."""
    number: int
    """In the directory."""
    row: int
    """Of the grid of tiles."""
    column: int
    """Of the grid of tiles."""


class Segments:
    """The tiles or strips of one directory, decoded on demand by any number of threads.

    Raises:
        UnsupportedImage: no decoder for its compression or sample layout, more than one plane of
            depth, or tiles too large to decode one at a time.
    """

    def __init__(self, page: TiffPage, file: ByteSource, dtype: np.dtype[Any], fill: float) -> None:
        self._file, self._dtype, self._fill = file, dtype, fill
        self.shape: Shape = (int(page.imagelength), int(page.imagewidth))
        self.samples = int(page.samplesperpixel)
        self.tile = _tile(page)
        self.codec = _codec(page)
        self.separate: bool = int(page.planarconfig or 1) == 2 and self.samples > 1
        self._tiled = bool(page.is_tiled)
        self._columns = -(-self.shape[1] // self.tile[1])
        self._rows = -(-self.shape[0] // self.tile[0])
        # a large slide has a million tiles, and as a Python number each entry would take 40 bytes
        self._offsets = np.array(page.dataoffsets, np.uint64)
        self._nbytes = np.array(page.databytecounts, np.uint64)
        self._decoder = TileDecoder.of(page)
        self._raw_rows = _has_raw_rows(page)
        self._stored = page.dtype.newbyteorder(page.parent.byteorder) if page.dtype else dtype
        self._small_nbytes = max(SMALL_NBYTES, self.tile_nbytes // SMALL_RATIO)
        if self._decoder.fill is None or file.gathers:
            # what tifffile makes of bytes may depend on the tile's place; and where bytes are
            # fetched, to have them for a comparison costs more than decoding them again
            self._small_nbytes = 0
        self._check()

    def _check(self) -> None:
        expected = self._rows * self._columns * (self.samples if self.separate else 1)
        if min(len(self._offsets), len(self._nbytes)) < expected:
            raise ValueError(f"{expected} tiles or strips expected, found {len(self._offsets)}")
        if self.tile_nbytes > MAX_SEGMENT_BYTES and not self._raw_rows:
            raise OtherReaderNeeded(
                f"{self._file.name}: tiles or strips up to {MAX_SEGMENT_BYTES} bytes expected, "
                f"found {self.tile_nbytes}; write it again in smaller tiles"
            )

    @property
    def tile_nbytes(self) -> int:
        """Size of one decoded tile or strip."""
        samples = 1 if self.separate else self.samples
        return self.tile[0] * self.tile[1] * samples * self._dtype.itemsize

    @property
    def cached_nbytes(self) -> int:
        """Size of what a cache would keep at a time; 0 where rows are read alone."""
        return 0 if self._raw_rows else self.tile_nbytes

    @property
    def has_holes(self) -> bool:
        """Whether the file leaves out some tile or strip."""
        return not self._nbytes.all()

    def read_into(
        self, out: np.ndarray, box: Box, cache: TileCache, samples: Sequence[int] | None = None
    ) -> None:
        """Fill ``(height, width, samples)`` with the pixels of a box inside the directory.

        ``samples`` are those that are wanted, in this order, where each has tiles of its own.
        """
        wanted = range(self.samples if self.separate else 1) if samples is None else samples
        if not self._file.gathers:
            for place in self._touched(box, wanted):
                self._paste(out, box, place, cache, self._file.read)
            return
        for places, ranges in self._gatherings(self._touched(box, wanted), box, cache):
            read = self._file.gather(ranges)
            for place in places:
                self._paste(out, box, place, cache, read)

    def _touched(self, box: Box, samples: Sequence[int]) -> Iterator[Place]:
        (rows, columns), (tile_height, tile_width) = (self._rows, self._columns), self.tile
        for channel, sample in enumerate(samples):
            for row in range(box.y0 // tile_height, -(-box.y1 // tile_height)):
                for column in range(box.x0 // tile_width, -(-box.x1 // tile_width)):
                    yield Place(channel, (sample * rows + row) * columns + column, row, column)

    def _gatherings(
        self, places: Iterable[Place], box: Box, cache: TileCache
    ) -> Iterator[tuple[list[Place], list[Range]]]:
        """Places in order, each time as many as may be fetched together, and what to fetch."""
        some: list[Place] = []
        ranges: list[Range] = []
        nbytes = 0
        for place in places:
            needed = self._range_of(place, box)
            if needed[1] and not cache.holds((id(self), place.number)):
                if ranges and nbytes + needed[1] > GATHERED_NBYTES:
                    yield some, ranges
                    some, ranges, nbytes = [], [], 0
                ranges.append(needed)
                nbytes += needed[1]
            some.append(place)
        yield some, ranges

    def _range_of(self, place: Place, box: Box) -> Range:
        """What a box needs of a tile, in the file; no bytes where the file leaves it out."""
        offset, nbytes = self._offsets.item(place.number), self._nbytes.item(place.number)
        if not nbytes or not self._raw_rows:
            return offset, nbytes
        top = place.row * self.tile[0]
        y0, y1 = max(top, box.y0), min(top + self.tile[0], box.y1)
        return offset + (y0 - top) * self._row_nbytes, (y1 - y0) * self._row_nbytes

    def _paste(self, out: np.ndarray, box: Box, place: Place, cache: TileCache, read: Read) -> None:
        # plain numbers: boxes would cost as much as the rest of this
        channel, index, row, column = place
        if self.separate:
            out = out[:, :, channel : channel + 1]
        top, left = row * self.tile[0], column * self.tile[1]
        y0, y1 = max(top, box.y0), min(top + self.tile[0], box.y1)
        x0, x1 = max(left, box.x0), min(left + self.tile[1], box.x1)
        where = slice(y0 - box.y0, y1 - box.y0), slice(x0 - box.x0, x1 - box.x0)
        if not self._nbytes.item(index):
            out[where] = self._fill
        elif self._raw_rows:
            data = _whole(read, *self._range_of(place, box))
            rows = np.frombuffer(data, self._stored).reshape(y1 - y0, self.shape[1], out.shape[2])
            out[where] = rows[:, x0:x1]
        else:
            tile = self._tile_of(index, row, cache, read)
            out[where] = tile[y0 - top : y1 - top, x0 - left : x1 - left]

    @property
    def _row_nbytes(self) -> int:
        """Of a row of an uncompressed strip, which may be as large as the image."""
        samples = 1 if self.separate else self.samples
        return self.shape[1] * samples * self._stored.itemsize

    def _tile_of(self, index: int, row: int, cache: TileCache, read: Read) -> np.ndarray:
        """A decoded tile: kept from an earlier read, equal to an earlier one, or decoded now."""
        height = self._stored_height(row)
        offset, nbytes = self._offsets.item(index), self._nbytes.item(index)

        def decode() -> np.ndarray:
            return self._decoder.decode(_whole(read, offset, nbytes), index, height)

        if nbytes > self._small_nbytes:
            return cache.get((id(self), index), decode)
        data = _whole(read, offset, nbytes)
        key = (id(self), height, data)
        return cache.get(key, lambda: compact(self._decoder.decode(data, index, height)))

    def _stored_height(self, row: int) -> int:
        """Rows that the file holds: a strip ends with the image, a tile does not."""
        whole = self.tile[0]
        return whole if self._tiled else min(whole, self.shape[0] - row * whole)


def _whole(read: Read, offset: int, nbytes: int) -> bytes:
    data = read(offset, nbytes)
    if len(data) != nbytes:
        raise EOFError(f"{nbytes} bytes at {offset} expected, found {len(data)}")
    return data


def compact(pixels: np.ndarray) -> np.ndarray:
    """The same pixels; where all rows are alike, one row in memory."""
    first = pixels[0]
    # the last row first: in most tiles that is enough to tell
    if first.tobytes() == pixels[-1].tobytes() and (pixels == first).all():
        return np.broadcast_to(first.copy(), pixels.shape)
    return pixels


def _tile(page: TiffPage) -> Shape:
    if page.is_tiled:
        return (int(page.tilelength), int(page.tilewidth))
    return (min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth))


def _codec(page: TiffPage) -> str:
    return str(getattr(page.compression, "name", page.compression))


def _has_raw_rows(page: TiffPage) -> bool:
    """Whether strips are plain rows of whole-byte samples, of which some can be read alone."""
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
    whole = page.bitspersample in (8, 16, 32, 64) and page.sampleformat in (1, 2, 3)
    return bool(plain and whole and not page.is_tiled and page.imagedepth == 1)
