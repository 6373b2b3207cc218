"""What the journal of a run says: the union of all epochs. Reads only; repairs nothing.

* The last line of a file is ignored unless it ends in a newline: its ``append`` never returned.
* What a driver wrote after the next one took over is ignored, although its shards were written: the
  new driver did not see that receipt, so it may since have deleted the shards to write them again.
* A second receipt of a unit is that of an attempt that was overtaken, and says the same of the same
  bytes: it changes nothing.

Journals of parts of the run are read as one with the whole run's, by the turns of their epochs.

Units of images that ended are forgotten on the way, so that memory follows the images in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.jobs.journals.records import Record, epoch_path, epochs, parse, read_header, turn_of
from saccade.jobs.journals.sharing import WHOLE, Shard, journals
from saccade.jobs.manifests.names import NameSet

TRIED = 5
"""Failures of an image that are told with their reasons."""


@dataclass(slots=True)
class Replay:
    """A run so far."""

    mine: str = ""
    """Label of the part whose drivers ``alone`` and ``last_epoch`` are about."""
    done: set[str] = field(default_factory=set)
    """Ids of units with a receipt, of images that did not end."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failures per unit id, of images that did not end."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Per unit id with failures, why it failed the last time."""
    errors: dict[str, str] = field(default_factory=dict)
    """Per unit id with failures, what the last one is called; empty where that is not known."""
    suspects: set[str] = field(default_factory=set)
    """Ids of units that were in flight when a driver died, and are not done since."""
    alone: tuple[str, str] | None = None
    """Image and unit that the driver before the newest died with, nothing else being in flight;
    None where there was none, or several, or it did not die."""
    quarantined: dict[str, Record] = field(default_factory=dict)
    """Images set aside, each with the record that says why."""
    tried: dict[str, deque[Record]] = field(default_factory=dict)
    """The last failures of each image that did not end."""
    times: dict[str, int] = field(default_factory=dict)
    """How often each image was set aside, also where it began anew since."""
    complete: NameSet = field(default_factory=NameSet)
    """Images with nothing left to do."""
    last_epoch: int = 0
    """The newest epoch; 0 where the run never started."""
    _in_flight: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Units that the newest epoch of a journal started and did not answer for: each with its image
    and the journal's label."""
    _units: dict[str, set[str]] = field(default_factory=dict)
    """Ids of all units that were named, per image that did not end."""

    def fold(self, record: Record) -> None:
        """Take the next record in."""
        _STEPS[record["kind"]](self, record)

    def _opened(self, record: Record) -> None:
        left = self._left_in_flight(record)
        self.suspects |= {unit for _, unit in left}
        if record.get("shard", "") == self.mine:
            self.alone = left[0] if len(left) == 1 else None
            self.last_epoch = record["epoch"]

    def _started(self, record: Record) -> None:
        unit = self._named_unit(record)
        if unit and unit not in self.done:
            self._in_flight[unit] = (record["image"], record.get("shard", ""))

    def _receipt(self, record: Record) -> None:
        if unit := self._named_unit(record):
            self._answered(unit)
            self.done.add(unit)

    def _failure(self, record: Record) -> None:
        if unit := self._named_unit(record):
            self._in_flight.pop(unit, None)
            self.failures[unit] = self.failures.get(unit, 0) + 1
            self.reasons[unit] = str(record["reason"])
            self.errors[unit] = str(record.get("error", ""))
            self.tried.setdefault(record["image"], deque(maxlen=TRIED)).append(record)

    def _quarantine(self, record: Record) -> None:
        image = record["image"]
        for unit in self._units.get(image, ()):
            self._in_flight.pop(unit, None)
        self._forget(image)
        self.quarantined[image] = record
        self.times[image] = self.times.get(image, 0) + 1

    def _image(self, record: Record) -> None:
        self._restart(record)
        self.complete.add(record["image"])

    def _restart(self, record: Record) -> None:
        image = record["image"]
        self.complete.discard(image)
        self.quarantined.pop(image, None)
        for unit in self._units.get(image, ()):
            self._answered(unit)
        self._forget(image)

    def _closed(self, record: Record) -> None:
        self._left_in_flight(record)

    def _left_in_flight(self, record: Record) -> list[tuple[str, str]]:
        """Image and unit of what a journal has in flight when its epoch ends; forgotten here."""
        label = record.get("shard", "")
        left = [(image, unit) for unit, (image, of) in self._in_flight.items() if of == label]
        for _, unit in left:
            del self._in_flight[unit]
        return left

    def _answered(self, unit: str) -> None:
        self._in_flight.pop(unit, None)
        self.suspects.discard(unit)

    def _forget(self, image: str) -> None:
        self.tried.pop(image, None)
        for unit in self._units.pop(image, ()):
            self.done.discard(unit)
            self.failures.pop(unit, None)
            self.reasons.pop(unit, None)
            self.errors.pop(unit, None)

    def _named_unit(self, record: Record) -> str | None:
        """The unit of a record, remembered as one of its image; None where that ended."""
        image, unit = record["image"], str(record["unit"])
        units = self._units.get(image)
        if units is None:
            if image in self.complete or image in self.quarantined:
                return None
            units = self._units[image] = set()
        units.add(unit)
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
    """Every record that counts, of all drivers that share the run, one at a time.

    Records of one image come in the order in which they were written. Those of a driver that works
    on a part of the run say so: ``shard`` is the part's label.

    Args:
        folder: of the whole run's journal.

    Raises:
        StoreError: as ``replay``.
    """
    return Reading(folder).records()


