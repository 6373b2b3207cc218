"""Regions of a mask: pixels that touch, as runs in rows, with their areas and bounding boxes.

A region costs memory by the length of its outline, not by its area, so that those of a gigapixel
image can be held while its pixels can't. Pure numpy; knows no tile, no class and no signal.
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
    above, below = touching(runs)
    parent = united(len(runs), above, below)
    roots, number = np.unique(parent, return_inverse=True)
    del roots  # a region's root is its first run, so numbers rise with it
    return number.astype(np.int64)


def touching(runs: Runs, *, corners: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs in neighbouring rows that touch: indices of the upper and of the lower one.

    Args:
        runs: of a mask.
        corners: whether touching at a corner counts (8 neighbours), or only along a side (4).
    """
    if not len(runs):
        return runs.row, runs.row
    width = int(runs.stop.max()) + 2
    starts, stops = runs.row * width + runs.start, runs.row * width + runs.stop
    first = np.searchsorted(stops, starts - width, "left" if corners else "right")
    last = np.searchsorted(starts, stops - width, "right" if corners else "left")
    count = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(runs)), count)
    offset = np.arange(len(below)) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + offset, below


def united(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
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


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The regions of a mask, in the order of their first cells, row by row."""

    boxes: np.ndarray
    """``(n, 4)`` int64: first row, first column, one past last row, one past last column."""
    areas: np.ndarray
    """``(n,)`` int64: cells of each."""


def regions_of(mask: np.ndarray) -> Regions:
    """The connected regions of a mask; cells touch along sides and at corners (8 neighbours).

    Args:
        mask: ``(rows, columns)`` bool.
    """
    runs = Runs.of(mask)
    region = regions(runs)
    count = int(region.max(initial=-1)) + 1
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    boxes[:, 2:] = 0
    np.minimum.at(boxes[:, 0], region, runs.row)
    np.minimum.at(boxes[:, 1], region, runs.start)
    np.maximum.at(boxes[:, 2], region, runs.row + 1)
    np.maximum.at(boxes[:, 3], region, runs.stop)
    areas = np.zeros(count, np.int64)
    np.add.at(areas, region, runs.lengths)
    return Regions(boxes, areas)
