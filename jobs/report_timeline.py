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
    bins: tuple[Mapping[str, int], ...]
    """Per bin, tiles by pass; a bin in which nothing ended is empty."""


@dataclass
class Timeline:
    """Tiles by pass in bins of one width."""

    most_bins: int = MOST_BINS
    """Bins that hold work are at most so many."""
    width_seconds: float = FIRST_WIDTH_SECONDS
    """Of every bin."""
    bins: dict[int, dict[str, int]] = field(default_factory=dict)
    """Tiles by pass; the key times the width is when a bin begins."""

    def add(self, at_seconds: float, name: str, tiles: int) -> None:
        """Count tiles of a pass that were answered at some time, on any clock."""
        if not math.isfinite(at_seconds):
            return
        self._put(math.floor(at_seconds / self.width_seconds), name, tiles)
        while len(self.bins) > self.most_bins:
            self._widen()

    def _put(self, number: int, name: str, tiles: int) -> None:
        counts = self.bins.setdefault(number, {})
        counts[name] = counts.get(name, 0) + tiles

    def _widen(self) -> None:
        """Two bins become one."""
        narrow, self.bins = self.bins, {}
        self.width_seconds *= 2
        for number, counts in narrow.items():
            for name, tiles in counts.items():
                self._put(number // 2, name, tiles)

    def stretches(self) -> tuple[Stretch, ...]:
        """The bins in order of time, cut at long pauses; short ones are bins without tiles."""
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
