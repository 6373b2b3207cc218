"""What a report needs of a run's journal, gathered in one reading. Pure.

Beside the tally, which other verbs share: failed attempts, work over time, how drivers came and
went. Knows no page and no result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.reports.timeline import Timeline

Record = Mapping[str, Any]
MOST_REASONS = 3
"""Of an image's failed attempts, the first so many are told."""


@dataclass
class ImageDigest:
    """What the tally does not keep of one image."""

    failures: int = 0
    """Attempts that failed."""
    reasons: list[str] = field(default_factory=list)
    """Why, the first few."""
    errors: list[str] = field(default_factory=list)
    """What each of them is called; empty where that is not known."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of how it is read."""
    step_seconds: float = 0.0
    """Busy with everything that is no sweep: prepare, select, finalise."""


@dataclass
class Digest:
    """A run so far."""

    tally: Tally
    """Of the images that it has now."""
    images: dict[str, ImageDigest] = field(default_factory=dict)
    """By name, those of which something was said."""
    by_clock: Timeline = field(default_factory=Timeline)
    """Pixels through models over the time of day, of receipts that say when they came."""
    by_work: Timeline = field(default_factory=Timeline)
    """The same over busy seconds, all workers' added up."""
    drivers: int = 0
    """How often one was started."""
    ends: dict[str, bool] = field(default_factory=dict)
    """Whether the newest driver ended in good order, by the part of the run that it worked on; the
    whole of it is ''."""
    nbytes: int = 0
    """Written by sweeps."""
    splits: int = 0
    """How often a batch was halved because a device ran out of memory."""
    began: str = ""
    """When the first driver was started, as it wrote it; empty where none was."""
    last_seconds: float | None = None
    """When the newest record with a time was written, in Unix seconds."""
    timeless: int = 0
    """Receipts of sweeps that do not say when they came."""
    _busy_seconds: float = 0.0
    """Of sweeps, so far."""

    @classmethod
    def of(cls, names: Iterable[str], records: Iterable[Record]) -> Digest:
        """Everything that records say of a run with these images."""
        known = list(names)
        digest = cls(Tally.of(known, told=len(known)))
        for record in records:
            digest.fold(record)
        return digest

    @property
    def ended(self) -> bool:
        """Whether the newest driver of every part ended in good order."""
        return all(self.ends.values())

    def fold(self, record: Record) -> None:
        """Take the next record in; kinds that say nothing here are passed over."""
        self.tally.add(record)
        at = record.get("at")
        if isinstance(at, int | float):
            self.last_seconds = max(self.last_seconds or at, at)
        match record["kind"]:
            case "opened":
                self._opened(record)
            case "closed":
                self.ends[_part(record)] = True
            case "receipt":
                self._receipt(record)
            case "failure":
                self._failure(record)
            case "restart":
                self.images.pop(record["image"], None)

    def _opened(self, record: Record) -> None:
        self.drivers += 1
        self.ends[_part(record)] = False
        started = str(record["started"])
        self.began = min(self.began or started, started)

    def _receipt(self, record: Record) -> None:
        seconds = sum(record.get("seconds", {}).values())
        if "pass" not in record:
            image = self._image(record)
            image.step_seconds += seconds
            image.notes = tuple(record.get("notes", image.notes))
            return
        self._draw(record["pass"], record["pixels"], seconds, record.get("at"))
        self.nbytes += record.get("nbytes", 0)
        self.splits += record.get("splits", 0)

    def _draw(self, name: str, pixels: int, seconds: float, at: Any) -> None:
        """Lay a sweep's work over both lines of time."""
        since, self._busy_seconds = self._busy_seconds, self._busy_seconds + seconds
        self.by_work.spread(since, self._busy_seconds, name, pixels)
        if isinstance(at, int | float):
            self.by_clock.add(at, name, pixels)
        else:
            self.timeless += 1

    def _failure(self, record: Record) -> None:
        image = self._image(record)
        image.failures += 1
        if len(image.reasons) < MOST_REASONS:
            image.reasons.append(str(record["reason"]))
            image.errors.append(str(record.get("error", "")))

    def _image(self, record: Record) -> ImageDigest:
        return self.images.setdefault(record["image"], ImageDigest())


def _part(record: Record) -> str:
    return str(record.get("shard", ""))


def unix_seconds(written: str) -> float | None:
    """The moment that a driver wrote into its journal's header; None where it is none."""
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        return None
