"""Whether a process of this machine is there. Looks only; signals nothing."""

from __future__ import annotations

import os
from pathlib import Path

GONE = frozenset("ZX")
"""States of a process that has ended, and whose parent has not asked how."""
EXITING = 0x4
"""Flag of a process that is being taken down: it has no code left to run."""


def is_there(pid: int) -> bool:
    """Whether a process runs, or is stopped; one that was killed is gone before it is buried.

    Without /proc a process counts as there until its parent has asked how it ended.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of somebody else, and there
        pass
    return not _has_ended(pid)


def _has_ended(pid: int) -> bool:
    try:
        # the name in parentheses may hold anything
        told = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return told[0] in GONE or bool(int(told[6]) & EXITING)
    except (OSError, ValueError, IndexError):
        return False
