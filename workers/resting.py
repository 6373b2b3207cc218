"""Units that wait for a moment: what was in their way may be over by itself then. Pure.

Whoever else uses a device may give its memory back within seconds, or minutes. Attempts that follow
each other at once all meet the same peak; so each waits longer than the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from saccade.workers.ledger import Entry, State


def pause_seconds(
    times: int, *, first: float = 1.0, factor: float = 4.0, most: float = 64.0
) -> float:
    """How long a unit waits before its next attempt.

    Args:
        times: how often it met what may pass, this time included; positive.
        first: seconds after the first time.
        factor: so many times as long after each further time.
        most: it never waits longer.
    """
    return min(most, first * factor ** (times - 1))


class Resting:
    """Units that nobody is given before their moment has come."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._pushed = 0

    def push(self, entry: Entry, until_seconds: float) -> None:
        """Let a unit wait until a moment."""
        heappush(self._heap, (until_seconds, self._pushed, entry))
        self._pushed += 1

    def due(self, now_seconds: float) -> Iterator[Entry]:
        """Units whose moment has come and that wait still; taken out."""
        while self._heap and self._heap[0][0] <= now_seconds:
            entry = heappop(self._heap)[-1]
            # an attempt that was given up may have completed, or the image was set aside
            if entry.state is State.WAITING:
                yield entry

    def waiting(self) -> list[Entry]:
        """All units that wait here, in no order; reads everything."""
        return [entry for *_, entry in self._heap if entry.state is State.WAITING]
