"""Evidence that a driver was brought down by what it ran, not by somebody from outside.

A decoder or a model that crashes inside the driver's own process takes the run with it, and leaves
a stack in the epoch's crash log. Only a unit that was alone in flight, with a stack to show for it,
is charged with a failure: no unit is set aside because somebody killed its driver.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saccade.jobs.journal import Journal, Replay
from saccade.workers.crash_log import crash_told, log_crashes
from saccade.workers.folder import RunFolder


def crash_log(folder: RunFolder, epoch: int) -> Path:
    """Where a driver's stack goes if it crashes."""
    return folder.logs / f"crash-{epoch:06d}.txt"


@contextmanager
def crash_logged(folder: RunFolder, epoch: int) -> Iterator[None]:
    """Leave a stack in the epoch's crash log if a fatal signal ends the process in this block.

    Raises:
        StoreError: the log can't be made.
    """
    enabled_before = faulthandler.is_enabled()
    file = log_crashes(crash_log(folder, epoch))
    try:
        yield
    finally:
        faulthandler.disable()
        if enabled_before and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        file.close()
        crash_log(folder, epoch).unlink(missing_ok=True)


def crashed(folder: RunFolder, journal: Journal) -> str:
    """What the driver before this one left in its crash log; empty where it did not crash."""
    return crash_told(crash_log(folder, journal.epoch - 1))


def charge(journal: Journal, crash: str, done: Replay) -> None:
    """Write down that the last driver's only unit crashed it."""
    if crash and done.alone is not None:
        image, unit = done.alone
        reason = f"the process that ran it crashed: {crash}"
        journal.append({"kind": "failure", "image": image, "unit": unit, "reason": reason})
