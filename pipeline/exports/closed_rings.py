"""What a closed ring goes around: its corners, its area, the simple rings in it. Pure numpy.

Knows no strip: a ring has closed before it comes here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from saccade.pipeline.exports.rings import Ring, walk

Place = Callable[[np.ndarray], np.ndarray]
"""``(n, 2)`` positions, x and y -> where they are, ``(n, 2)``."""
PART_POINTS = 2**14
"""A ring, which may have millions of points, is measured and written so many at a time."""


def vertices(corners: np.ndarray) -> np.ndarray:
    """``(2 n, 2)``: both ends of every horizontal edge of a closed ring, x and y."""
    whole = np.repeat(corners, 2, axis=0)
    whole[1::2, 0] = np.roll(corners[:, 0], -1)
    return whole


def parts(points: np.ndarray) -> Iterator[np.ndarray]:
    """A closed ring a part at a time; each begins where the one before ended, the last closes it.

    Args:
        points: ``(n, 2)``, not closed.
    """
    for first in range(0, len(points), PART_POINTS):
        part = points[first : first + PART_POINTS + 1]
        yield part if first + PART_POINTS < len(points) else np.concatenate([part, points[:1]])


def densified(points: np.ndarray, step: int, slanted_step: int = 1) -> np.ndarray:
    """A ring with a point at every multiple of a step on its edges.

    Multiples are those of the raster, not of the edge, so that neighbours have the same points: of
    rows or columns; along a slanted edge of whichever it crosses more of.

    Args:
        points: ``(n, 2)`` integers, not closed.
        step: along rows and columns; at least 1.
        slanted_step: along other edges; at least 1.

    Returns:
        ``(m, 2)``, int64 where no edge is slanted, else float64.
    """
    start, end = points.astype(np.int64), np.roll(points, -1, axis=0).astype(np.int64)
    turn = end - start
    rows = np.arange(len(points))
    axis = (np.abs(turn[:, 1]) > np.abs(turn[:, 0])).astype(np.int64)
    slanted = (turn != 0).all(axis=1)
    steps = np.where(slanted, slanted_step, step)
    begin, length = start[rows, axis], turn[rows, axis]
    sign = np.sign(length)
    first = np.where(sign > 0, begin // steps + 1, -(-begin // steps) - 1)  # multiples inside
    last = np.where(sign > 0, -(-(begin + length) // steps) - 1, (begin + length) // steps + 1)
    inside = np.maximum(0, (last - first) * sign + 1)
    edge = np.repeat(rows, 1 + inside)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(1 + inside) - (1 + inside), 1 + inside)
    dense = start[edge] if not slanted.any() else start[edge].astype(np.float64)
    new = np.flatnonzero(rank > 0)
    edge, rank = edge[new], rank[new]
    at = (first[edge] + sign[edge] * (rank - 1)) * steps[edge]
    dense[new, axis[edge]] = at
    leans = slanted[edge]
    dense[new[leans], 1 - axis[edge[leans]]] = _beside(start, end, axis, edge[leans], at[leans])
    return dense


def _beside(
    start: np.ndarray, end: np.ndarray, axis: np.ndarray, edge: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """The other coordinate of places on slanted edges: the same whichever way an edge leads."""
    turned = (end[edge, axis[edge]] < start[edge, axis[edge]])[:, None]
    low, high = np.where(turned, end[edge], start[edge]), np.where(turned, start[edge], end[edge])
    here, rows = axis[edge], np.arange(len(edge))
    slope = (high - low)[rows, 1 - here] / (high - low)[rows, here]
    beside: np.ndarray = low[rows, 1 - here] + (at - low[rows, here]) * slope
    return beside


def doubled_area(points: np.ndarray, place: Place = np.asarray) -> float:
    """Twice the area that a ring goes around: negative for a ring around a hole.

    Args:
        points: ``(n, 2)``, x and y; y rises downwards.
        place: where they are; itself by default.
    """
    total = 0.0
    for part in parts(points):
        placed = place(part)
        x, y = placed.astype(np.int64 if placed.dtype.kind == "i" else np.float64).T
        total += (x[:-1] * y[1:] - x[1:] * y[:-1]).sum().item()
    return total


def simple_rings(ring: Ring) -> list[np.ndarray]:
    """The rings that make up one, each of which comes by a place once.

    Where a ring came by a place twice, each visit goes on as the other would have. A ring does not
    cross itself, so that this always cuts it in two.

    Returns:
        Vertices, ``(n, 2)`` int32, x and y.
    """
    points = vertices(ring.corners)
    one, other = _repeats(points) if ring.pinched else (np.empty(0, np.int64),) * 2
    if not len(one):
        return [points]
    cuts = np.sort(np.concatenate([one, other]))
    # a piece runs from one cut to the next, and the first goes on where the last ends
    pieces = np.split(np.roll(points, -cuts[0], axis=0), cuts[1:] - cuts[0])
    partner = np.empty(len(cuts), np.int64)
    left, right = np.searchsorted(cuts, one), np.searchsorted(cuts, other)
    partner[left], partner[right] = right, left
    walked, bounds = walk(np.roll(partner, -1), np.empty(0, np.int64))
    return [
        np.concatenate([pieces[piece] for piece in walked[first:last]])
        for first, last in itertools.pairwise(bounds)
    ]


def _repeats(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both visits to every place that a ring comes by twice: indices of its points."""
    span = int(points[:, 0].max()) + 1
    keys = points[:, 1].astype(np.int64) * span + points[:, 0]
    order = np.argsort(keys)
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    return order[same], order[same + 1]
