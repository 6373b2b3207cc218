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
reached this process. Whichever of the two comes first, together they are one wish."""


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
    ends = [signal.SIGTERM, signal.SIGINT]
    came = False

    def heed(number: int, frame: FrameType | None) -> None:
        nonlocal came
        del frame
        if came and number in ends:
            os._exit(EXIT_INTERRUPTED)
        came = came or number in ends
        stop.request()

    before = {number: signal.signal(number, heed) for number in (*ends, ASKED_AGAIN)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
