"""What a run's journal says when a driver begins, for all who ask, in one reading.

A long run's journal holds millions of lines. They are read once, before the folder is taken over;
what was written until then, and what this driver writes while it begins, is read after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.replay import Reading, Replay
from saccade.jobs.resuming import History
from saccade.jobs.tally import Tally


@dataclass
class Stock:
    """A run so far, as three see it."""

    folder: Path
    """Of the journal."""
    names: tuple[str, ...]
    """Images asked for now."""
    history: History = field(default_factory=History)
    """For the choice of images that begin anew."""
    replay: Replay = field(default_factory=Replay)
    """For the dispatcher."""
    tally: Tally = field(default_factory=Tally)
    """For people; of the images asked for now."""

    @classmethod
    def taken(cls, folder: Path, names: Iterable[str]) -> Stock:
        """What the journal in a folder says now; nothing where there is none.

        Raises:
            StoreError: a whole line of it can't be understood.
        """
        stock = cls(folder, tuple(names))
        stock._begin()
        stock.update()
        return stock

    def update(self) -> None:
        """Take in what was written since, also where another driver took over in between.

        Raises:
            StoreError: a whole line can't be understood.
        """
        if self._reading.too_far():
            self._begin()
        for record in self._reading.records():
            self.history.fold(record)
            self.replay.fold(record)
            self.tally.add(record)

    def _begin(self) -> None:
        self._reading = Reading(self.folder)
        self.history, self.replay, self.tally = History(), Replay(), Tally.of(self.names)
