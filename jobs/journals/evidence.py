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

from saccade.jobs.journals.journal import Journal, Replay
from saccade.jobs.journals.sharing import WHOLE, Shard, shard_of
from saccade.pipeline.errors import WorkerLost
from saccade.workers.crash_log import crash_told, log_crashes
from saccade.workers.folder import RunFolder


def crash_log(folder: RunFolder, epoch: int, shard: Shard = WHOLE) -> Path:
    """Where the stack of a driver of the run, or of a part of it, goes if it crashes."""
    part = "" if shard.whole else f"{shard.label}-"
    return folder.logs / f"crash-{part}{epoch:06d}.txt"


@contextmanager
def crash_logged(folder: RunFolder, epoch: int, shard: Shard = WHOLE) -> Iterator[None]:
    """Leave a stack in the epoch's crash log if a fatal signal ends the process in this block.

    Raises:
        StoreError: the log can't be made.
    """
    enabled_before = faulthandler.is_enabled()
    path = crash_log(folder, epoch, shard)
    file = log_crashes(path)
    try:
        yield
    finally:
        faulthandler.disable()
        if enabled_before and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        file.close()
        path.unlink(missing_ok=True)


def crashed(folder: RunFolder, journal: Journal) -> str:
    """What the driver before this one left in its crash log; empty where it did not crash."""
    _, shard = shard_of(journal.folder)
    return crash_told(crash_log(folder, journal.epoch - 1, shard))


def charge(journal: Journal, crash: str, done: Replay) -> None:
    """Write down that the last driver's only unit crashed it."""
    if crash and done.alone is not None:
        image, unit = done.alone
        reason = f"the process that ran it crashed: {crash}"
        failure = {"kind": "failure", "image": image, "unit": unit, "reason": reason}
        journal.append(failure | {"error": WorkerLost.__name__})
