"""Images that were set aside: why, after how many attempts, where. Reads a run; writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.jobs.journals.journal import Record, read_records
from saccade.pipeline.errors import UsageError
from saccade.workers import events
from saccade.workers.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed."""

    unit: str
    """Id of the unit."""
    reason: str
    """For people."""
    error: str = ""
    """Name of the error's class, or of what happened instead: ``WorkerLost``, ``UnitTimedOut``;
    empty in journals of older versions."""
    attempt: int = 0
    """Its number in its driver; 0 where the driver did not live to tell."""
    worker: str = ""
    """Who had it; empty where that is not known."""
    host: str = ""
    """On which machine; likewise."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Failure:
        """From a record of the journal."""
        return cls(**{key: record[key] for key in cls.__slots__ if key in record})

    def to_dict(self) -> dict[str, Any]:
        """As written to the journal."""
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that was set aside."""

    name: str
    """In the run."""
    reason: str
    """The failure that decided it."""
    failures: int
    """Failures of the unit at fault since the image last began, over all drivers; 0 where the image
    itself is at fault."""
    times: int
    """How often it was set aside, this time included."""
    tried: tuple[Failure, ...]
    """The last failures of any of its units, at most five, the latest last."""
    at: float | None = None
    """When it was set aside, in seconds since 1970; None in journals without times."""
    error: str = ""
    """What that failure is called, as in ``Failure``."""

    @classmethod
    def of(cls, record: Record, times: int) -> FailedImage:
        """From the record that set it aside."""
        tried = tuple(map(Failure.of, record.get("tried", ())))
        name, reason, error = record["image"], str(record["reason"]), str(record.get("error", ""))
        return cls(name, reason, record.get("failures", 0), times, tried, record.get("at"), error)


class FailedImages:
    """What failed in a run, fed record by record; iterating gives the images set aside now."""

    def __init__(self) -> None:
        self.attempts = 0
        """Attempts that failed, of all images."""
        self._images: dict[str, FailedImage] = {}
        self._times: dict[str, int] = {}

    def add(self, record: Record) -> None:
        """Take the next record of the journal in."""
        name = record.get("image", "")
        if record["kind"] == "failure":
            self.attempts += 1
        elif record["kind"] == "quarantine":
            self._times[name] = self._times.get(name, 0) + 1
            self._images[name] = FailedImage.of(record, self._times[name])
        elif record["kind"] in ("restart", "image"):
            self._images.pop(name, None)

    def __iter__(self) -> Iterator[FailedImage]:
        return iter(self._images.values())


def failed_images(root: Path) -> tuple[FailedImage, ...]:
    """The images of a run that are set aside now, in the order in which that happened.

    Raises:
        UsageError: the folder is not a run.
        StoreError: its journal can't be understood.
    """
    folder = RunFolder(root)
    if not folder.images.exists():
        raise UsageError(f"{root}: not a run folder (no {folder.images.name} in it)")
    failed = FailedImages()
    for record in read_records(folder.journal):
        failed.add(record)
    return tuple(failed)


def quarantine_record(quarantine: events.Quarantine, tried: Iterable[Record]) -> Record:
    """What the journal keeps of an image that is set aside.

    Args:
        quarantine: as the dispatcher says it.
        tried: the last failures of the image's units, as the journal has them.
    """
    return {
        "kind": "quarantine",
        "image": quarantine.image,
        "unit": quarantine.unit,
        "reason": quarantine.reason,
        "error": quarantine.error,
        "failures": quarantine.failures,
        "tried": [Failure.of(record).to_dict() for record in tried],
    }
