"""What the journal of a run says: the union of all epochs. Reads only; repairs nothing.

* The last line of a file is ignored unless it ends in a newline: its ``append`` never returned.
* What a driver wrote after the next one took over is ignored, although its shards were written: the
  new driver did not see that receipt, so it may since have deleted the shards to write them again.
* A second receipt of a unit is that of an attempt that was overtaken, and says the same of the same
  bytes: it changes nothing.

Units of complete images are forgotten on the way, so that memory follows the images in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.records import Record, epoch_path, epochs, parse, read_header


@dataclass(slots=True)
class Replay:
    """A run so far."""

    done: set[str] = field(default_factory=set)
    """Ids of units with a receipt, of images that are not complete."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failures per unit id, of images that are not complete."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Per unit id with failures, why it failed the last time."""
    suspects: set[str] = field(default_factory=set)
    """Ids of units that were in flight when a driver died, and are not done since."""
    alone: tuple[str, str] | None = None
    """Image and unit that the driver before the newest died with, nothing else being in flight;
    None where there was none, or several, or it did not die."""
    quarantined: dict[str, Record] = field(default_factory=dict)
    """Images set aside, each with the record that says why."""
    complete: set[str] = field(default_factory=set)
    """Images with nothing left to do."""
    last_epoch: int = 0
    """The newest epoch; 0 where the run never started."""
    _in_flight: dict[str, str] = field(default_factory=dict)
    """Units that the newest epoch started and did not answer for, each with its image."""
    _units: dict[str, set[str]] = field(default_factory=dict)
    """Ids of all units that were named, per image that is not complete."""

    def fold(self, record: Record) -> None:
        """Take the next record in."""
        _STEPS[record["kind"]](self, record)

    def _opened(self, record: Record) -> None:
        self.suspects |= self._in_flight.keys()
        in_flight = [(image, unit) for unit, image in self._in_flight.items()]
        self.alone = in_flight[0] if len(in_flight) == 1 else None
        self._in_flight = {}
        self.last_epoch = record["epoch"]

    def _started(self, record: Record) -> None:
        unit = self._named_unit(record)
        if unit and unit not in self.done:
            self._in_flight[unit] = record["image"]

    def _receipt(self, record: Record) -> None:
        if unit := self._named_unit(record):
            self._answered(unit)
            self.done.add(unit)

    def _failure(self, record: Record) -> None:
        if unit := self._named_unit(record):
            self._in_flight.pop(unit, None)
            self.failures[unit] = self.failures.get(unit, 0) + 1
            self.reasons[unit] = str(record["reason"])

    def _quarantine(self, record: Record) -> None:
        self.quarantined[record["image"]] = record
        for unit in self._units.get(record["image"], ()):
            self._in_flight.pop(unit, None)

    def _image(self, record: Record) -> None:
        self._restart(record)
        self.complete.add(record["image"])

    def _restart(self, record: Record) -> None:
        image = record["image"]
        self.complete.discard(image)
        self.quarantined.pop(image, None)
        for unit in self._units.pop(image, ()):
            self._answered(unit)
            self.done.discard(unit)
            self.failures.pop(unit, None)
            self.reasons.pop(unit, None)

    def _closed(self, record: Record) -> None:
        del record
        self._in_flight = {}

    def _answered(self, unit: str) -> None:
        self._in_flight.pop(unit, None)
        self.suspects.discard(unit)

    def _named_unit(self, record: Record) -> str | None:
        """The unit of a record, remembered as one of its image; None where that is complete."""
        if record["image"] in self.complete:
            return None
        unit: str = record["unit"]
        self._units.setdefault(record["image"], set()).add(unit)
        return unit


_STEPS: Mapping[str, Callable[[Replay, Record], None]] = {
    "opened": Replay._opened,
    "started": Replay._started,
    "receipt": Replay._receipt,
    "failure": Replay._failure,
    "quarantine": Replay._quarantine,
    "image": Replay._image,
    "restart": Replay._restart,
    "closed": Replay._closed,
}


def replay(folder: Path) -> Replay:
    """The state of the run whose journal lies in this folder; that of a new run where none does.

    Call it after ``Journal.open``: then what the older epochs say is settled, and units that were
    in flight when the last driver died are among the suspects.

    Raises:
        StoreError: a whole line can't be understood; names file and line.
    """
    result = Replay()
    for record in read_records(folder):
        result.fold(record)
    return result


def read_records(folder: Path) -> Iterator[Record]:
    """Every record that counts, in the order of epochs and lines, one at a time.

    Raises:
        StoreError: as ``replay``.
    """
    return Reading(folder).records()


class Reading:
    """A journal that is read in several goes: each goes on where the one before it ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[int, Place] = {}

    def records(self) -> Iterator[Record]:
        """Every record that counts and was not given before, one at a time; to be read to its end.

        Raises:
            StoreError: a whole line can't be understood; names file and line.
        """
        numbers = epochs(self._folder)
        limits = _settled_nbytes(self._folder, numbers)
        for epoch in numbers:
            path = epoch_path(self._folder, epoch)
            since = self._read.get(epoch, Place())
            for place, line in _whole_lines(path, since, limits.get(epoch)):
                self._read[epoch] = place
                yield parse(line, path, place.lines)

    def too_far(self) -> bool:
        """Whether something was read that does not count: a driver took over in the meantime."""
        limits = _settled_nbytes(self._folder, epochs(self._folder))
        return any(place.nbytes > limits.get(e, place.nbytes) for e, place in self._read.items())


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read, in whole lines."""

    nbytes: int = 0
    """From its beginning."""
    lines: int = 0
    """From its beginning."""


def _settled_nbytes(folder: Path, numbers: list[int]) -> dict[int, int]:
    """How much of each epoch's file counts: as much as the next driver found when it took over."""
    limits: dict[int, int] = {}
    for epoch in numbers:
        header = read_header(folder, epoch)
        for older, nbytes in header["seen"].items() if header else ():
            limits.setdefault(int(older), nbytes)
    return limits


def _whole_lines(path: Path, since: Place, limit: int | None) -> Iterator[tuple[Place, bytes]]:
    nbytes = since.nbytes
    with path.open("rb") as file:
        file.seek(nbytes)
        for number, line in enumerate(file, since.lines + 1):
            nbytes += len(line)
            if not line.endswith(b"\n") or (limit is not None and nbytes > limit):
                return
            yield Place(nbytes, number), line
