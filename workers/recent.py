"""The latest numbers of a kind, and their median. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque


class Recent:
    """The latest numbers, in order of time and of size.

    Args:
        remembered: how many; the oldest goes where there are more.
        fewest: that make a median.
    """

    def __init__(self, remembered: int, fewest: int) -> None:
        self._remembered, self._fewest = remembered, fewest
        self._by_time: deque[float] = deque()
        self._by_size: list[float] = []

    def add(self, number: float) -> None:
        """Take one in, and let the oldest go where there are too many."""
        self._by_time.append(number)
        insort(self._by_size, number)
        if len(self._by_time) > self._remembered:
            del self._by_size[bisect_left(self._by_size, self._by_time.popleft())]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_size)

    @property
    def median(self) -> float | None:
        """Of two in the middle their mean; None while there are too few."""
        known = len(self._by_size)
        if known < self._fewest:
            return None
        return (self._by_size[(known - 1) // 2] + self._by_size[known // 2]) / 2

    @property
    def median_high(self) -> float | None:
        """Of two in the middle the larger; None while there are too few."""
        known = len(self._by_size)
        return self._by_size[known // 2] if known >= self._fewest else None
