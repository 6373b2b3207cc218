"""Which corners of an outline stay when it is simplified: decided block by block. Pure numpy.

Lines between labels are cut into arcs: they end where three or more meet, and where they leave a
block, so that a block of pixels decides for itself. An arc is simplified once, for the regions on
both of its sides (Douglas and Peucker, 1973), and a part of it is replaced by a straight line only
where no corner of any line lies between the two (de Berg, van Kreveld and Schirra, 1998): lines
that did not meet do not meet then, and no region is lost. Lines along the border of a block stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

BLOCK_PX = 128
"""Side of a block."""


def kept_corners(labels: np.ndarray, tolerance_px: float) -> np.ndarray:
    """Corners inside a block that stay; those on its border all do, and are not given.

    Args:
        labels: ``(h, w)``, what every pixel is.
        tolerance_px: no corner that goes is farther from the line that replaces it.

    Returns:
        ``(n, 2)`` int64, x and y of pixel corners from the block's own.
    """
    if (labels == labels[0, 0]).all():
        return np.empty((0, 2), np.int64)
    net = _Net.of(labels)
    for arc in _arcs(net):
        net.simplify(arc, tolerance_px)
    height, width = labels.shape
    x, y = net.at[net.kept].T
    inner = (x > 0) & (x < width) & (y > 0) & (y < height)
    corners: np.ndarray = net.at[net.kept][inner]
    return corners


@dataclass(slots=True, eq=False)
class _Net:
    """The corners of all lines between labels of a block, and which are joined."""

    at: np.ndarray
    """``(n, 2)`` int64: x and y, in order of rows and columns."""
    joined: np.ndarray
    """``(n, 4)``: the next corner to the right, left, down and up; negative where no line leads."""
    ends: np.ndarray
    """``(n,)`` bool: arcs end there."""
    far: tuple[int, int]
    """x and y at which the block ends."""
    number: np.ndarray
    """``(h + 1, w + 1)``: which corner is where; negative where none is."""
    kept: np.ndarray = field(init=False)
    """``(n,)`` bool: those that stay, so far the ends of arcs."""
    _taken: set[tuple[int, int]] = field(init=False)
    """Pairs of corners between which a straight line is."""

    def __post_init__(self) -> None:
        self.kept = self.ends.copy()
        right, down = self.joined[:, 0], self.joined[:, 2]
        self._taken = {
            (one, other)
            for links in (right, down)
            for one, other in zip(range(len(links)), links.tolist(), strict=True)
            if other >= 0
        }

    @classmethod
    def of(cls, labels: np.ndarray) -> _Net:
        """Of a block's labels."""
        height, width = labels.shape
        # lines to the right of and below every corner; those along the border are left out
        across = np.zeros((height + 1, width + 1), bool)
        along = np.zeros((height + 1, width + 1), bool)
        across[1:-1, :-1] = labels[1:] != labels[:-1]
        along[:-1, 1:-1] = labels[:, 1:] != labels[:, :-1]
        left, up = np.roll(across, 1, axis=1), np.roll(along, 1, axis=0)
        degree = across.astype(np.int8) + left + along + up
        corner = (degree > 0) & ~((degree == 2) & ((across & left) | (along & up)))
        y, x = np.nonzero(corner)
        number = np.full(corner.shape, -1, np.int64)
        number[y, x] = np.arange(len(y))
        joined = np.full((len(y), 4), -1, np.int64)
        by_rows, by_columns = np.arange(len(y)), np.lexsort((y, x))
        for order, leads, there, back in ((by_rows, across, 0, 1), (by_columns, along, 2, 3)):
            some = np.flatnonzero(leads[y[order], x[order]])
            joined[order[some], there] = order[some + 1]
            joined[order[some + 1], back] = order[some]
        ends = degree[y, x] != 2
        return cls(np.stack([x, y], axis=1), joined, ends, (width, height), number)

    def simplify(self, arc: np.ndarray, tolerance_px: float) -> None:
        """Note which corners of an arc, ``(m,)`` numbers, stay."""
        waiting = [(0, len(arc) - 1)]
        while waiting:
            first, last = waiting.pop()
            if last - first < 2:
                continue
            away = _away(self.at[arc[first : last + 1]])
            part = arc[first : last + 1]
            if away.max() <= tolerance_px and self._may_go(part):
                self._taken.add(_pair(part))
                continue
            middle = first + 1 + int(away.argmax())
            self.kept[arc[middle]] = True
            waiting += [(middle, last), (first, middle)]

    def _may_go(self, part: np.ndarray) -> bool:
        """Whether a straight line may replace a part of an arc."""
        (one, other), far = self.at[part[[0, -1]]], np.array(self.far)
        on_border = ((one == other) & ((one == 0) | (one == far))).any()
        if part[0] == part[-1] or on_border or _pair(part) in self._taken:
            return False
        low, high = self.at[part].min(axis=0), self.at[part].max(axis=0)
        around = self.number[low[1] : high[1] + 1, low[0] : high[0] + 1]
        others = np.setdiff1d(around[around >= 0], part)
        return not (len(others) and _between(self.at[others], self.at[part]).any())


def _pair(part: np.ndarray) -> tuple[int, int]:
    one, other = int(part[0]), int(part[-1])
    return (one, other) if one < other else (other, one)


def _arcs(net: _Net) -> Iterator[np.ndarray]:
    """Every arc once, as numbers of its corners.

    One without ends begins and ends at its first corner in order of rows, which stays.
    """
    joined, ends = net.joined.tolist(), net.ends.tolist()
    seen = [False] * len(ends)
    for begin in np.flatnonzero(net.ends).tolist():
        for way in range(4):
            following = joined[begin][way]
            # what has no corner between its ends is found from both, and can't be simplified
            if following >= 0 and not ends[following] and not seen[following]:
                yield np.array(_walked(joined, ends, seen, begin, way))
    for begin in range(len(ends)):
        if not ends[begin] and not seen[begin]:
            net.kept[begin] = True
            way = 0 if joined[begin][0] >= 0 else 1
            yield np.array(_walked(joined, ends, seen, begin, way))


def _walked(
    joined: list[list[int]], ends: list[bool], seen: list[bool], begin: int, way: int
) -> list[int]:
    """From a corner one way, turning at every corner, until an end or the beginning."""
    walked, at = [begin], joined[begin][way]
    while not ends[at] and at != begin:
        seen[at] = True
        walked.append(at)
        right, left, down, up = joined[at]
        way = (3 if down < 0 else 2) if way < 2 else (1 if right < 0 else 0)
        at = (right, left, down, up)[way]
    seen[begin] = True
    return [*walked, at]


def _away(points: np.ndarray) -> np.ndarray:
    """How far the points between the first and the last are from the line between these."""
    first, along = points[0], (points[-1] - points[0]).astype(np.float64)
    to = points[1:-1] - first
    squared = float(along @ along)
    share = np.clip(to @ along / squared, 0, 1) if squared else np.zeros(len(to))
    away: np.ndarray = np.hypot(*(to - share[:, None] * along).T)
    return away


def _between(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Which points lie between a path and the straight line from its last point to its first."""
    start, end = path, np.roll(path, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = start.T, end.T
    side = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
    crossed = (y0 <= y) != (y1 <= y)
    inside = (crossed & ((side > 0) == (y1 > y0))).sum(axis=1) % 2 == 1
    # no other corner is on the path itself
    low, high = np.minimum(start[-1], end[-1]), np.maximum(start[-1], end[-1])
    on_line = (side[:, -1] == 0) & (points >= low).all(axis=1) & (points <= high).all(axis=1)
    found: np.ndarray = inside | on_line
    return found
