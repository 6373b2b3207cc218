"""Neighbouring tiles made into windows, so that halos are shared. Pure; knows no layout.

A window of ``h x w`` tiles computes ``(h + 2 m) (w + 2 m)`` tiles' worth of pixels, where ``m`` is
the halo in tiles. The chosen tiles are cut into rectangles, those first that compute the least per
tile: large ones before small ones, squares before strips.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from saccade.pipeline.geometry import Box
from saccade.pipeline.nesting import any_in

Sides = tuple[int, int]
"""Height and width in tiles."""


def merge_tiles(chosen: np.ndarray, cells: Box, longest: int, margin: float = 0.0) -> Iterator[Box]:
    """Partition the chosen tiles of a rectangle into rectangles, each at most ``longest`` a side.

    Of every shape, cheapest per tile first, as many as are wholly chosen and not yet taken, from
    the top left on. Deterministic; no tile that is not chosen is ever taken.

    Args:
        chosen: ``(tile rows, tile columns)`` bool.
        cells: the part of it to partition.
        longest: longest side of a rectangle, in tiles.
        margin: the halo, in tiles.

    Yields:
        Boxes in tile coordinates, in reading order of their corners; every chosen tile lies in
        exactly one.
    """
    left = np.array(chosen[cells.slices], bool)
    heights, widths = (sides_up_to(min(longest, max(1, length))) for length in left.shape)
    found: list[Box] = []
    for sides in _cheapest_first(heights, widths, margin):
        found += _take(left, sides)
        if not left.any():
            break
    return (box.shift(cells.y0, cells.x0) for box in sorted(found))


def computed_tiles(sides: Sides, margin: float) -> float:
    """Tiles' worth of pixels that a window over a rectangle of tiles computes."""
    return (sides[0] + 2 * margin) * (sides[1] + 2 * margin)


@cache
def sides_up_to(longest: int) -> tuple[int, ...]:
    """The sides that rectangles may have: a few per doubling, and the longest.

    So a pass has few shapes, and few are tried where tiles are much smaller than windows.
    """
    few = (n << k for k in range(longest.bit_length()) for n in (1, 3))
    return tuple(sorted({longest, *(side for side in few if side < longest)}))


@cache
def _cheapest_first(
    heights: tuple[int, ...], widths: tuple[int, ...], margin: float
) -> tuple[Sides, ...]:
    """All shapes, by pixels computed per tile; of equal ones the larger, then the flatter."""

    def rank(sides: Sides) -> tuple[float, int, int]:
        area = sides[0] * sides[1]
        return round(computed_tiles(sides, margin) / area, 9), -area, sides[0]

    return tuple(sorted(((h, w) for h in heights for w in widths), key=rank))


def _take(left: np.ndarray, sides: Sides) -> Iterator[Box]:
    """Rectangles of one shape that are all chosen, taken out of ``left`` as they are found."""
    height, width = sides
    for row, column in np.argwhere(_full(left, sides)).tolist():
        part = left[row : row + height, column : column + width]
        if part.all():
            part[...] = False
            yield Box(row, column, row + height, column + width)


def _full(flags: np.ndarray, sides: Sides) -> np.ndarray:
    """Corners of the rectangles of this shape in which every flag is set."""
    rows, columns = (np.arange(n - s + 1) for n, s in zip(flags.shape, sides, strict=True))
    ends = (rows, rows + sides[0]), (columns, columns + sides[1])
    return ~any_in(~flags, *ends)
