"""The two sides of a unit that several workers answer: its owner's, and that of those who help.

The owner goes through the frozen batches from the first on, in the planned order, and places every
answer itself, so that every sum is taken in one order; who helps goes from the last to the first
and stores what was said. Before either computes a batch it claims it. An owner never depends on
help: what is claimed and does not come it computes itself, and a unit that nobody helps with costs
it one look at the run's folder per batch.

An owner's claim holds off those who help, and no other owner: several attempts of a unit may run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from saccade.pipeline.errors import SaccadeError
from saccade.workers.shared_answers import AnsweredBatch, SharedAnswers

log = logging.getLogger(__name__)

OWNER, HELPER = "owner", "helper"
POLL_SECONDS = 0.02
"""Between two looks for an answer that was promised."""


class HelpOver(SaccadeError):
    """Whoever helps leaves quietly: nothing is left to do, or it was told to stop."""


class Side(Protocol):
    """What the lanes of an engine ask about the batches of one unit."""

    def order(self) -> Iterator[int]:
        """Batches to go through, by number."""
        ...

    def is_elsewhere(self, index: int) -> bool:
        """Whether somebody else has taken a batch on, so that it need not be read."""
        ...

    def claim(self, index: int) -> bool:
        """Take a batch on that is about to be computed; False where somebody else has."""
        ...


class Owner:
    """Whoever writes the unit.

    Args:
        shared: where answers of others may lie.
        batches: how many the unit has.
    """

    def __init__(self, shared: SharedAnswers, batches: int) -> None:
        self._shared = shared
        self._batches = batches

    def order(self) -> Iterator[int]:
        """All of them, as planned."""
        return iter(range(self._batches))

    def is_elsewhere(self, index: int) -> bool:
        """Whether somebody helps with this batch."""
        try:
            return self._shared.there and self._shared.claimed_by(index) not in (None, OWNER)
        except OSError:
            return False

    def claim(self, index: int) -> bool:
        """Compute it, unless somebody helps with it."""
        try:
            claimed = not self._shared.there or self._shared.claim(index, OWNER)
        except OSError:  # help is no condition
            return True
        return claimed or not self.is_elsewhere(index)

    def answer(self, index: int, seconds: float, gone: Callable[[], bool]) -> AnsweredBatch | None:
        """What somebody said of a batch, waited for; None where it is to be computed here.

        Args:
            index: number of the batch.
            seconds: for which to wait.
            gone: whether nobody wants it any more.
        """
        until = time.monotonic() + seconds
        while not gone():
            try:
                if answered := self._shared.get(index):
                    return answered
            except ValueError as error:
                log.warning("%s; the batch is computed again", error)
                return None
            if time.monotonic() >= until or not self.is_elsewhere(index):
                return None
            time.sleep(POLL_SECONDS)
        return None

    def clear(self) -> None:
        """The unit is written."""
        if self._shared.unit_folder.is_dir():
            self._shared.clear()


class Helper:
    """Whoever answers batches ahead of the owner.

    Args:
        shared: where answers go.
        batches: how many the unit has.
    """

    def __init__(self, shared: SharedAnswers, batches: int) -> None:
        self._shared = shared
        self._batches = batches

    def order(self) -> Iterator[int]:
        """From the last to the one that the owner has reached."""
        with _over_without_folder():
            self._shared.begin()
        for index in reversed(range(self._batches)):
            with _over_without_folder():
                claimed = self._shared.claimed_by(index)
            if claimed == OWNER:
                return
            if claimed is None:
                yield index

    def is_elsewhere(self, index: int) -> bool:
        """Never: what is was left out."""
        del index
        return False

    def claim(self, index: int) -> bool:
        """Whoever comes first."""
        with _over_without_folder():
            return self._shared.claim(index, HELPER)

    def put(self, index: int, answered: AnsweredBatch) -> None:
        """Store what was said, for the owner."""
        with _over_without_folder():
            self._shared.put(index, answered)


@contextmanager
def _over_without_folder() -> Iterator[None]:
    """A folder that is gone says that the unit is written."""
    try:
        yield
    except FileNotFoundError as error:
        raise HelpOver("the unit is written, or wants no help any more") from error


def patience_seconds(
    batch_seconds: float | None,
    *,
    factor: float = 3.0,
    least: float = 5.0,
    otherwise: float = 30.0,
) -> float:
    """How long an owner waits for a batch that somebody else has claimed.

    Args:
        batch_seconds: what a batch took the owner itself; None where it has computed none.
        factor: times that.
        least: less is never waited.
        otherwise: where it is not known.
    """
    return otherwise if batch_seconds is None else max(least, factor * batch_seconds)
