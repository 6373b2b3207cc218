"""Groups read ahead in threads, never more than a pool holds. Knows no model and no draw's reason.

Which group a step takes is decided beforehand, so threads only decide when it is there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from saccade.pipeline.closing import Closing
from saccade.workers.training.groups import Group, Visit

Key = tuple[int, int]
"""A round, and a position among its draws in the order of reading."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A visit to be made."""

    visit: Visit
    """What is read."""
    first: Key
    """Of its first draw; the others follow."""
    passes: tuple[int, ...]
    """Per draw, how many passes are read; 0 reads nothing."""

    @property
    def size(self) -> int:
        """Groups that it brings."""
        return sum(count > 0 for count in self.passes)


Read = Callable[[Visit, Sequence[int]], Iterable[Group]]


class Feeder(Closing):
    """Reads visits in the order in which they are submitted."""

    def __init__(self, read: Read, most: int, threads: int) -> None:
        """Begin with nothing to read.

        Args:
            read: gives the groups of a visit, in order.
            most: groups that may be read and not yet taken; a visit larger than that comes alone.
            threads: visits made at once.
        """
        self._read, self._most = read, most
        self._there: dict[Key, Group] = {}
        self._errands: deque[Errand] = deque()
        self._held = 0
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="saccade-train-read")
        self._sender = threading.Thread(target=self._send, name="saccade-train-send", daemon=True)
        self._sender.start()

    def submit(self, errands: Iterable[Errand]) -> None:
        """Queue visits; returns at once."""
        with self._changed:
            self._errands.extend(errand for errand in errands if errand.size)
            self._changed.notify_all()

    def take(self, key: Key) -> Group:
        """A group, waited for; it is forgotten here.

        Raises:
            SaccadeError: what went wrong while reading.
        """
        with self._changed:
            self._changed.wait_for(lambda: key in self._there or self._error is not None)
            if self._error is not None:
                raise self._error
            self._held -= 1
            self._changed.notify_all()
            return self._there.pop(key)

    def _send(self) -> None:
        for errand in iter(self._next, None):
            self._pool.submit(self._make, errand)

    def _next(self) -> Errand | None:
        """The next visit once there is room for what it brings; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits())
            if self._closed:
                return None
            errand = self._errands.popleft()
            self._held += errand.size
            return errand

    def _fits(self) -> bool:
        if not self._errands:
            return False
        return self._held == 0 or self._held + self._errands[0].size <= self._most

    def _make(self, errand: Errand) -> None:
        try:
            for key, group in zip(
                _keys(errand), self._read(errand.visit, errand.passes), strict=True
            ):
                if self._closed:
                    return
                with self._changed:
                    self._there[key] = group
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def close(self) -> None:
        """Read nothing more; what is being read is waited for."""
        with self._changed:
            self._closed = True
            self._errands.clear()
            self._changed.notify_all()
        self._sender.join()
        self._pool.shutdown(cancel_futures=True)
        self._there.clear()


def _keys(errand: Errand) -> Iterator[Key]:
    number, position = errand.first
    for offset, count in enumerate(errand.passes):
        if count:
            yield number, position + offset
