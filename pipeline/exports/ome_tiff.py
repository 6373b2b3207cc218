"""A pyramidal, tiled, compressed OME-TIFF, tile by tile. The only export that knows tifffile.

A level is halved while it is written; its halves wait in a file beside the target until the next
level is, so that neither a level nor a row of tiles is held in memory. The same raster always gives
the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import numpy as np
from tifffile import TiffWriter

from saccade.pipeline.exports.rasters import Raster
from saccade.pipeline.geometry import Box, Grid, Shape
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store_shelf import PARTIAL

TILE_PX = 512
"""Side of a tile."""
CLASSIC_NBYTES = 2**32 - 2**26
"""A file that might grow beyond this, were nothing of it compressed, is a BigTIFF."""
BUFFER_NBYTES = 2**23
"""tifffile compresses tiles of about so many bytes at once."""


def level_shapes(shape: Shape) -> tuple[Shape, ...]:
    """Heights and widths, each half of the one before, down to a single tile."""
    shapes = [shape]
    while max(shapes[-1]) > TILE_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return tuple(shapes)


def write_ome_tiff(
    path: Path, raster: Raster, description: bytes, pixel_size: PixelSize | None
) -> None:
    """Write a file.

    Args:
        path: of the file; ends in '.ome.tif' once it is in its place.
        raster: what to write.
        description: OME-XML.
        pixel_size: of the finest level, for readers that know no OME.
    """
    shapes = level_shapes(raster.shape)
    with ExitStack() as stack:
        folder = TemporaryDirectory(PARTIAL, f"{path.name}.", path.parent)
        spool = Path(stack.enter_context(folder))
        big = _is_big(raster, shapes)
        file = stack.enter_context(TiffWriter(path, bigtiff=big, ome=False))
        halves: _Halves | None = None
        for index, shape in enumerate(shapes):
            following = stack.enter_context(closing(_Halves(spool / str(index), raster, shape)))
            first = _first(description, len(shapes) - 1) if index == 0 else {"subfiletype": 1}
            _write_level(
                file,
                raster,
                shape,
                _tiles(raster, shape, halves, following),
                **first,
                **_resolution(pixel_size, index),
            )
            if halves is not None:
                halves.close()  # what was read once is not kept until the end
            halves = following


def _write_level(
    file: TiffWriter, raster: Raster, shape: Shape, tiles: Iterator[np.ndarray], **said: object
) -> None:
    file.write(
        tiles,
        shape=(len(raster.channels), *shape),
        dtype=raster.dtype,
        tile=(TILE_PX, TILE_PX),
        photometric="minisblack",
        compression="zlib",
        metadata=None,
        software="saccade",
        buffersize=BUFFER_NBYTES,
        maxworkers=1,
        **said,
    )


def _is_big(raster: Raster, shapes: tuple[Shape, ...]) -> bool:
    pixels = sum(height * width for height, width in shapes)
    return len(raster.channels) * pixels * raster.dtype.itemsize > CLASSIC_NBYTES


def _first(description: bytes, levels: int) -> dict[str, object]:
    """What only pages of the finest level have."""
    return {"description": description, "subifds": levels, "subfiletype": 0}


def _resolution(size: PixelSize | None, level: int) -> dict[str, object]:
    """Pixels per centimetre."""
    if size is None:
        return {}
    centimetre = {"um": 1e4, "m": 1e-2}[size.unit]
    per = tuple(centimetre / (side * 2**level) for side in (size.x, size.y))
    return {"resolution": per, "resolutionunit": "CENTIMETER"}


def _tiles(
    raster: Raster, shape: Shape, halves: _Halves | None, following: _Halves
) -> Iterator[np.ndarray]:
    """Whole tiles of all planes of one level; leaves the halves of each behind."""
    grid = Grid(shape, TILE_PX)
    for channel in range(len(raster.channels)):
        for index, box in enumerate(grid):
            values = raster.read(channel, box) if halves is None else halves.read(channel, box)
            following.write(channel, index, raster.halve(values))
            whole = np.zeros((TILE_PX, TILE_PX), raster.dtype)
            whole[: box.height, : box.width] = values
            yield whole


class _Halves:
    """The next level of a pyramid in a file of its own: the halved tiles of the level above."""

    def __init__(self, path: Path, raster: Raster, above: Shape) -> None:
        self._grid = Grid(above, TILE_PX)
        self._dtype, self._side = raster.dtype, TILE_PX // 2
        self._nbytes = self._side**2 * raster.dtype.itemsize
        self._path = path
        self._file: IO[bytes] = path.open("w+b")

    def write(self, channel: int, tile: int, values: np.ndarray) -> None:
        """Keep the half of one tile of the level above; zeros cost nothing."""
        if not values.any():
            return
        whole = np.zeros((self._side, self._side), self._dtype)
        whole[: values.shape[0], : values.shape[1]] = values
        self._file.seek((channel * len(self._grid) + tile) * self._nbytes)
        self._file.write(whole.tobytes())

    def read(self, channel: int, box: Box) -> np.ndarray:
        """One tile of this level: the halves of at most four."""
        values = np.zeros((TILE_PX, TILE_PX), self._dtype)
        rows, columns = (
            range(2 * start // TILE_PX, 2 * start // TILE_PX + 2) for start in _at(box)
        )
        for row, column in itertools.product(rows, columns):
            if row < self._grid.rows and column < self._grid.columns:
                place = Box(row, column, row + 1, column + 1).scale(self._side)
                values[place.relative_to(box).slices] = self._half(channel, row, column)
        return values[: box.height, : box.width]

    def _half(self, channel: int, row: int, column: int) -> np.ndarray:
        tile = channel * len(self._grid) + self._grid.index(row, column)
        self._file.seek(tile * self._nbytes)
        data = self._file.read(self._nbytes).ljust(self._nbytes, b"\0")
        return np.frombuffer(data, self._dtype).reshape(self._side, self._side)

    def close(self) -> None:
        """Remove the file; nothing happens the second time."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _at(box: Box) -> Shape:
    return box.y0, box.x0
