"""Orders and amounts that selectors choose by: best first, whole tiles, what is affordable. Pure.

Knows arrays and numbers; knows no selector and no reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np


def best_first(scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Numbers of the pool's tiles, highest score first, equal ones by number, NaN left out."""
    tiles = np.flatnonzero(pool & ~np.isnan(scores))
    return tiles[np.argsort(-scores[tiles], kind="stable")]


def whole_tiles(fraction: float, count: int) -> int:
    """``fraction`` of ``count``, rounded up; the fraction is the decimal number as written."""
    return math.ceil(Fraction(repr(float(fraction))) * count)


def affordable(costs: Iterable[int], limit: float) -> list[int]:
    """Positions that are bought in order: what does not fit is skipped, what follows may still."""
    bought, spent = [], 0
    for position, cost in enumerate(np.asarray(costs).tolist()):
        if spent + cost <= limit:
            spent += cost
            bought.append(position)
    return bought


def dilate(cells: np.ndarray, tiles: int) -> np.ndarray:
    """``(rows, columns)`` bool grown by ``tiles`` in all eight directions."""
    for axis in (0, 1):
        length = cells.shape[axis]
        sums = np.insert(np.cumsum(cells, axis=axis), 0, 0, axis=axis)
        at = np.arange(length)
        last, first = np.minimum(at + tiles + 1, length), np.maximum(at - tiles, 0)
        cells = np.take(sums, last, axis=axis) > np.take(sums, first, axis=axis)
    return cells
