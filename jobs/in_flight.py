"""Attempts that workers have been given and not answered for, and until when each may take. Pure.

A worker has several units at once and begins them one after the other: an attempt may take as long
as all that the worker has in flight when it is given, itself included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saccade.jobs.timeouts import UnitTimes
from saccade.pipeline.plan import Unit
from saccade.workers import events


@dataclass(frozen=True, slots=True)
class Attempt:
    """One assignment of a unit."""

    assign: events.Assign
    """What was asked of whom."""
    unit: Unit
    """Which."""
    since: float
    """Seconds on the run's clock when it was given."""
    own_seconds: float
    """What it may take by itself."""
    seconds: float
    """What it may take behind those that its worker had before."""

    @property
    def deadline(self) -> float:
        """Seconds on the run's clock."""
        return self.since + self.seconds


class InFlight:
    """All attempts that were not answered for."""

    def __init__(self, times: UnitTimes) -> None:
        self._times = times
        self._attempts: dict[tuple[str, int], Attempt] = {}

    def give(self, assign: events.Assign, unit: Unit, now: float) -> None:
        """A unit was given to a worker."""
        own = self._times.allowed_seconds(unit)
        before = (a for a in self._attempts.values() if a.assign.worker == assign.worker)
        seconds = own + sum(attempt.own_seconds for attempt in before)
        key = assign.unit, assign.attempt
        self._attempts[key] = Attempt(assign, unit, now, own, seconds)

    def hear(self, event: events.Event, now: float) -> None:
        """Learn from an answer, and wait no longer for it, nor for what a lost worker had."""
        match event:
            case events.UnitDone(unit=unit, attempt=attempt, receipt=receipt):
                # what others did of a unit says nothing of what one worker takes
                done = self._attempts.get((unit, attempt))
                if done and not receipt.get("helped"):
                    self._times.learn(done.unit, now - done.since)
                # a second attempt of a unit that is done has nothing to be waited for
                self._attempts = {k: a for k, a in self._attempts.items() if k[0] != unit}
            case events.UnitFailed(unit=unit, attempt=attempt):
                self._attempts.pop((unit, attempt), None)
            case events.WorkerLost(worker=worker) | events.WorkerLeft(worker=worker):
                kept = self._attempts.items()
                self._attempts = {k: a for k, a in kept if a.assign.worker != worker}

    def overdue(self, now: float) -> Iterator[Attempt]:
        """Attempts that took too long; each is given once."""
        for key, attempt in list(self._attempts.items()):
            # what is done about one attempt may end others
            if attempt.deadline < now and key in self._attempts:
                del self._attempts[key]
                yield attempt
