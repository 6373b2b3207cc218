"""What a worker tells of its units as a matter of course: begun, ended, failed, slow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from saccade.pipeline.closing import Closing
from saccade.workers.lanes import LaneClosed
from saccade.workers.sharing import HelpOver
from saccade.workers.slowness import Slowness
from saccade.workers.tasks import Task
from saccade.workers.unit_log import WorkerLog, working_for

TOLD = ("step", "plans", "tiles", "splits", "seconds")
"""Of a receipt; the journal has all of it."""


class UnitLog(Closing):
    """Tells of units to a worker's log; does nothing where there is none."""

    def __init__(self, log: WorkerLog | None) -> None:
        self._log = log
        self._slowness = Slowness()

    def working_for(self, task: Task) -> AbstractContextManager[None]:
        """What this thread says within the block is about a unit."""
        return working_for(self._log, task)

    def begun(self, task: Task) -> None:
        """Work on a unit begins."""
        self._say(task, logging.INFO, f"{_what(task)} begun", {"kind": task.unit.kind})

    def ended(
        self, task: Task, receipt: Mapping[str, Any] | None, error: BaseException | None
    ) -> None:
        """A unit is answered for: it is done, or an error ended it."""
        if error is not None:
            quiet = isinstance(error, LaneClosed | HelpOver)
            level = logging.INFO if quiet else logging.ERROR
            verb = "ended" if isinstance(error, HelpOver) else "failed"
            message = f"{_what(task)} {verb}: {error}"
            self._say(task, level, message, {"error": type(error).__name__})
        elif task.helps and receipt is not None:
            self._say(task, logging.INFO, "help ended", {"batches": receipt["batches"]})
        elif receipt is not None:
            self._say(task, logging.INFO, "unit ended", _details(receipt))
            self._tell_slow(task, receipt)

    def _tell_slow(self, task: Task, receipt: Mapping[str, Any]) -> None:
        seconds = sum(receipt["seconds"].values())
        # a unit without tiles only writes what other passes answered
        pixels = receipt.get("pixels", 0)
        kind = (task.unit.kind, task.unit.pass_index, bool(pixels))
        times = self._slowness.times_median(kind, seconds, pixels or max(1, task.unit.region.area))
        if times is not None:
            message = f"slow unit: {times:.1f} times the median of its kind"
            self._say(task, logging.WARNING, message, {"seconds": receipt["seconds"]})

    def _say(self, task: Task, level: int, message: str, details: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.say(task, level, message, details)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()


def _what(task: Task) -> str:
    return "help" if task.helps else "unit"


def _details(receipt: Mapping[str, Any]) -> dict[str, Any]:
    named = {"pass": receipt["pass"]} if "pass" in receipt else {}
    return named | {word: receipt[word] for word in TOLD if word in receipt}
