"""Work done over time, in a bounded number of bins however long a run was. Pure.

Bins lie on multiples of their width, so that receipts may come in any order; the width doubles when
too many bins hold work. Time in which nothing was done costs none: a run that rested for a week
between two drivers keeps its minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MOST_BINS = 120
FIRST_WIDTH_SECONDS = 0.5
MOST_IDLE_BINS = 5
"""A longer pause is a break between two stretches."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Work without a long pause."""

    since_seconds: float
    """When its first bin begins."""
    bins: tuple[Mapping[str, float], ...]
    """Per bin, amounts by pass; a bin in which nothing ended is empty."""


@dataclass
class Timeline:
    """Amounts of work by pass, in bins of one width."""

    most_bins: int = MOST_BINS
    """Bins that hold work are at most so many."""
    width_seconds: float = FIRST_WIDTH_SECONDS
    """Of every bin."""
    bins: dict[int, dict[str, float]] = field(default_factory=dict)
    """Amounts by pass; the key times the width is when a bin begins."""

    def add(self, at_seconds: float, name: str, amount: float) -> None:
        """Count work of a pass that was done at some time, on any clock."""
        if not math.isfinite(at_seconds):
            return
        narrowest = math.floor(at_seconds / FIRST_WIDTH_SECONDS)
        self._put(narrowest // int(self.width_seconds / FIRST_WIDTH_SECONDS), name, amount)
        while len(self.bins) > self.most_bins:
            self._widen()

    def spread(self, since_seconds: float, until_seconds: float, name: str, amount: float) -> None:
        """Count work that was done evenly between two times."""
        length = until_seconds - since_seconds
        parts = max(1, min(self.most_bins, math.ceil(length / self.width_seconds)))
        for part in range(parts):
            self.add(since_seconds + length * (part + 0.5) / parts, name, amount / parts)

    def _put(self, number: int, name: str, amount: float) -> None:
        amounts = self.bins.setdefault(number, {})
        amounts[name] = amounts.get(name, 0) + amount

    def _widen(self) -> None:
        """Two bins become one."""
        narrow, self.bins = self.bins, {}
        self.width_seconds *= 2
        for number, amounts in narrow.items():
            for name, amount in amounts.items():
                self._put(number // 2, name, amount)

    def stretches(self) -> tuple[Stretch, ...]:
        """The bins in order of time, cut at long pauses; short ones are empty bins."""
        return tuple(
            Stretch(
                numbers[0] * self.width_seconds,
                tuple(self.bins.get(n, {}) for n in range(numbers[0], numbers[-1] + 1)),
            )
            for numbers in self._near()
        )

    def _near(self) -> Iterator[list[int]]:
        """Numbers of bins with work, grouped where no long pause lies between."""
        group: list[int] = []
        for number in sorted(self.bins):
            if group and number - group[-1] > MOST_IDLE_BINS:
                yield group
                group = []
            group.append(number)
        if group:
            yield group
