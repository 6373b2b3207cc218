"""The levels of a pyramid, tile by tile, for files that hold tiles. Knows no file format.

A level is halved while it is handed on; its halves wait in a file of a given folder until the next
level is asked for, so that neither a level nor a row of tiles is held in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from saccade.pipeline.exports.rasters import Raster
from saccade.pipeline.geometry import Box, Grid, Shape

TILE_PX = 512
"""Side of a tile."""


@dataclass(frozen=True, slots=True, eq=False)
class TiledLevel:
    """One level; its tiles are taken to the last before the next level is asked for."""

    index: int
    """0 is the finest."""
    shape: Shape
    """Height and width."""
    tiles: Iterator[np.ndarray]
    """``(TILE_PX, TILE_PX)``, those of one plane after those of another; zeros beyond the edge."""


def level_shapes(shape: Shape) -> tuple[Shape, ...]:
    """Heights and widths, each half of the one before, down to a single tile."""
    shapes = [shape]
    while max(shapes[-1]) > TILE_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return tuple(shapes)


def tiled_levels(raster: Raster, spool: Path) -> Generator[TiledLevel]:
    """The levels of a raster, finest first.

    Args:
        raster: what to read, and how to halve it.
        spool: a folder for what waits.
    """
    with ExitStack() as stack:
        halves: _Halves | None = None
        for index, shape in enumerate(level_shapes(raster.shape)):
            following = stack.enter_context(closing(_Halves(spool / str(index), raster, shape)))
            yield TiledLevel(index, shape, _tiles(raster, shape, halves, following))
            if halves is not None:
                halves.close()  # what was read once is not kept until the end
            halves = following


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
