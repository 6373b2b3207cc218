"""Reading one TIFF directory: only the tiles or strips that a box touches. Knows no levels."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
from tifffile import TiffPage

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box, Shape

JPEG_COMPRESSIONS = frozenset({6, 7, 33007, 34892})
MAX_SEGMENT_BYTES = 1 << 31


class Segments:
    """The tiles or strips of one directory, decoded on demand by any number of threads.

    Raises:
        UnsupportedImage: no decoder for its compression or sample layout, more than one plane of
            depth, or tiles too large to decode one at a time.
    """

    def __init__(self, page: TiffPage, file: BinaryIO, dtype: np.dtype[Any], fill: float) -> None:
        self._file, self._dtype, self._fill = file, dtype, fill
        self.shape: Shape = (int(page.imagelength), int(page.imagewidth))
        self.samples = int(page.samplesperpixel)
        self.tile = _tile(page)
        self.codec = _codec(page)
        self._separate = int(page.planarconfig or 1) == 2 and self.samples > 1
        self._columns = -(-self.shape[1] // self.tile[1])
        self._rows = -(-self.shape[0] // self.tile[0])
        self._offsets, self._nbytes = page.dataoffsets, page.databytecounts
        self._options = _decode_options(page)
        self._decode = _decoder(page)
        self._raw_rows = _has_raw_rows(page)
        self._stored = page.dtype.newbyteorder(page.parent.byteorder) if page.dtype else dtype
        self._check()

    def _check(self) -> None:
        expected = self._rows * self._columns * (self.samples if self._separate else 1)
        if min(len(self._offsets), len(self._nbytes)) < expected:
            raise ValueError(f"{expected} tiles or strips expected, found {len(self._offsets)}")
        nbytes = self.tile[0] * self.tile[1] * self.samples * self._dtype.itemsize
        if nbytes > MAX_SEGMENT_BYTES and not self._raw_rows:
            raise UnsupportedImage(
                f"{self._file.name}: tiles or strips up to {MAX_SEGMENT_BYTES} bytes expected, "
                f"found {nbytes}; write it again in smaller tiles"
            )

    @property
    def has_holes(self) -> bool:
        """Whether the file leaves out some tile or strip."""
        return any(nbytes == 0 for nbytes in self._nbytes)

    def read_into(self, out: np.ndarray, box: Box) -> None:
        """Fill ``(height, width, samples)`` with the pixels of a box inside the directory."""
        (rows, columns), (tile_height, tile_width) = (self._rows, self._columns), self.tile
        for plane in range(self.samples if self._separate else 1):
            target = out[:, :, plane : plane + 1] if self._separate else out
            for row in range(box.y0 // tile_height, -(-box.y1 // tile_height)):
                for column in range(box.x0 // tile_width, -(-box.x1 // tile_width)):
                    index = (plane * rows + row) * columns + column
                    origin = (row * tile_height, column * tile_width)
                    self._paste(target, box, index, origin)

    def _paste(self, out: np.ndarray, box: Box, index: int, origin: tuple[int, int]) -> None:
        area = Box(*origin, origin[0] + self.tile[0], origin[1] + self.tile[1]).clip(self.shape)
        part = area.intersect(box)
        where = part.relative_to(box).slices
        if self._nbytes[index] == 0:
            out[where] = self._fill
        elif self._raw_rows:
            out[where] = self._rows_of(index, part.relative_to(area), area.width, out.shape[2])
        else:
            data = self._bytes(self._offsets[index], self._nbytes[index])
            pixels = self._decode(data, index, **self._options)[0][0]
            out[where] = pixels[part.relative_to(area).slices]

    def _rows_of(self, index: int, part: Box, width: int, samples: int) -> np.ndarray:
        """Rows of an uncompressed strip, which may be as large as the image."""
        row_nbytes = width * samples * self._stored.itemsize
        start = self._offsets[index] + part.y0 * row_nbytes
        data = self._bytes(start, part.height * row_nbytes)
        rows = np.frombuffer(data, self._stored).reshape(part.height, width, samples)
        return rows[:, part.x0 : part.x1]

    def _bytes(self, offset: int, nbytes: int) -> bytes:
        data = os.pread(self._file.fileno(), nbytes, offset)
        if len(data) != nbytes:
            raise EOFError(f"{nbytes} bytes at {offset} expected, found {len(data)}")
        return data


def _tile(page: TiffPage) -> Shape:
    if page.is_tiled:
        return (int(page.tilelength), int(page.tilewidth))
    return (min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth))


def _codec(page: TiffPage) -> str:
    return str(getattr(page.compression, "name", page.compression))


def _decode_options(page: TiffPage) -> dict[str, Any]:
    if page.compression not in JPEG_COMPRESSIONS:
        return {}
    return {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}


def _decoder(page: TiffPage) -> Any:
    """The directory's decode function; it refuses here, not at the first read."""
    name = page.parent.filehandle.path
    if page.imagedepth != 1 or page.dtype is None:
        raise UnsupportedImage(
            f"{name}: flat pixels of a known type expected, found depth {page.imagedepth} "
            f"and {page.bitspersample} bits per sample"
        )
    try:
        page.decode(None, 0)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise UnsupportedImage(f"{name}: no decoder for this TIFF: {error}") from error
    return page.decode


def _has_raw_rows(page: TiffPage) -> bool:
    """Whether strips are plain rows of whole-byte samples, of which some can be read alone."""
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
    whole = page.bitspersample in (8, 16, 32, 64) and page.sampleformat in (1, 2, 3)
    return bool(plain and whole and not page.is_tiled and page.imagedepth == 1)
