"""Rings around the set pixels of a mask that comes strip by strip. Pure numpy.

A ring runs along the edges of pixels, set pixels to its right as the image is seen, and turns at
every corner. Pixels that touch at a corner alone are kept apart. Between two strips nothing is held
but the rings that are not closed yet. Knows no region, no class and no file.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

OPEN = -1
"""What follows an edge that leaves the strip."""


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """A closed ring, or several that touch at corners and are walked as one."""

    corners: np.ndarray
    """``(n, 2)`` int32, x and y of where each horizontal edge starts; it ends at the next x."""
    pinched: bool
    """Whether it may come by one place twice."""
    pixel: tuple[int, int]
    """Row and column of a set pixel that it goes around: in the newest strip or the row above."""


@dataclass(slots=True, eq=False)
class _Chain:
    """A part of a ring, and at which columns of the sweep line it goes on."""

    parts: deque[np.ndarray]
    pinched: bool
    comes: int | None
    """Key of where its first edge comes from below."""
    goes: int | None
    """Key of where its last edge leads down."""


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """The horizontal edges of a strip, in order of lines and columns, and what follows each."""

    line: np.ndarray
    """Of the image; between this row of pixels and the one above."""
    start: np.ndarray
    """Column at which an edge starts, in its direction."""
    left: np.ndarray
    """Its left end."""
    below: np.ndarray
    """Whether the set pixels are below it."""
    pinched: np.ndarray
    """Whether two corners of the mask meet at one of its ends."""
    following: np.ndarray
    """The next edge of the ring; OPEN where that is in another strip."""
    before: np.ndarray
    """Where an edge's ring comes from, as ``after``; 0 where from an edge of this strip."""
    after: np.ndarray
    """Where it goes: ``column + 1`` up at the strip's top, ``-column - 1`` down at its bottom."""


class RingTracer:
    """Follows the rings of one mask from strip to strip."""

    def __init__(self, width: int) -> None:
        self._above = np.zeros(width + 2, bool)
        self._line = 0
        self._comes: dict[int, _Chain] = {}
        self._goes: dict[int, _Chain] = {}

    def trace(self, rows: np.ndarray) -> list[Ring]:
        """Take in the next rows, ``(h, width)`` bool; returns the rings that they close."""
        pixels = np.zeros((len(rows) + 1, len(self._above)), bool)
        pixels[0] = self._above
        pixels[1:, 1:-1] = rows
        edges = _edges(pixels, self._line)
        self._line += len(rows)
        self._above = pixels[-1].copy()
        closed = [] if edges is None else list(self._closed(edges))
        for ends in (self._comes, self._goes):
            for key in [key for key in ends if key < 0]:
                ends[-key] = chain = ends.pop(key)
                chain.comes, chain.goes = (k and abs(k) for k in (chain.comes, chain.goes))
        return closed

    def skip(self, rows: int) -> None:
        """Take in so many rows without a set pixel, below one without any."""
        self._line += rows

    def _closed(self, edges: _Edges) -> Iterator[Ring]:
        """The rings that paths of a strip close, by themselves or together with earlier ones."""
        begins = np.flatnonzero(edges.before)
        walked, bounds = walk(edges.following, begins)
        order = np.array(walked, np.int64)
        corners = np.stack([edges.start[order], edges.line[order]], axis=1).astype(np.int32)
        pinched = np.logical_or.reduceat(edges.pinched[order], bounds[:-1])
        for path, (first, last) in enumerate(itertools.pairwise(bounds)):
            edge, end = walked[first], walked[last - 1]
            before, after = int(edges.before[edge]), int(edges.after[end])
            own = _Chain(deque([corners[first:last].copy()]), bool(pinched[path]), None, None)
            ring = self._joined(own, before, after) if before else own
            if ring is not None:
                row = int(edges.line[edge]) - (not edges.below[edge])
                whole = np.concatenate(ring.parts) if len(ring.parts) > 1 else ring.parts[0]
                yield Ring(whole, ring.pinched, (row, int(edges.left[edge])))

    def _joined(self, chain: _Chain, before: int, after: int) -> _Chain | None:
        """A path together with what is open above it; the ring if that closes it."""
        if before > 0:
            chain = _linked(self._goes.pop(before), chain)
            self._moved(chain)
        else:
            self._comes[before], chain.comes = chain, before
        if after < 0:
            self._goes[after], chain.goes = chain, after
            return None
        further = self._comes.pop(after)
        if further is chain:
            return chain
        self._moved(_linked(chain, further))
        return None

    def _moved(self, chain: _Chain) -> None:
        """Note under which columns a chain is found now."""
        if chain.comes is not None:
            self._comes[chain.comes] = chain
        if chain.goes is not None:
            self._goes[chain.goes] = chain


