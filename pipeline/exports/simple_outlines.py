"""Rings of a region with those corners alone that stay when all lines are simplified. Pure numpy.

Which corners stay is decided elsewhere, once for both sides of every line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.exports.closed_rings import densified
from saccade.pipeline.exports.outlines import Outline
from saccade.pipeline.exports.simplifying import BLOCK_PX, kept_corners
from saccade.pipeline.geometry import Shape


@dataclass(frozen=True, slots=True)
class Simplifying:
    """How the outlines in a mask are simplified."""

    shape: Shape
    """Height and width of the mask."""
    tolerance_px: float
    """No corner that goes is farther from the line that replaces it."""
    overhang: tuple[bool, bool] = (False, False)
    """Whether the last row, the last column reach beyond the image, and will be cut off: they are
    blocks of their own."""
    block_px: int = BLOCK_PX
    """Side of a block."""

    def corners(self, labels: np.ndarray, top: int) -> np.ndarray:
        """Corners that stay inside the blocks of a row of them, ``(n, 2)`` x and y of the mask.

        Args:
            labels: ``(rows, width)`` of the whole row of blocks.
            top: its first row.
        """
        rows, columns = self._borders(top, top + len(labels), 0), self._borders(0, self.shape[1], 1)
        found = [np.empty((0, 2), np.int64)]
        for (y0, y1), (x0, x1) in itertools.product(
            itertools.pairwise(rows), itertools.pairwise(columns)
        ):
            kept = kept_corners(labels[y0 - top : y1 - top, x0:x1], self.tolerance_px)
            found.append(kept + np.array([x0, y0]))
        return np.concatenate(found)

    def _borders(self, start: int, stop: int, axis: int) -> list[int]:
        """Where blocks begin, and where the last one ends."""
        side = self.shape[axis]
        extra = [side - 1] if self.overhang[axis] and start < side - 1 < stop else []
        return sorted({*range(start, stop, self.block_px), *extra, stop})

    def rings(self, outline: Outline) -> tuple[np.ndarray, ...]:
        """The rings of a region with those corners alone that stay, ``(n, 2)`` int32 each."""
        kept = _Places.of(outline.kept)
        return tuple(self._ring(ring, kept) for ring in outline.rings)

    def _ring(self, ring: np.ndarray, kept: _Places) -> np.ndarray:
        dense = densified(ring, self.block_px)
        for axis in (0, 1):
            if self.overhang[axis]:
                crossing = _crossings(dense, self.shape[axis] - 1, 1 - axis)
                dense = _inserted(dense, _Places.of(crossing))
        dense = _inserted(dense, kept)
        stays = self._on_border(dense) | kept.has(dense)
        return _without_straight(dense[stays]).astype(np.int32)

    def _on_border(self, points: np.ndarray) -> np.ndarray:
        lines = (points % self.block_px == 0) | (points == self.shape[::-1])
        for axis in (0, 1):
            if self.overhang[axis]:
                lines[:, 1 - axis] |= points[:, 1 - axis] == self.shape[axis] - 1
        on_border: np.ndarray = lines.any(axis=1)
        return on_border


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Places in order of rows, and in order of columns."""

    keys: tuple[np.ndarray, np.ndarray]
    """A number per place, ascending: row and column, column and row."""

    @classmethod
    def of(cls, points: np.ndarray) -> _Places:
        """Of ``(n, 2)`` x and y."""
        return cls((np.sort(_keys(points, 0)), np.sort(_keys(points, 1))))

    def has(self, points: np.ndarray) -> np.ndarray:
        """``(n,)`` bool: which points are among them."""
        keys, known = _keys(points, 0), self.keys[0]
        if not len(known):
            return np.zeros(len(keys), bool)
        found: np.ndarray = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
        return found


def _keys(points: np.ndarray, axis: int) -> np.ndarray:
    """A number per place, in order of rows, then columns (axis 0); or of columns, then rows."""
    keys: np.ndarray = points[:, 1 - axis].astype(np.int64) << 32 | points[:, axis].astype(np.int64)
    return keys


def _crossings(ring: np.ndarray, line: int, axis: int) -> np.ndarray:
    """Where edges of a ring cross a line at which one coordinate has a value."""
    start, end = ring, np.roll(ring, -1, axis=0)
    low, high = np.minimum(start, end)[:, axis], np.maximum(start, end)[:, axis]
    points: np.ndarray = start[(low < line) & (line < high)].copy()
    points[:, axis] = line
    return points


def _inserted(ring: np.ndarray, places: _Places) -> np.ndarray:
    """A ring with all places that lie on its edges, between their ends, as points of its own."""
    start, end = ring.astype(np.int64), np.roll(ring, -1, axis=0).astype(np.int64)
    edges, found = [np.arange(len(ring))], [start]
    for axis, keys in enumerate(places.keys):  # along rows, along columns
        which = np.flatnonzero(start[:, 1 - axis] == end[:, 1 - axis])
        one, other = _keys(start[which], axis), _keys(end[which], axis)
        first = np.searchsorted(keys, np.minimum(one, other), "right")
        last = np.searchsorted(keys, np.maximum(one, other), "left")
        counts = np.maximum(last - first, 0)
        rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        across, along = np.divmod(keys[np.repeat(first, counts) + rank], 1 << 32)
        edges.append(np.repeat(which, counts))
        found.append(np.stack([along, across] if axis == 0 else [across, along], axis=1))
    edge, whole = np.concatenate(edges), np.concatenate(found)
    away = np.abs(whole - start[edge]).sum(axis=1)
    return whole[np.lexsort((away, edge))]


def _without_straight(ring: np.ndarray) -> np.ndarray:
    """A ring without points between two others in the same row, or the same column."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    straight = ((before == ring) & (ring == after)).any(axis=1)
    bent: np.ndarray = ring[~straight]
    return bent
