"""An area of interest: polygons in an image, the tiles and pixels that they meet. Pure.

A tile is met where a polygon and the tile share ground of any size; to touch its edge is not to
meet it. Tiles are half-open, so ground belongs to one tile only, and a tile at the image's edge
ends where the image does. Places are taken to a millionth of a pixel, so that an area drawn along
tiles' edges meets these tiles and not their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.geometry import Box, Grid

DECIMALS = 6
"""Places are rounded to so many decimals of a pixel."""
MOST_CROSSINGS = 1 << 21
"""Rows that edges cross which are looked at at a time, but for a single edge's own."""
MOST_VERTICES = 20_000_000

Polygon = tuple[np.ndarray, ...]
"""Closed rings ``(n, 2)`` float64 of x and y: the outer one, then its holes."""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """All edges of some polygons; outer rings turn one way and holes the other."""

    starts: np.ndarray
    """``(n, 2)`` float64: column and row where each begins, in pixels."""
    ends: np.ndarray
    """``(n, 2)`` float64: where it ends."""

    @classmethod
    def of(cls, polygons: Sequence[Polygon]) -> Edges:
        """The edges of polygons whose rings may turn either way."""
        rings = [
            ring if (signed_area(ring) > 0) == (number == 0) else ring[::-1]
            for polygon in polygons
            for number, ring in enumerate(polygon)
        ]
        if not rings:
            return cls(np.zeros((0, 2)), np.zeros((0, 2)))
        starts = np.concatenate([ring[:-1] for ring in rings])
        return cls(starts, np.concatenate([ring[1:] for ring in rings]))

    def scaled(self, factor: float) -> Edges:
        """The same, with pixels that are so many times larger."""
        return Edges(
            np.round(self.starts / factor, DECIMALS), np.round(self.ends / factor, DECIMALS)
        )


def signed_area(ring: np.ndarray) -> float:
    """Area of a closed ring, negative where it turns the other way."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def tiles_met(edges: Edges, grid: Grid, downsample: float) -> np.ndarray:
    """Tiles whose ground polygons meet.

    Args:
        edges: of the polygons, in pixels of level 0.
        grid: of tiles.
        downsample: pixels of level 0 per pixel of the grid's array.

    Returns:
        ``(tile rows, tile columns)`` bool.
    """
    here = edges.scaled(downsample)
    rows, columns = _borders(grid.rows, grid, 0), _borders(grid.columns, grid, 1)
    met: np.ndarray = _crossed(here, rows, columns) | _inside(here, rows, columns)
    return met


def pixels_inside(edges: Edges, box: Box) -> np.ndarray:
    """Pixels of a box whose centre lies in a polygon, ``(h, w)`` bool; edges in the same pixels."""
    low, high = _low_and_high(edges)
    near = (low < box.y1) & (high > box.y0)
    rows, columns = np.arange(box.y0, box.y1 + 1.0), np.arange(box.x0, box.x1 + 1.0)
    return _inside(Edges(edges.starts[near], edges.ends[near]), rows, columns)


def _borders(count: int, grid: Grid, axis: int) -> np.ndarray:
    """Where tiles begin, and where the last one ends."""
    starts = np.arange(count + 1, dtype=np.float64) * grid.tile_px
    starts[-1] = grid.shape[axis]
    return starts


def _crossed(edges: Edges, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Tiles through whose inside an edge runs."""
    height, width = len(rows) - 1, len(columns) - 1
    runs = np.zeros(height * (width + 1), np.int64)
    low, high = _low_and_high(edges)
    first, last = _spans(rows, low, high)
    for which, row in _per_row(first, last):
        ends = _within(edges, which, rows[row], rows[row + 1])
        left, right = (np.round(end, DECIMALS) for end in ends)
        start, stop = _spans(columns, left, right)
        some = start <= stop
        at = row[some] * (width + 1)
        runs += np.bincount(at + start[some], minlength=len(runs))
        runs -= np.bincount(at + stop[some] + 1, minlength=len(runs))
    found: np.ndarray = runs.reshape(height, width + 1).cumsum(axis=1)[:, :width] > 0
    return found


def _inside(edges: Edges, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Tiles whose centre lies in a polygon: those that no edge crosses lie in it as a whole."""
    middle_y, middle_x = (rows[:-1] + rows[1:]) / 2, (columns[:-1] + columns[1:]) / 2
    height, width = len(middle_y), len(middle_x)
    turns = np.zeros(height * (width + 1), np.int64)
    low, high = _low_and_high(edges)
    first = np.searchsorted(middle_y, low, "left")
    last = np.searchsorted(middle_y, high, "left") - 1
    downwards = np.where(edges.ends[:, 1] > edges.starts[:, 1], 1, -1)
    for which, row in _per_row(first, last):
        x, _ = _within(edges, which, middle_y[row], middle_y[row])
        at = row * (width + 1) + np.searchsorted(middle_x, x, "left")
        for turn, sign in ((downwards[which] > 0, 1), (downwards[which] < 0, -1)):
            turns += sign * np.bincount(at[turn], minlength=len(turns))
    found: np.ndarray = turns.reshape(height, width + 1).cumsum(axis=1)[:, :width] != 0
    return found


def _low_and_high(edges: Edges) -> tuple[np.ndarray, np.ndarray]:
    tops, bottoms = edges.starts[:, 1], edges.ends[:, 1]
    return np.minimum(tops, bottoms), np.maximum(tops, bottoms)


def _spans(borders: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last cell whose inside a span enters; the last is before the first where none."""
    first = np.searchsorted(borders, low, "right") - 1
    last = np.searchsorted(borders, high, "left") - 1
    return np.maximum(first, 0), np.minimum(last, len(borders) - 2)


def _per_row(first: np.ndarray, last: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each edge with each of its rows, a bounded number of pairs at a time."""
    counts = np.maximum(last - first + 1, 0)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + MOST_CROSSINGS, "right")))
        some = counts[start:stop]
        which = np.repeat(np.arange(start, stop), some)
        begins = np.repeat(np.cumsum(some) - some, some)
        yield which, first[which] + np.arange(len(which)) - begins
        start = stop


def _within(
    edges: Edges, which: np.ndarray, top: np.ndarray, bottom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leftmost and rightmost place of edges between two heights."""
    (x0, y0), (x1, y1) = edges.starts[which].T, edges.ends[which].T
    height = y1 - y0
    level = height == 0
    slope = np.where(level, 0.0, (x1 - x0) / np.where(level, 1.0, height))
    least, most = np.minimum(x0, x1), np.maximum(x0, x1)
    at: list[np.ndarray] = [
        np.clip(x0 + (np.clip(y, np.minimum(y0, y1), np.maximum(y0, y1)) - y0) * slope, least, most)
        for y in (top, bottom)
    ]
    left = np.where(level, least, np.minimum(*at))
    return left, np.where(level, most, np.maximum(*at))
