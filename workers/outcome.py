"""How a unit ended, in words that cross process borders. Values only."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from saccade.pipeline import errors
from saccade.workers.events import Event, HelpEnded, UnitDone, UnitFailed
from saccade.workers.sharing import HelpOver
from saccade.workers.tasks import Task

STOPS_RUN = (
    errors.StorageFull,
    errors.StorageGone,
    errors.ModelNotFound,
    errors.ModelContract,
)
"""What no other unit would fare better with: the run stops, and loses nothing."""
FINAL = (errors.SourceError, errors.ModelError, errors.PlanError, errors.UsageError)
"""What another attempt can only repeat: the image is set aside."""
PASSING = (errors.DeviceFull,)
"""Of these, what may be over soon: whoever else uses a device may give its memory back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A receipt, or why there is none."""

    receipt: Mapping[str, Any] | None = None
    """Of a unit that was done."""
    reason: str = ""
    """For people, where it was not."""
    details: str = ""
    """For the log: where in the code it failed; empty for errors raised on purpose."""
    retryable: bool = True
    """Whether another attempt may fare better."""
    error: str = ""
    """Name of the error's class; empty where there was none."""
    passing: bool = False
    """Whether what was in the way may be over by itself soon."""
    stops_run: str = ""
    """The same name where it stops the whole run; empty where it does not."""

    @classmethod
    def of_error(cls, error: BaseException) -> Outcome:
        """What an exception means for its unit, its image and the run."""
        if isinstance(error, HelpOver):
            return cls()
        ours = isinstance(error, errors.SaccadeError)
        return cls(
            reason=str(error) if ours else f"{type(error).__name__}: {error} (see logs/errors.txt)",
            details="" if ours else "".join(traceback.format_exception(error)),
            retryable=not isinstance(error, FINAL) or isinstance(error, PASSING),
            error=type(error).__name__,
            passing=isinstance(error, PASSING),
            stops_run=type(error).__name__ if isinstance(error, STOPS_RUN) else "",
        )

    def event(self, worker: str, task: Task) -> Event:
        """What the dispatcher hears.

        Raises:
            SaccadeError: the failure stops the whole run.
        """
        unit, attempt = task.unit.id, task.attempt
        if task.helps:
            return HelpEnded(worker, unit, self.reason)
        if self.receipt is not None:
            return UnitDone(worker, unit, attempt, self.receipt)
        if self.stops_run:
            raise getattr(errors, self.stops_run)(self.reason)
        why = (self.reason, self.retryable, self.error, self.passing)
        return UnitFailed(worker, unit, attempt, *why)


class Workers(Protocol):
    """Where units run: in this process, or as actors on a cluster."""

    @property
    def replaceable(self) -> bool:
        """Whether a worker that hangs can be ended and another put in its place."""
        ...

    def start(self) -> list[Event]:
        """Start the workers; says which joined."""
        ...

    def assign(self, worker: str, task: Task) -> None:
        """Give a unit to a worker; returns at once."""
        ...

    def stop_helping(self, worker: str, unit: str) -> None:
        """Let a worker help with a unit no more; returns at once."""
        ...

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What happened since the last call; waits at most so long for the first thing.

        Raises:
            SaccadeError: something that stops the whole run.
        """
        ...

    def cancel(self, worker: str) -> list[Event]:
        """End a worker that hangs; says what that changes."""
        ...

    def close(self) -> None:
        """End all workers; what they hold is not finished. Returns soon, whatever they do."""
        ...