class Reading:
    """Journals that are read in several goes: each goes on where the one before it ended.

    Args:
        folder: of the whole run's journal.
        shard: the part whose images are asked about; journals that can't speak of it are left out.
    """

    def __init__(self, folder: Path, shard: Shard = WHOLE) -> None:
        self._folder = folder
        self._shard = shard
        self._read: dict[Path, Place] = {}

    def records(self) -> Iterator[Record]:
        """Every record that counts and was not given before, one at a time; to be read to its end.

        Raises:
            StoreError: a whole line can't be understood; names file and line.
        """
        for file in sorted(self._files(), key=lambda file: file.turn):
            since = self._read.get(file.path, Place())
            for place, line in whole_lines(file.path, since, file.limit):
                self._read[file.path] = place
                record = parse(line, file.path, place.lines)
                if file.label:
                    record["shard"] = file.label
                yield record

    def too_far(self) -> bool:
        """Whether something was read that does not count: a driver took over in the meantime."""
        limits = {file.path: file.limit for file in self._files() if file.limit is not None}
        return any(place.nbytes > limits.get(p, place.nbytes) for p, place in self._read.items())

    def _files(self) -> Iterator[EpochFile]:
        for shard, folder in journals(self._folder, self._shard):
            yield from _epoch_files(folder, shard.label)


@dataclass(frozen=True, slots=True)
class EpochFile:
    """What one driver wrote, and when it counts."""

    path: Path
    """Of the file."""
    label: str
    """Of the part that the driver works on; empty for the whole run."""
    turn: int
    """Place in the order of reading; 0 where it says nothing yet."""
    limit: int | None
    """How many bytes of it count; None where all do."""


def _epoch_files(folder: Path, label: str) -> Iterable[EpochFile]:
    headers = {epoch: read_header(folder, epoch) for epoch in epochs(folder)}
    limits = _settled_nbytes(headers)
    for epoch, header in headers.items():
        turn = turn_of(header) if header else 0
        yield EpochFile(epoch_path(folder, epoch), label, turn, limits.get(epoch))


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read, in whole lines."""

    nbytes: int = 0
    """From its beginning."""
    lines: int = 0
    """From its beginning."""


def _settled_nbytes(headers: Mapping[int, Record | None]) -> dict[int, int]:
    """How much of each epoch's file counts: as much as the next driver found when it took over."""
    limits: dict[int, int] = {}
    for header in headers.values():
        seen: Mapping[str, Any] = header["seen"] if header else {}
        for older, nbytes in seen.items():
            limits.setdefault(int(older), nbytes)
    return limits


def whole_lines(path: Path, since: Place, limit: int | None) -> Iterator[tuple[Place, bytes]]:
    """Lines that end, with the place after each; from one place on, and up to so many bytes."""
    nbytes = since.nbytes
    with path.open("rb") as file:
        file.seek(nbytes)
        for number, line in enumerate(file, since.lines + 1):
            nbytes += len(line)
            if not line.endswith(b"\n") or (limit is not None and nbytes > limit):
                return
            yield Place(nbytes, number), line
