"""Being asked to stop: the first signal drains, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 75
"""Interrupted and resumable (EX_TEMPFAIL of sysexits.h)."""


ASKED_AGAIN = signal.SIGUSR1
"""A wish to stop that may come twice: from who passes SIGTERM on and can't know whether it, too,
reached this process."""


class StopSignal:
    """A wish to stop, which the run loop heeds between two events."""

    def __init__(self) -> None:
        self._wish = threading.Event()

    def request(self) -> None:
        """Ask the run to stop in order."""
        self._wish.set()

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._wish.is_set()


@contextmanager
def heeding_signals(stop: StopSignal) -> Iterator[StopSignal]:
    """Turn SIGTERM and SIGINT into a wish to stop for the length of a block; so is ASKED_AGAIN."""

    def heed(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.requested and number != ASKED_AGAIN:
            os._exit(EXIT_INTERRUPTED)
        stop.request()

    heeded = (signal.SIGTERM, signal.SIGINT, ASKED_AGAIN)
    before = {number: signal.signal(number, heed) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