def _linked(first: _Chain, second: _Chain) -> _Chain:
    """Two chains as one, at the cost of the one with fewer parts."""
    if len(first.parts) >= len(second.parts):
        first.parts.extend(second.parts)
        parts = first.parts
    else:
        second.parts.extendleft(reversed(first.parts))
        parts = second.parts
    first.parts, first.goes = parts, second.goes
    first.pinched |= second.pinched
    return first


def walk(following: np.ndarray, begins: np.ndarray) -> tuple[list[int], list[int]]:
    """Follow links from each beginning to its end, then what is left around its cycles.

    Args:
        following: per item the next one, each item at most once; negative at an end.
        begins: items that none leads to.

    Returns:
        The items path by path, and the bounds of the paths among them.
    """
    links, seen = following.tolist(), bytearray(len(following))
    walked: list[int] = []
    bounds = [0]
    for begin in begins.tolist():
        _follow(links, seen, begin, walked)
        bounds.append(len(walked))
    begin = seen.find(0)
    while begin >= 0:
        _follow(links, seen, begin, walked)
        bounds.append(len(walked))
        begin = seen.find(0, begin)
    return walked, bounds


def _follow(links: list[int], seen: bytearray, item: int, walked: list[int]) -> None:
    while item >= 0 and not seen[item]:
        seen[item] = 1
        walked.append(item)
        item = links[item]


# ------------------------------------------------------------------------------------------- edges


@dataclass(frozen=True, slots=True, eq=False)
class _Corners:
    """Where the outline of a strip turns, in order of lines and columns.

    Along a line the outline goes from every other corner to the next; so it does down a column,
    where what enters the strip at its top and leaves it at its bottom counts as well.
    """

    line: np.ndarray
    column: np.ndarray
    second: np.ndarray
    """Whether it is the second of two corners at one place."""
    double: np.ndarray
    """Whether it is one of two."""
    lower: np.ndarray
    """Whether, of two at one place, it is the one that turns downwards."""
    below: np.ndarray
    """Whether the pixel to the lower right is set."""
    tops: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Columns at which an outline enters."""
    bottoms: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Columns at which one leaves."""


def _corners(pixels: np.ndarray) -> _Corners:
    """The corners at the lines above all rows of a padded mask but its first."""
    upper, lower = pixels[:-1], pixels[1:]
    side = upper ^ lower
    left, right = side[:, :-1], side[:, 1:]
    flipped = lower[:, :-1] ^ lower[:, 1:]
    cross = (left & right & flipped).ravel()
    place = np.flatnonzero((left ^ right).ravel() | cross)
    twice = cross[place]
    corner = np.repeat(place, 1 + twice)
    line, column = np.divmod(corner, side.shape[1] - 1)
    double = np.repeat(twice, 1 + twice)
    second = double & np.append(False, corner[1:] == corner[:-1])
    below = lower[line, column + 1]
    turns_down = double & (second == below)
    ends = (np.flatnonzero(row[:-1] ^ row[1:]) for row in (pixels[0], pixels[-1]))
    return _Corners(line, column, second, double, turns_down, below, *ends)


def _edges(pixels: np.ndarray, top: int) -> _Edges | None:
    """The edges of a strip; None where its outline has no corner."""
    corners = _corners(pixels)
    if not len(corners.line):
        return None
    opposite = _vertical_partners(corners, len(pixels) - 1)
    left = np.arange(0, len(corners.line), 2)
    below = corners.below[left]
    start, end = np.where(below, left, left + 1), np.where(below, left + 1, left)
    after, before = opposite[end], opposite[start]
    inside = after < len(corners.line)
    return _Edges(
        line=corners.line[left] + top,
        start=corners.column[start],
        left=corners.column[left],
        below=below,
        pinched=corners.double[left] | corners.double[left + 1],
        following=np.where(inside, after // 2, OPEN),
        before=_doors(corners, before),
        after=_doors(corners, after),
    )


def _vertical_partners(corners: _Corners, height: int) -> np.ndarray:
    """For every corner, top and bottom: at the other end of its vertical edge, which of these."""
    span = 2 * height + 2
    inner = corners.column * span + 1 + 2 * corners.line + corners.lower
    keys = np.concatenate([inner, corners.tops * span, corners.bottoms * span + span - 1])
    order = np.argsort(keys)
    partner = np.empty(len(keys), np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _doors(corners: _Corners, which: np.ndarray) -> np.ndarray:
    """Tops and bottoms by their columns, as in ``_Edges``; 0 for corners."""
    columns = np.concatenate([corners.tops + 1, -corners.bottoms - 1])
    door = which - len(corners.line)
    found: np.ndarray = np.where(door >= 0, columns[np.maximum(door, 0)] if len(columns) else 0, 0)
    return found
