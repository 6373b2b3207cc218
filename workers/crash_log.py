"""What crashes and unexpected errors leave behind, for whoever mends them. Knows no run.

A crash leaves a stack that Python's fault handler wrote: a segmentation fault, an abort, a bus or
floating-point error does. SIGKILL, ``os._exit``, an out-of-memory killer or a power cut leave none.
"""

from __future__ import annotations

import faulthandler
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from saccade.pipeline.errors import StoreError


def log_crashes(path: Path) -> TextIO:
    """Send the stacks of this process to a new file; it stays open, and is to be closed last.

    Raises:
        StoreError: the file can't be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror})") from error
    faulthandler.enable(file)
    return file


def log_error(logs: Path, unit: str, details: str) -> None:
    """Add the trace of an unexpected error to ``errors.txt``; nothing where there is no trace."""
    if not details:
        return
    # the error itself goes its own way; a disk too full for its trace is told by what comes next
    with suppress(OSError):
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "errors.txt").open("a") as file:
            file.write(f"unit {unit}\n{details}\n")


def crash_told(path: Path) -> str:
    """The first line of a crash log and where it is; empty, and the file removed, without crash."""
    if not path.exists():
        return ""
    first = path.read_text(errors="replace").partition("\n")[0]
    if not first:
        path.unlink(missing_ok=True)
        return ""
    return f"{first} (stack in {path.parent.name}/{path.name})"
