"""Outlines of regions of a mask that comes strip by strip, each given as soon as it is complete.

Pixels are of one region where they touch along a side (4 neighbours). Of such a region one ring is
the outer one, all others go around holes, and none of them touches itself: a valid polygon. What is
held between two strips is the row at the sweep line and the rings, so far, of the regions that
reach it: 4 bytes per corner and about 60 bytes per ring, 8 per corner that is to stay. Pure numpy;
knows no class and no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from saccade.pipeline.exports.closed_rings import doubled_area, simple_rings
from saccade.pipeline.exports.rings import Ring, RingTracer
from saccade.pipeline.regions import Runs, touching, united

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One region of a mask."""

    rings: tuple[np.ndarray, ...]
    """The outer ring first, then its holes: vertices, ``(n, 2)`` int32, x and y of pixel corners,
    not closed; the outer one with set pixels to its right as the image is seen, as all are."""
    pixels: int
    """How many it has."""
    score: float
    """Sum of their scores."""
    kept: np.ndarray
    """``(n, 2)`` int32, x and y: corners around it that were told to stay."""


@dataclass(frozen=True, slots=True, eq=False)
class _Open:
    """The regions that reach the sweep line."""

    region: np.ndarray
    """Of every run in the row above the line."""
    pixels: np.ndarray
    score: np.ndarray
    rings: list[list[tuple[bytes, bool]]]
    kept: list[list[np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class _Strip:
    """The runs of a strip and of the row above it, and which region each belongs to."""

    runs: Runs
    known: int
    """So many runs, the first, are of the row above."""
    group: np.ndarray
    """Per run, the region it belongs to, numbered in the order in which they begin."""
    count: int
    """How many regions there are."""

    @property
    def sweep(self) -> np.ndarray:
        """The regions of the runs in the last row."""
        found: np.ndarray = self.group[self.runs.row == self.runs.row.max(initial=-1)]
        return found


NO_CORNERS = np.empty((0, 2), np.int32)
_NOTHING = _Open(np.empty(0, np.int64), np.empty(0), np.empty(0), [], [])


@dataclass(slots=True, eq=False)
class Outliner:
    """Gathers the regions of one mask."""

    width: int
    """Columns of the mask."""
    _open: _Open = field(init=False, default=_NOTHING)
    _above: np.ndarray = field(init=False)
    _line: int = field(init=False, default=0)
    _tracer: RingTracer = field(init=False)

    def __post_init__(self) -> None:
        self._above = np.zeros(self.width, bool)
        self._tracer = RingTracer(self.width)

    def add(
        self, rows: np.ndarray, scores: np.ndarray, kept: np.ndarray = NO_CORNERS
    ) -> Iterator[Outline]:
        """Take in the next rows; gives the regions that can't grow any more.

        Args:
            rows: ``(h, width)`` bool, at least one row.
            scores: ``(h, width)``, a number for every pixel; summed up where ``rows`` is set.
            kept: ``(n, 2)``, x and y of the mask: corners between pixels of these rows, handed on
                with the regions that they lie at.
        """
        if not (rows.any() or len(self._open.region)):
            self._tracer.skip(len(rows))
            self._line += len(rows)
            return
        strip = self._strip(rows)
        pixels, score = self._sums(strip, rows, scores)
        rings = self._rings(strip, self._tracer.trace(rows))
        corners = self._corners(strip, rows, kept)
        self._line += len(rows)
        self._above = rows[-1].copy()
        last = strip.sweep if rows[-1].any() else np.empty(0, np.int64)
        still, region = np.unique(last, return_inverse=True)
        left = [rings.pop(int(group), []) for group in still]
        gone = [corners.pop(int(group), []) for group in still]
        self._open = _Open(region, pixels[still], score[still], left, gone)
        for group in sorted(rings):
            stay = np.concatenate([NO_CORNERS, *corners.get(group, [])])
            yield _outline(rings[group], int(pixels[group]), float(score[group]), stay)

    def finish(self) -> Iterator[Outline]:
        """The regions that reach the mask's last row."""
        row = np.zeros((1, self.width), bool)
        yield from self.add(row, row)

    def _strip(self, rows: np.ndarray) -> _Strip:
        runs = Runs.of(np.concatenate([self._above[None], rows]), self._line - 1)
        one, other = touching(runs, corners=False)
        known = len(self._open.region)
        # runs that look apart in the row above may have met further up
        one = np.concatenate([one, self._leads[self._open.region]])
        other = np.concatenate([other, np.arange(known)])
        roots, group = np.unique(united(len(runs), one, other), return_inverse=True)
        return _Strip(runs, known, group, len(roots))

    @property
    def _leads(self) -> np.ndarray:
        """The first run of each open region."""
        return np.unique(self._open.region, return_index=True)[1]

    def _sums(
        self, strip: _Strip, rows: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and scores of every region so far."""
        runs, fresh = strip.runs, slice(strip.known, None)
        group = strip.group[fresh]
        pixels = np.bincount(group, runs.lengths[fresh], strip.count)
        start = (runs.row[fresh] - self._line) * rows.shape[1]
        sums = _sums_of_runs(scores, start + runs.start[fresh], start + runs.stop[fresh])
        score = np.bincount(group, sums, strip.count)
        before = strip.group[self._leads]
        np.add.at(pixels, before, self._open.pixels)
        np.add.at(score, before, self._open.score)
        return pixels, score

    def _rings(self, strip: _Strip, closed: list[Ring]) -> dict[int, list[tuple[bytes, bool]]]:
        """The rings of every region so far."""
        rings: dict[int, list[tuple[bytes, bool]]] = {}
        for group, mine in zip(strip.group[self._leads].tolist(), self._open.rings, strict=True):
            rings[group] = _longer_first(rings.get(group, []), mine)
        if closed:
            pixels = np.array([ring.pixel for ring in closed])
            for ring, group in zip(closed, self._groups(strip, pixels), strict=True):
                rings.setdefault(group, []).append((ring.corners.tobytes(), ring.pinched))
        return rings

    def _corners(
        self, strip: _Strip, rows: np.ndarray, kept: np.ndarray
    ) -> dict[int, list[np.ndarray]]:
        """The corners that stay of every region so far."""
        corners: dict[int, list[np.ndarray]] = {}
        for group, mine in zip(strip.group[self._leads].tolist(), self._open.kept, strict=True):
            corners[group] = _longer_first(corners.get(group, []), mine)
        around = np.array([(y, x) for y in (-1, 0) for x in (-1, 0)])
        pixels = (kept[:, None, ::-1] + around).reshape(-1, 2)
        inside = rows[pixels[:, 0] - self._line, pixels[:, 1]]
        groups = np.array(self._groups(strip, pixels[inside]), np.int64)
        found = np.column_stack([groups, np.repeat(kept, len(around), axis=0)[inside]])
        found = np.unique(found, axis=0)  # in order of groups
        bounds = np.flatnonzero(np.diff(found[:, 0])) + 1
        for part in np.split(found, bounds) if len(found) else ():
            corners.setdefault(int(part[0, 0]), []).append(part[:, 1:].astype(np.int32))
        return corners

    def _groups(self, strip: _Strip, pixels: np.ndarray) -> list[int]:
        """The regions that some pixels, ``(n, 2)`` rows and columns, belong to."""
        runs, span = strip.runs, self.width + 1
        starts = runs.row * span + runs.start
        found = np.searchsorted(starts, pixels[:, 0] * span + pixels[:, 1], "right") - 1
        groups: list[int] = strip.group[found].tolist()
        return groups


def _longer_first(one: list[_Part], other: list[_Part]) -> list[_Part]:
    """Two lists as one, at the cost of the shorter."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    long.extend(short)
    return long


def _sums_of_runs(scores: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Sum of the scores between places in a strip that is read row by row."""
    if not len(start):
        return np.zeros(0)
    exact = np.int64 if scores.dtype.kind in "bui" else np.float64
    # one value more, so that the last run may end where the strip does
    flat = np.append(scores.ravel(), scores.dtype.type(0))
    bounds = np.stack([start, stop], axis=1).ravel()
    sums: np.ndarray = np.add.reduceat(flat, bounds, dtype=exact)[::2].astype(np.float64)
    return sums


def _outline(
    rings: list[tuple[bytes, bool]], pixels: int, score: float, kept: np.ndarray
) -> Outline:
    """A region from the rings that were found of it, in whatever order."""
    simple = [
        one
        for data, pinched in rings
        for one in simple_rings(Ring(np.frombuffer(data, np.int32).reshape(-1, 2), pinched, (0, 0)))
    ]
    areas = [doubled_area(one) for one in simple]
    outer = [one for one, area in zip(simple, areas, strict=True) if area > 0]
    holes = [one for one, area in zip(simple, areas, strict=True) if area < 0]
    if len(outer) != 1:
        raise ValueError(f"a region has one outer ring; found {len(outer)} of {pixels} pixels")
    return Outline((outer[0], *sorted(holes, key=_place)), pixels, score, kept)


def _place(ring: np.ndarray) -> tuple[int, int]:
    """The first corner of a ring, in order of rows and columns."""
    y = int(ring[:, 1].min())
    return y, int(ring[ring[:, 1] == y, 0].min())
