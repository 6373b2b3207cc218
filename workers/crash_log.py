"""What a crash leaves behind: a stack that Python's fault handler wrote. Knows no unit, no run.

There is a stack after a segmentation fault, an abort, a bus or floating-point error; none after a
SIGKILL, ``os._exit``, an out-of-memory killer or a power cut.
"""

from __future__ import annotations

import faulthandler
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


def crash_told(path: Path) -> str:
    """The first line of a crash log and where it is; empty, and the file removed, without crash."""
    if not path.exists():
        return ""
    first = path.read_text(errors="replace").partition("\n")[0]
    if not first:
        path.unlink(missing_ok=True)
        return ""
    return f"{first} (stack in {path.parent.name}/{path.name})"
