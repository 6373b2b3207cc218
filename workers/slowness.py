"""Which units took much longer than others like them. Pure."""

from __future__ import annotations

from collections.abc import Hashable

from saccade.workers.recent import Recent

TIMES = 3.0
"""The median, from which on a unit is slow."""
LEAST_SEEN = 8
"""Units that must have been seen before one of them can be slow."""
REMEMBERED = 64
"""Units of one kind that the median is taken of: the last ones."""


class Slowness:
    """The time per size of the last units of each kind."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Recent] = {}

    def times_median(self, kind: Hashable, seconds: float, size: float) -> float | None:
        """How many times the median a unit took; None where it was not slow. Remembers it.

        Args:
            kind: units of one kind are compared.
            seconds: that it took.
            size: that its time should grow with; positive.
        """
        seen = self._seen.setdefault(kind, Recent(REMEMBERED, LEAST_SEEN))
        pace = seconds / size
        usual = seen.median
        seen.add(pace)
        return pace / usual if usual and pace > TIMES * usual else None
