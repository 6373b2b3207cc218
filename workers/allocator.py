"""How this process's memory is allocated and given back; changes no result."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

TRIM_NBYTES = 256 * 2**20
"""Freed memory goes back to the system each time that this much was used and freed."""


def keep_large_blocks() -> None:
    """Let large CPU tensors use huge pages, where the user has not said otherwise.

    To be called before the first tensor.

    The C library gives every large block back to the system after each forward pass, and the next
    pass faults it in again, page by page: half of a convolutional network's time at 1024 x 1024
    pixels. Huge pages make that cheap. Torch reads this switch at its first allocation (``c10``,
    *alignment and huge pages*); it has no effect where the system forbids huge pages.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


class FreedMemory:
    """Counts what was freed, and has the C library give it back from time to time.

    The C library keeps what its threads free, in an arena per thread, and more of it the larger the
    blocks were: after some units of a large image that is more than is in use. Giving it back
    costs milliseconds, so it isn't done for every small unit.
    """

    def __init__(self, trim: Callable[[], None] | None = None) -> None:
        """Nothing freed yet; ``trim`` gives memory back, the C library's own where None."""
        self._trim = trim or trim_arenas
        self._lock = threading.Lock()
        self._nbytes = 0

    def add(self, nbytes: int) -> None:
        """So many bytes were used, and are free now."""
        with self._lock:
            self._nbytes += nbytes
            due = self._nbytes >= TRIM_NBYTES
            if due:
                self._nbytes = 0
        if due:
            self._trim()


def trim_arenas() -> None:
    """Give back to the system what the C library holds and nobody uses; only glibc can."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: Windows
        return
    trim(0)
