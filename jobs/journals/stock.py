"""What a run's journal says when a driver begins, for all who ask, in one reading.

A long run's journal holds millions of lines. They are read once, before the folder is taken over;
what was written until then, and what this driver writes while it begins, is read after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.journals.replay import Reading, Replay
from saccade.jobs.journals.sharing import WHOLE, Shard
from saccade.jobs.manifests.names import Names
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.resuming import History


@dataclass
class Stock:
    """A run so far, as three see it."""

    folder: Path
    """Of the whole run's journal."""
    names: Names
    """Images asked for now."""
    shard: Shard = WHOLE
    """The part of the run that they are of."""
    history: History = field(init=False)
    """For the choice of images that begin anew."""
    replay: Replay = field(init=False)
    """For the dispatcher."""
    tally: Tally = field(init=False)
    """For people; of the images asked for now."""

    @classmethod
    def taken(cls, folder: Path, names: Names | Iterable[str], shard: Shard = WHOLE) -> Stock:
        """What the journals in a folder say now; nothing where there is none.

        Raises:
            StoreError: a whole line of it can't be understood.
        """
        stock = cls(folder, names if isinstance(names, Names) else Names.of(names), shard)
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
        self._reading = Reading(self.folder, self.shard)
        self.history = History(self.names)
        self.replay = Replay(self.shard.label)
        self.tally = Tally.of(self.names)
