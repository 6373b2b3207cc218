"""Images that were set aside: why, after how many attempts, when. From the journal's records; pure.

Only images with failures are remembered, with their last few reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from saccade.jobs.replay import read_records
from saccade.workers.folder import RunFolder

REASONS = 5
"""Kept of an image, the newest last."""


@dataclass
class FailedImage:
    """One image that failed, or whose units did."""

    name: str
    """In the run."""
    attempts: int = 0
    """That failed, of all drivers."""
    reasons: list[str] = field(default_factory=list)
    """Why, the newest last."""
    unit: str | None = None
    """At fault; None where the image itself is."""
    at: float | None = None
    """When it was set aside, in seconds since 1970; None in journals without times."""
    set_aside: bool = False
    """Whether nothing of it runs any more."""

    @property
    def reason(self) -> str:
        """Why it failed the last time."""
        return self.reasons[-1] if self.reasons else ""

    def heard(self, reason: str) -> None:
        """Remember why; the same reason again is no news."""
        if reason != self.reason:
            self.reasons = [*self.reasons, reason][-REASONS:]

    def tree(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"reason": self.reason}


class FailedImages:
    """What failed in a run, fed record by record; iterating gives images that are set aside."""

    def __init__(self) -> None:
        self.attempts = 0
        self._images: dict[str, FailedImage] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record of the journal in."""
        kind = record["kind"]
        if kind == "failure":
            self.attempts += 1
            image = self._image(record)
            image.attempts += 1
            image.heard(str(record["reason"]))
        elif kind == "quarantine":
            self._set_aside(record)
        elif kind in ("image", "restart"):
            self._images.pop(record["image"], None)

    def _set_aside(self, record: Mapping[str, Any]) -> None:
        image = self._image(record)
        image.heard(str(record["reason"]))
        image.unit, image.at, image.set_aside = record.get("unit"), record.get("at"), True
        image.attempts = max(image.attempts, record.get("failures", 0))

    def _image(self, record: Mapping[str, Any]) -> FailedImage:
        return self._images.setdefault(record["image"], FailedImage(record["image"]))

    def __iter__(self) -> Iterator[FailedImage]:
        return (image for image in self._images.values() if image.set_aside)


def failed_images(root: Path) -> tuple[FailedImage, ...]:
    """The images of a run that are set aside, in the order in which they were."""
    failed = FailedImages()
    for record in read_records(RunFolder(root).journal):
        failed.add(record)
    return tuple(failed)
