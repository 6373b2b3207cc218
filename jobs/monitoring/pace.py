"""How fast a run is now: what ended within the last few minutes, by the times in its journal. Pure.

Sums are kept in short bins, so that a look costs the same however long the run and however small
its units. Journals of older versions have no times: then nothing is known of their pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

WINDOW_SECONDS = 180.0
"""How far back 'now' reaches."""
BIN_SECONDS = 3.0


@dataclass
class Bin:
    """What ended within a few seconds."""

    at: float
    """When it begins, in seconds since 1970."""
    tiles: dict[str, int] = field(default_factory=dict)
    """Answered, by pass."""
    busy_seconds: float = 0.0
    """Of all lanes that compute a pass."""
    device_seconds: float = 0.0
    """Of the device lane."""
    workers: set[str] = field(default_factory=set)
    """Who ended a unit."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run is."""

    seconds: float = 0.0
    """That this was measured over; 0 where nothing is known."""
    tiles: Mapping[str, int] = field(default_factory=dict)
    """Answered within them, by pass."""
    busy_seconds: float = 0.0
    """Of all lanes that compute a pass, all workers."""
    device_seconds: float = 0.0
    """Of the device lanes of all workers."""
    workers: frozenset[str] = frozenset()
    """Who ended a unit."""

    def tiles_per_second(self, name: str | None = None) -> float | None:
        """Of one pass, or of all; None where nothing is known."""
        if not self.seconds:
            return None
        tiles = sum(self.tiles.values()) if name is None else self.tiles.get(name, 0)
        return tiles / self.seconds

    @property
    def device_busy_share(self) -> float | None:
        """Share of the time in which a worker's device computed, 0 to 1; None where unknown."""
        if not self.seconds or not self.workers:
            return None
        return min(1.0, self.device_seconds / (self.seconds * len(self.workers)))


class Recent:
    """The last few minutes of a journal, fed record by record."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._bins: deque[Bin] = deque()
        self._begun: float | None = None
        self.last_at: float | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record of the journal in."""
        if record["kind"] == "opened":
            self._begun = datetime.fromisoformat(record["started"]).timestamp()
        at = record.get("at")
        if at is None:
            return
        self.last_at = max(at, self.last_at or at)
        if record["kind"] == "receipt":
            self._count(self._bin(at), record)

    def pace(self, now: float) -> Pace:
        """How fast it is at a moment, seconds since 1970."""
        since = now - self._window_seconds
        bins = [one for one in self._bins if since < one.at + BIN_SECONDS and one.at <= now]
        if not bins:
            return Pace()
        # a driver that just began has not had the whole window; one that went on after a pause has
        # what was counted before it, too
        first = min(bins[0].at, self._begun or now)
        tiles: dict[str, int] = {}
        for one in bins:
            for name, count in one.tiles.items():
                tiles[name] = tiles.get(name, 0) + count
        return Pace(
            seconds=max(now - max(since, first), BIN_SECONDS),
            tiles=tiles,
            busy_seconds=sum(one.busy_seconds for one in bins),
            device_seconds=sum(one.device_seconds for one in bins),
            workers=frozenset().union(*(one.workers for one in bins)),
        )

    def _bin(self, at: float) -> Bin:
        start = at // BIN_SECONDS * BIN_SECONDS
        while self._bins and self._bins[0].at < start - self._window_seconds:
            self._bins.popleft()
        # clocks step back, and several drivers write at once: late comers join the newest
        if not self._bins or self._bins[-1].at < start:
            self._bins.append(Bin(start))
        return self._bins[-1]

    def _count(self, one: Bin, record: Mapping[str, Any]) -> None:
        if "worker" in record:
            one.workers.add(record["worker"])
        if "pass" not in record:
            return
        name, tiles = record["pass"], record["tiles"]
        answered = tiles.get("done", 0) + tiles.get("degraded", 0)
        one.tiles[name] = one.tiles.get(name, 0) + answered
        one.busy_seconds += sum(record["seconds"].values())
        one.device_seconds += record["seconds"].get("device", 0.0)
