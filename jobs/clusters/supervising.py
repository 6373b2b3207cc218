"""Keeping a command alive: starts it, waits, passes signals on. Decides nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from saccade.jobs.clusters.supervision import Ending, Leave, after
from saccade.jobs.stopping import ASKED_AGAIN, EXIT_INTERRUPTED


def supervise(arguments: Sequence[str], restarts: int, tell: Callable[[str], None]) -> int:
    """Run a saccade command until it says how it ended; returns the exit code to end with.

    The first SIGTERM or SIGINT asks it to stop in order, the second ends it. ASKED_AGAIN only asks,
    however often it comes.

    Args:
        arguments: of the command line, verb first.
        restarts: lives in a row, each shorter than ten minutes, that are followed by another.
        tell: says what happened, in a line.
    """
    guard = Guard([sys.executable, "-m", "saccade.jobs", *arguments])
    short_lives = 0
    with guard.passing_signals_on():
        while True:
            ending = guard.life()
            then = after(ending, short_lives, stopping=guard.stopping, restarts=restarts)
            if isinstance(then, Leave):
                return then.code
            short_lives = then.short_lives
            how = f"signal {-ending.code}" if ending.code < 0 else f"exit code {ending.code}"
            tell(
                f"ended by {how} after {ending.seconds:.0f} s; again in {then.pause_seconds:.0f} s"
            )
            guard.pause(then.pause_seconds)
            if guard.stopping:
                return EXIT_INTERRUPTED


class Guard:
    """A command, its process, and whoever asks both to stop."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._asked.is_set()

    def life(self) -> Ending:
        """Start the command and wait for its end."""
        since = time.monotonic()
        self._process = subprocess.Popen(self._command)
        if self.stopping:  # asked while it started
            self._process.terminate()
        return Ending(self._process.wait(), time.monotonic() - since)

    def pause(self, seconds: float) -> None:
        """Wait, but no longer once somebody asks for the end."""
        self._asked.wait(seconds)

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Have SIGTERM, SIGINT and ASKED_AGAIN reach the command for the length of a block."""
        heeded = (signal.SIGTERM, signal.SIGINT, ASKED_AGAIN)
        before = {number: signal.signal(number, self._heed) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        del frame
        # who signals a whole group has reached the command already: once more must do no harm
        insisting = self.stopping and number != ASKED_AGAIN
        passed = signal.SIGKILL if insisting else ASKED_AGAIN
        self._asked.set()
        if self._process is not None:
            self._process.send_signal(passed)
