"""Masks as runs of pixels in rows, and the connected regions that they form. Pure numpy.

A region costs memory by the length of its outline, not by its area, so that the objects of a
gigapixel image can be held while its pixels can't. Knows no class and no score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Unbroken runs of set pixels, ordered by row and then by column."""

    row: np.ndarray
    """``(n,)`` int64."""
    start: np.ndarray
    """``(n,)`` int64: first column."""
    stop: np.ndarray
    """``(n,)`` int64: one past the last column."""

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, mask: np.ndarray, top: int = 0) -> Runs:
        """The runs of a mask ``(h, w)`` bool, whose first row is row ``top`` of the image."""
        padded = np.zeros((mask.shape[0], mask.shape[1] + 2), bool)
        padded[:, 1:-1] = mask
        row, column = np.nonzero(padded[:, 1:] != padded[:, :-1])
        # beginnings and ends take turns
        return cls(row[::2] + top, column[::2], column[1::2])

    @classmethod
    def joined(cls, parts: Iterable[Runs]) -> Runs:
        """Runs of strips that follow one another from top to bottom."""
        rows, starts, stops = (
            [np.empty(0, np.int64)],
            [np.empty(0, np.int64)],
            [np.empty(0, np.int64)],
        )
        for part in parts:
            rows.append(part.row)
            starts.append(part.start)
            stops.append(part.stop)
        return cls(np.concatenate(rows), np.concatenate(starts), np.concatenate(stops))

    @property
    def lengths(self) -> np.ndarray:
        """``(n,)`` int64: pixels of each run."""
        lengths: np.ndarray = self.stop - self.start
        return lengths


def regions(runs: Runs) -> np.ndarray:
    """Which region each run belongs to; pixels that touch, also at corners, are of one region.

    Returns:
        ``(n,)`` int64, numbered from 0 in the order in which the regions begin.
    """
    above, below = _touching(runs)
    parent = _united(len(runs), above, below)
    roots, number = np.unique(parent, return_inverse=True)
    del roots  # a region's root is its first run, so numbers rise with it
    return number.astype(np.int64)


def _touching(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs in neighbouring rows that touch: indices of the upper and of the lower one."""
    if not len(runs):
        return runs.row, runs.row
    width = int(runs.stop.max()) + 2
    starts, stops = runs.row * width + runs.start, runs.row * width + runs.stop
    first = np.searchsorted(stops, starts - width, "left")
    last = np.searchsorted(starts, stops - width, "right")
    count = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(runs)), count)
    offset = np.arange(len(below)) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + offset, below


def _united(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each of ``count`` items, the first item that it is connected with by pairs."""
    parent = np.arange(count)
    while True:
        a, b = parent[one], parent[other]
        apart = a != b
        if not apart.any():
            return parent
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := parent[parent], parent):
            parent = shorter


def highest_under(runs: Runs, values: np.ndarray, downsample: float, top: int = 0) -> np.ndarray:
    """The highest value of a coarser grid under each run.

    A pixel lies under the pixel of the grid that holds its centre; beyond the grid's last row or
    column it lies under that.

    Args:
        runs: in pixels of level 0, all of them over the rows of ``values``.
        values: ``(h, w)``, whole rows of the grid.
        downsample: pixels of level 0 per pixel of the grid.
        top: row of the grid that ``values`` begins with.

    Returns:
        ``(n,)`` of the dtype of ``values``.
    """
    height, width = values.shape
    row = np.clip(grid_pixel(runs.row, downsample) - top, 0, height - 1)
    first = np.minimum(grid_pixel(runs.start, downsample), width - 1)
    last = np.minimum(grid_pixel(runs.stop - 1, downsample), width - 1)
    if not len(runs):
        return np.empty(0, values.dtype)
    # every other span of reduceat is the way from one run to the next; one value more ends the last
    flat = np.append(values.ravel(), values.dtype.type(0))
    ends = np.stack([row * width + first, row * width + last + 1], axis=1)
    highest: np.ndarray = np.maximum.reduceat(flat, ends.ravel())[::2]
    return highest


def grid_pixel(position: np.ndarray, downsample: float) -> np.ndarray:
    """The pixel of a coarser grid that holds the centre of each pixel of level 0."""
    return np.floor((position + 0.5) / downsample).astype(np.int64)
