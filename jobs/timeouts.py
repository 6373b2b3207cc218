"""How long a unit may take, from what units like it took. Pure.

Units of one pass that compute and those that only compose differ by orders of magnitude, and so
does what is done for an image as a whole: each kind of sweep is measured against itself, and the
rest has the time that the run's options give.
"""

from __future__ import annotations

from saccade.pipeline.plan import Unit
from saccade.workers.recent import Recent

FACTOR = 20.0
"""A unit may take so many times what is expected: ground differs, and so do workers."""
LEAST_SECONDS = 120.0
"""Less is never asked: a worker opens images and loads models meanwhile."""
ENOUGH = 5
"""Units of a kind that were done before its speed is believed."""
REMEMBERED = 101
"""The latest units of a kind, whose median counts."""

Kind = tuple[int, bool]
"""Of a sweep unit: number of its pass, and whether anything goes through a model."""


class UnitTimes:
    """Seconds per pixel of each kind of unit, learned as units are done.

    Args:
        otherwise_seconds: for a unit of which nothing is known yet.
        factor: how many times the expected seconds a unit may take.
        least_seconds: what a unit may take at least; never more than ``otherwise_seconds``.
    """

    def __init__(
        self,
        otherwise_seconds: float,
        factor: float = FACTOR,
        least_seconds: float = LEAST_SECONDS,
    ) -> None:
        self._otherwise = otherwise_seconds
        self._factor = factor
        self._least = min(least_seconds, otherwise_seconds)
        self._paces: dict[Kind, Recent] = {}

    def learn(self, unit: Unit, seconds: float) -> None:
        """A unit was done within so many seconds of being given away."""
        if unit.kind == "sweep":
            paces = self._paces.setdefault(kind_of(unit), Recent(REMEMBERED, ENOUGH))
            paces.add(seconds / size_px(unit))

    def expected_seconds(self, unit: Unit) -> float | None:
        """What a unit will take; None where too little is known."""
        paces = self._paces.get(kind_of(unit)) if unit.kind == "sweep" else None
        pace = paces.median if paces else None
        return None if pace is None else pace * size_px(unit)

    def allowed_seconds(self, unit: Unit) -> float:
        """What a unit may take."""
        expected = self.expected_seconds(unit)
        return self._otherwise if expected is None else max(self._least, self._factor * expected)


def kind_of(unit: Unit) -> Kind:
    """Of a sweep unit: units of one kind cost alike per pixel."""
    return unit.pass_index, bool(unit.batches)


def size_px(unit: Unit) -> int:
    """Pixels through the model, halos included; where there is none, pixels composed."""
    read = sum(window.read.area for window in unit.windows)
    return max(1, read or unit.region.area)
