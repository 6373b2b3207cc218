"""One sweep over level 0 of an image that averages it into coarser levels, block by block.

A block is whole pixels of every level, so that no level's pixel needs two blocks. Knows no name of
a file, and not who wants what.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box, Grid, round_up
from saccade.pipeline.sources.bands import Samples, fills_of
from saccade.pipeline.sources.base import Level, Source
from saccade.pipeline.sources.level_file import LevelWriter
from saccade.pipeline.sources.reduce import reduce_valid

SWEEP_NBYTES = 16 << 20
"""Of level 0, held at a time; more only where whole pixels of all levels cover more."""
MOST_BLOCK_NBYTES = 256 << 20
"""Levels whose pixels would need larger blocks are left out."""
DAMAGE_PX = 512
"""Side of the blocks in which damage is told from what can be read, or a pixel of the levels."""


@dataclass(frozen=True, slots=True)
class Target:
    """A level that is being averaged."""

    writer: LevelWriter
    """Where to."""
    factor: int
    """Pixels of level 0 per pixel of the level along each axis."""
    dtype: np.dtype[Any]
    """Of the means: the image's own, or floats that are not rounded."""
    marked: np.ndarray | None
    """``(rows, columns)`` bool: blocks that are wanted; None means all."""

    def wants(self, cell: tuple[int, int]) -> bool:
        """Whether a block is wanted."""
        return self.marked is None or bool(self.marked[cell])

    def put(self, source: Source, box: Box, samples: Samples | None) -> None:
        """Average a box of level 0 into its place; None says that it can't be read."""
        reduced = box.reduce(self.factor)
        if samples is None:
            self.writer.lost.append(reduced)
        else:
            self.writer.write(reduced, averaged(source, samples, reduced, self.factor, self.dtype))


def averaged(
    source: Source, samples: Samples, reduced: Box, factor: int, dtype: np.dtype[Any]
) -> Samples:
    """Samples of level 0 as a box of a coarser level; of integers, ``dtype`` may be floats."""
    fills, full = fills_of(source.bands, source.dtype), source.levels[0].shape
    return reduce_valid(samples, reduced, float(factor), full, fills, dtype)


def whole_levels(levels: Sequence[Level], px_nbytes: int) -> Iterator[Level]:
    """Of an image's coarser levels, those that divide level 0 evenly and share blocks."""
    unit = 1
    for level in levels[1:]:
        common = math.lcm(unit, int(level.downsample))
        if not level.downsample.is_integer() or common**2 * px_nbytes > MOST_BLOCK_NBYTES:
            continue
        unit, factor = common, int(level.downsample)
        height, width = (-(-side // factor) for side in levels[0].shape)
        yield Level((height, width), level.downsample, None, None, "AVERAGE")


class Blocks:
    """Level 0 cut into what is read at a time."""

    def __init__(self, source: Source, levels: Sequence[Level]) -> None:
        self._unit = math.lcm(*(int(level.downsample) for level in levels))
        fitting = math.isqrt(SWEEP_NBYTES // (source.channels * source.dtype.itemsize))
        units = max(1, fitting // self._unit)
        self.grid = Grid(levels[0].shape, self._unit * _power_of_two(units))
        """In pixels of level 0."""

    def sweep(self, source: Source, targets: Sequence[Target]) -> None:
        """Average all targets, each where it is wanted; what nobody wants is not read."""
        for index, block in enumerate(self.grid):
            cell = self.grid.cell(index)
            wanting = [target for target in targets if target.wants(cell)]
            for box, samples in self._readable(source, block) if wanting else ():
                for target in wanting:
                    target.put(source, box, samples)

    def _readable(self, source: Source, block: Box) -> Iterable[tuple[Box, Samples | None]]:
        """A block's samples, in parts where it can't be read as a whole; None for what is lost."""
        longest, least_px = max(block.shape), round_up(DAMAGE_PX, self._unit)
        try:
            yield block, source.read_valid(0, block)
        except ReadError:
            if longest <= least_px:
                yield block, None
                return
            half = _power_of_two(-(-longest // self._unit) - 1) * self._unit
            for part in Grid(block.shape, max(least_px, half)):
                yield from self._readable(source, part.shift(block.y0, block.x0))


def _power_of_two(most: int) -> int:
    """The largest that is not more, but at least 1."""
    return 1 << max(0, most.bit_length() - 1)
