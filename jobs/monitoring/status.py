"""What a run's folder says of its state, also while drivers work on it. Never writes.

The journal is read on from where it was left, so that looking again and again costs what is new.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from saccade.jobs.journals.records import Record
from saccade.jobs.journals.replay import Reading
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.monitoring.drivers import Drivers
from saccade.jobs.monitoring.pace import Pace, Recent
from saccade.jobs.monitoring.passes import PassTotal, pass_totals, seconds_left
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.quarantine import FailedImage, FailedImages
from saccade.pipeline.errors import UsageError
from saccade.pipeline.recipe_file import load_recipe
from saccade.workers.folder import RunFolder

TOLD = 10_000
"""Images that are told one by one, some 4 KiB each; of the others there are counts."""
STATES = ("waiting", "running", "complete", "quarantined")


@dataclass(frozen=True, slots=True)
class Now:
    """What changes while one looks, at one moment."""

    state: str
    """'running', 'complete', 'finished' (with images set aside), or 'stopped': to be resumed."""
    pace: Pace
    """How fast."""
    seconds_left: float | None
    """Until all is done; None where it can't be said."""
    passes: tuple[PassTotal, ...]
    """In the recipe's order."""


@dataclass
class Status:
    """A run, for people and programs."""

    root: Path
    """Its folder."""
    pass_names: tuple[str, ...]
    """Of the recipe."""
    tally: Tally
    """Image by image."""
    recent: Recent = field(default_factory=Recent)
    """The last few minutes."""
    drivers: Drivers = field(default_factory=Drivers)
    """Who works on it, or did."""
    failed: FailedImages = field(default_factory=FailedImages)
    """Attempts that failed, and images set aside."""

    def add(self, record: Record) -> None:
        """Take a record of the journal in."""
        self.tally.add(record)
        self.recent.add(record)
        self.drivers.add(record)
        self.failed.add(record)

    def now(self, at: float) -> Now:
        """The state at a moment, in seconds since 1970; of a run at rest, when it came to rest."""
        working = bool(self.drivers.at_work(at))
        pace = self.recent.pace(at if working else self.recent.last_at or at)
        passes = pass_totals(self.tally, self.pass_names)
        images = self.tally.total - self.tally.count("quarantined")
        busy = pace.busy_seconds / pace.seconds if pace.seconds else None
        left = seconds_left(passes, images, busy) if working else None
        return Now(self._state(working), pace, left, passes)

    def _state(self, working: bool) -> str:
        if working:
            return "running"
        if self.tally.count("waiting") + self.tally.count("running"):
            return "stopped" if self.drivers.starts else "waiting"
        return "finished" if self.tally.count("quarantined") else "complete"


class Watch:
    """A run's status, kept up to date.

    Args:
        root: the run's folder.
        told: images that are told one by one, from the first of the list, beside those that are
            being worked on or were set aside; of the others there are counts.

    Raises:
        UsageError: the folder is not a run.
    """

    def __init__(self, root: Path, told: int = TOLD) -> None:
        self._folder, self._told = RunFolder(root), told
        if not self._folder.images.exists():
            raise UsageError(f"{root}: not a run folder (no {self._folder.images.name} in it)")
        self._begin()

    def look(self) -> Status:
        """What is known now.

        Raises:
            StoreError: a whole line of the journal can't be understood.
        """
        # a driver that took over may have more images, and may not count all that was read
        if self._reading.too_far() or _nbytes(self._folder.images) != self._images_nbytes:
            self._begin()
        for record in self._reading.records():
            self._status.add(record)
        return self._status

    def _begin(self) -> None:
        self._images_nbytes = _nbytes(self._folder.images)
        names = Catalogue.opened(self._folder.images, self._told).names
        tally = Tally.of(names, by_pass=len(names) > len(names.first))
        self._reading = Reading(self._folder.journal)
        self._status = Status(self._folder.root, _pass_names(self._folder), tally)


def read_status(root: Path) -> Status:
    """Everything that the journal of a run says.

    Args:
        root: the run's folder.

    Raises:
        UsageError: the folder is not a run.
    """
    return Watch(root).look()


def read_tally(root: Path, told: int = TOLD) -> Tally:
    """The same, image by image only.

    Args:
        root: the run's folder.
        told: images that are told one by one.

    Raises:
        UsageError: the folder is not a run.
    """
    return Watch(root, told).look().tally


def _nbytes(path: Path) -> int:
    return path.stat().st_size


def _pass_names(folder: RunFolder) -> tuple[str, ...]:
    if not folder.recipe.exists():
        return ()
    return tuple(one.name for one in load_recipe(folder.recipe).passes)


def as_json(status: Status, at: float | None = None) -> str:
    """For programs: all that there is."""
    at = time.time() if at is None else at
    now, tally = status.now(at), status.tally
    tree: dict[str, Any] = {
        "run": str(status.root),
        "state": now.state,
        "images": {state: tally.count(state) for state in STATES},
        "tiles_done": tally.tiles_done,
        "pixels": tally.pixels,
        "share_refined": tally.share_refined,
        "tiles_per_second": now.pace.tiles_per_second(),
        "measured_over_seconds": now.pace.seconds,
        "device_busy_share": now.pace.device_busy_share,
        "workers": len(now.pace.workers),
        "seconds_left": now.seconds_left,
        "passes": [one.tree() | _speed(one, now.pace) for one in now.passes],
        "failures": status.failed.attempts,
        "failed": [asdict(failed) for failed in status.failed],
        "drivers": _drivers(status, at),
        "last_record_at": status.recent.last_at,
        "images_not_by_image": tally.untold,
        "by_image": {name: asdict(image) for name, image in tally.images.items()},
    }
    return json.dumps(tree, indent=1)


def _speed(one: PassTotal, pace: Pace) -> dict[str, Any]:
    return {"tiles_per_second": pace.tiles_per_second(one.name)}


def _drivers(status: Status, at: float) -> list[dict[str, Any]]:
    seen: Iterable[tuple[str, Any]] = status.drivers.newest.items()
    return [
        asdict(driver) | {"shard": part or None, "at_work": driver.at_work(at)}
        for part, driver in seen
    ]


def failed_json(failed: Iterable[FailedImage]) -> str:
    """Images set aside, for programs."""
    return json.dumps([asdict(image) for image in failed], indent=1)
