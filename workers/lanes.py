"""What the engine's lanes share: budgets of bytes, and one place where a failure is kept.

Knows nothing of images, models or units.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from saccade.pipeline.errors import SaccadeError

T = TypeVar("T")


class LaneClosed(SaccadeError):
    """The engine is stopping; whoever waits on a lane leaves."""


class ByteBudget:
    """Bytes that may be held at once between two lanes.

    A holder larger than the whole budget is admitted alone, so nothing can wait for ever. Holders
    are admitted in the order in which they asked.

    Args:
        limit_nbytes: never exceeded, but by one that is alone.
        enough_nbytes: less than the limit, where more seldom helps; None where it does.
        few: holders that are admitted beyond what is enough, because they are large.
    """

    def __init__(self, limit_nbytes: int, enough_nbytes: int | None = None, few: int = 0) -> None:
        self.limit_nbytes = limit_nbytes
        self._enough_nbytes = limit_nbytes if enough_nbytes is None else enough_nbytes
        self._few = few
        self._holders = 0
        self.held_nbytes = 0
        self.peak_nbytes = 0
        self._closed = False
        self._tickets = 0
        self._serving = 0
        self._change = threading.Condition()

    def acquire(self, nbytes: int) -> None:
        """Wait until ``nbytes`` more may be held, and hold them.

        Raises:
            LaneClosed: the budget was closed while waiting.
        """
        with self._change:
            ticket = self._tickets
            self._tickets += 1
            self._change.wait_for(lambda: self._closed or self._admits(ticket, nbytes))
            if self._closed:
                raise LaneClosed("the worker is stopping")
            self._serving += 1
            self._holders += 1
            self.held_nbytes += nbytes
            self.peak_nbytes = max(self.peak_nbytes, self.held_nbytes)
            self._change.notify_all()

    def release(self, nbytes: int) -> None:
        """Give back what one holder held."""
        with self._change:
            self._holders -= 1
            self.held_nbytes -= nbytes
            self._change.notify_all()

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """Hold bytes for the length of a block."""
        self.acquire(nbytes)
        try:
            yield
        finally:
            self.release(nbytes)

    def close(self) -> None:
        """Send everyone away who waits or will wait."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _admits(self, ticket: int, nbytes: int) -> bool:
        held_nbytes = self.held_nbytes + nbytes
        wanted = held_nbytes <= self._enough_nbytes or self._holders < self._few
        fits = (held_nbytes <= self.limit_nbytes and wanted) or self.held_nbytes == 0
        return ticket == self._serving and fits


class PassingQueue(Generic[T]):
    """What waits for a lane: some passes the rest by, each in their order, and None is last."""

    def __init__(self) -> None:
        self._waiting: queue.PriorityQueue[tuple[int, int, T | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()

    def put(self, item: T | None, passes: bool = False) -> None:
        """Let something wait; None ends the lane once all else is done."""
        rank = 2 if item is None else 0 if passes else 1
        self._waiting.put((rank, next(self._numbers), item))

    def get(self) -> T | None:
        """What comes next, once there is something."""
        return self._waiting.get()[-1]

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._waiting.empty()


class FirstFailure:
    """One failure channel: the first exception wins and is kept; later ones are its echo."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def report(self, error: BaseException) -> None:
        """Keep this error unless one came before."""
        with self._lock:
            if self._error is None:
                self._error = error

    @property
    def error(self) -> BaseException | None:
        """The first failure, if there was one."""
        return self._error

    def __bool__(self) -> bool:
        return self._error is not None
