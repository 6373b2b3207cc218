"""What the journal of a run says: the union of all epochs. Reads only; repairs nothing.

* The last line of a file is ignored unless it ends in a newline: its ``append`` never returned.
* What a driver wrote after the next one took over is ignored, although its shards were written: the
  new driver did not see that receipt, so it may since have deleted those shards to write them again.
* The first receipt of a unit stays. A second one can only be of an attempt that was overtaken, and
  says the same of the same bytes.

Receipts of complete images are dropped on the way, so that memory follows the images in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from saccade.jobs.journal import Record, epoch_path, epochs, parse, read_header


@dataclass(slots=True)
class Replay:
    """A run so far."""

    receipts: dict[str, dict[str, Record]] = field(default_factory=dict)
    """Per image that is not complete: receipt per unit id."""
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per image that is not complete: failures per unit id."""
    suspects: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per image that is not complete: unit ids in flight when a driver died, and how many drivers
    died with nothing but this unit in flight."""
    quarantined: dict[str, Record] = field(default_factory=dict)
    """Images set aside, each with the record that says why."""
    complete: set[str] = field(default_factory=set)
    """Images with nothing left to do."""
    last_epoch: int = 0
    """The newest epoch; 0 where the run never started."""
    in_flight: dict[str, str] = field(default_factory=dict)
    """Unit id to image, for what the newest epoch started and did not answer for."""

    def done(self, image: str) -> Set[str]:
        """Ids of the units of an image, not complete, that have receipts."""
        return self.receipts.get(image, {}).keys()

    def fold(self, record: Record) -> None:
        """Take the next record in."""
        if (step := _STEPS.get(record["kind"])) is not None:
            step(self, record)

    def _begin_epoch(self, record: Record) -> None:
        """Suspect what the epoch before left in flight; a closed one left nothing."""
        for unit, image in self.in_flight.items():
            deaths = self.suspects.setdefault(image, {})
            deaths[unit] = deaths.get(unit, 0) + (len(self.in_flight) == 1)
        self.in_flight = {}
        self.last_epoch = record["epoch"]

    def _started(self, record: Record) -> None:
        if record["image"] not in self.complete:
            self.in_flight[intern(record["unit"])] = intern(record["image"])

    def _receipt(self, record: Record) -> None:
        image, unit = intern(record["image"]), record["unit"]
        self.in_flight.pop(unit, None)
        if image not in self.complete:
            slim = {intern(key): value for key, value in record.items()}
            self.receipts.setdefault(image, {}).setdefault(unit, slim)
            self.suspects.get(image, {}).pop(unit, None)

    def _failure(self, record: Record) -> None:
        counts = self.failures.setdefault(record["image"], {})
        counts[record["unit"]] = counts.get(record["unit"], 0) + 1
        self.in_flight.pop(record["unit"], None)

    def _quarantine(self, record: Record) -> None:
        self.quarantined[record["image"]] = record

    def _release(self, record: Record) -> None:
        for book in (self.quarantined, self.failures, self.suspects):
            book.pop(record["image"], None)

    def _image(self, record: Record) -> None:
        self._release(record)
        self.receipts.pop(record["image"], None)
        self.complete.add(record["image"])

    def _closed(self, record: Record) -> None:
        self.in_flight = {}


_STEPS: Mapping[str, Callable[[Replay, Record], None]] = {
    "opened": Replay._begin_epoch,
    "started": Replay._started,
    "receipt": Replay._receipt,
    "failure": Replay._failure,
    "quarantine": Replay._quarantine,
    "release": Replay._release,
    "image": Replay._image,
    "closed": Replay._closed,
}


def replay(folder: Path) -> Replay:
    """The state of the run whose journal lies in this folder; that of a new run where none does.

    Call it after ``Journal.open``: what the older epochs say is settled then, and units that were
    in flight when the last driver died are among the suspects.

    Raises:
        StoreError: a line that is not the last one can't be read; names file and line.
    """
    result = Replay()
    for record in records(folder):
        result.fold(record)
    return result


def records(folder: Path) -> Iterator[Record]:
    """Every record that counts, epoch by epoch, streamed; for reports that need more than a replay.

    Raises:
        StoreError: as ``replay``.
    """
    numbers = epochs(folder)
    limits = _settled_nbytes(folder, numbers)
    for epoch in numbers:
        path = epoch_path(folder, epoch)
        for number, line in _whole_lines(path, limits.get(epoch)):
            yield parse(line, path, number)


def _settled_nbytes(folder: Path, numbers: list[int]) -> dict[int, int]:
    """How much of each epoch's file counts, by the first newer driver that said so."""
    limits: dict[int, int] = {}
    for epoch in numbers:
        header = read_header(folder, epoch)
        for older, nbytes in header["seen"].items() if header else ():
            limits.setdefault(int(older), nbytes)
    return limits


def _whole_lines(path: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    nbytes = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            nbytes += len(line)
            if not line.endswith(b"\n") or (limit is not None and nbytes > limit):
                return
            yield number, line
