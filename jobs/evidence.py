"""Evidence that a driver was brought down by what it ran, not by somebody from outside.

A decoder or a model that crashes inside the driver's own process takes the run with it. Python's
fault handler then leaves a stack in the epoch's crash log; a SIGKILL, an out-of-memory killer or a
power cut leaves none. Only a unit that was alone in flight, with a stack to show for it, is charged
with a failure: an innocent unit is never set aside because somebody killed its driver.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saccade.jobs.journal import Journal, Replay
from saccade.pipeline.errors import StoreError
from saccade.workers.folder import RunFolder


def crash_log(folder: RunFolder, epoch: int) -> Path:
    """Where a driver's stacks go if it crashes."""
    return folder.logs / f"crash-{epoch:06d}.txt"


@contextmanager
def crash_logged(folder: RunFolder, epoch: int) -> Iterator[None]:
    """Leave a stack in the epoch's crash log if a fatal signal ends the process in this block.

    Raises:
        StoreError: the log can't be made.
    """
    path = crash_log(folder, epoch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror})") from error
    enabled_before = faulthandler.is_enabled()
    faulthandler.enable(file)
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
    log = crash_log(folder, journal.epoch - 1)
    if not log.exists():
        return ""
    first = log.read_text(errors="replace").partition("\n")[0]
    if not first:
        log.unlink(missing_ok=True)
        return ""
    return f"{first} (stack in {log.parent.name}/{log.name})"


def charge(journal: Journal, crash: str, done: Replay) -> None:
    """Write down that the last driver's only unit crashed it."""
    if crash and done.alone is not None:
        image, unit = done.alone
        reason = f"the process that ran it crashed: {crash}"
        journal.append({"kind": "failure", "image": image, "unit": unit, "reason": reason})
