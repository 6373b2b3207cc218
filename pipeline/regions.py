"""Regions of a mask: cells that touch, with their areas and bounding boxes. Pure numpy.

Works on runs of cells along rows, so that its memory follows the outlines of the regions and not
their areas. Knows no tile and no signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    rows, starts, stops = _runs(mask)
    roots = _roots(len(rows), *_touching(rows, starts, stops, mask.shape[1]))
    _, region = np.unique(roots, return_inverse=True)
    count = int(region.max(initial=-1)) + 1
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    boxes[:, 2:] = 0
    np.minimum.at(boxes[:, 0], region, rows)
    np.minimum.at(boxes[:, 1], region, starts)
    np.maximum.at(boxes[:, 2], region, rows + 1)
    np.maximum.at(boxes[:, 3], region, stops)
    areas = np.zeros(count, np.int64)
    np.add.at(areas, region, stops - starts)
    return Regions(boxes, areas)


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first and one past last column of every run of marked cells, row by row."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, stops = np.nonzero(steps == -1)
    return rows, starts, stops


def _touching(
    rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs in successive rows that touch: numbers of the lower and of the upper ones."""
    # One key per place, rows far enough apart that a corner never reaches into another row.
    step = width + 2
    above = (rows - 1) * step
    first = np.searchsorted(rows * step + stops, above + starts, side="left")
    last = np.searchsorted(rows * step + starts, above + stops, side="right")
    counts = last - first
    lower = np.repeat(np.arange(len(rows)), counts)
    offsets = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts)
    return lower, first[lower] + offsets


def _roots(count: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """For each run the lowest number of its region: hooks and short cuts until nothing changes."""
    root = np.arange(count)
    while (root[lower] != root[upper]).any():
        least = np.minimum(root[lower], root[upper])
        np.minimum.at(root, root[lower], least)
        np.minimum.at(root, root[upper], least)
        while (root[root] != root).any():
            root = root[root]
    return root
