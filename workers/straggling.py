"""Which units are late, by what others of their family took. Pure: told the time, asks no clock.

A worker answers in the order in which it was given units. So the time of a unit counts from the
answer before it, and what waits behind a unit that is late is late as well.
"""

from __future__ import annotations

from saccade.workers.events import UnitRef
from saccade.workers.recent import Recent

REMEMBERED = 101
"""Times of a family that its median is taken of: the latest."""
FEWEST = 5
"""Times that make a median."""
LEAST_SECONDS = 2.0
"""What takes less is not worth a second attempt."""


class Paces:
    """Seconds that units take per work, by family."""

    def __init__(self) -> None:
        self._recent: dict[str, Recent] = {}

    def learn(self, ref: UnitRef, seconds: float) -> None:
        """Take in what a unit took; none at all says that it was answered along with others."""
        if ref.family and seconds > 0:
            recent = self._recent.setdefault(ref.family, Recent(REMEMBERED, fewest=1))
            recent.add(seconds / ref.work)

    def expected_seconds(self, ref: UnitRef) -> float | None:
        """What a unit usually takes; None where too little is known."""
        known = self._recent.get(ref.family, ())
        return self.guess_seconds(ref) if len(known) >= FEWEST else None

    def guess_seconds(self, ref: UnitRef) -> float | None:
        """The same from however few; for what costs little where it is wrong."""
        recent = self._recent.get(ref.family)
        pace = recent.median_high if recent else None
        return None if pace is None else pace * ref.work


def is_late(
    seconds: float,
    expected_seconds: float | None,
    *,
    factor: float = 3.0,
    least: float = LEAST_SECONDS,
) -> bool:
    """Whether a unit has run for so long that another attempt may well end before it does.

    Args:
        seconds: for which it has run.
        expected_seconds: what it usually takes; None where that is not known.
        factor: times the usual from which on it is late.
        least: seconds that are never late.
    """
    return expected_seconds is not None and seconds > max(least, factor * expected_seconds)


def is_long(expected_seconds: float | None, *, least: float = LEAST_SECONDS) -> bool:
    """Whether a unit that has hardly begun is worth beginning elsewhere at once."""
    return expected_seconds is not None and expected_seconds >= least
