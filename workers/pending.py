"""Answers that are on their way: begun on a device, and waited for only once more has been begun.

Knows no device and no thread; whoever uses it is one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pending(Generic[T]):
    """An answer whose place is known, and how to wait until it is there."""

    place: T
    """Where it will be; not to be looked at before ``result`` has returned."""
    wait: Callable[[], object] | None = None
    """Returns once it is there; None where it is already."""

    @property
    def settled(self) -> bool:
        """Whether nothing need be waited for."""
        return self.wait is None

    def result(self) -> T:
        """The answer, once it is there."""
        if self.wait is not None:
            self.wait()
        return self.place


class OneBehind:
    """Finishes each piece of work once the next has been begun, in order."""

    def __init__(self) -> None:
        self._finish: Callable[[], None] | None = None

    def follow(self, finish: Callable[[], None] | None) -> None:
        """Work was begun that ``finish`` ends; end what was begun before it."""
        before, self._finish = self._finish, finish
        if before is not None:
            before()

    def finish(self) -> None:
        """Nothing follows for now: end what was begun last."""
        self.follow(None)
