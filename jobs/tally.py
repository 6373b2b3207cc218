"""What a run has done so far, counted from its journal's records. Pure.

The run loop feeds it the records that it writes, ``saccade status`` those that it reads: both tell
the same story in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ImageTally:
    """What is known of one image."""

    name: str
    """In the run."""
    state: str = "waiting"
    """'waiting', 'running', 'complete' or 'quarantined'."""
    stage: str = ""
    """What is being done: 'prepare', the name of a pass, 'select NAME', 'finalise'."""
    units: dict[str, list[int]] = field(default_factory=dict)
    """Per pass: units done, units planned."""
    tiles: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per pass: tiles selected, of how many, done, degraded, failed."""
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per pass: busy seconds by lane."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Per pass: pixels through the model, halos included."""
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per pass: bytes allowed, reserved, projected, and the most measured; what is known of it."""
    reason: str = ""
    """Why it was quarantined."""
    errors: list[str] = field(default_factory=list)
    """What could not be read, the first few."""

    @property
    def finest_choice(self) -> dict[str, int] | None:
        """Tiles of the finest pass that tiles were chosen for; None before any choice."""
        chosen = [tiles for tiles in self.tiles.values() if "of" in tiles]
        return chosen[-1] if chosen else None

    @property
    def tiles_done(self) -> int:
        """Tiles answered, all passes."""
        return sum(t.get("done", 0) + t.get("degraded", 0) for t in self.tiles.values())

    @property
    def tiles_failed(self) -> int:
        """Tiles that could not be read, all passes."""
        return sum(t.get("failed", 0) for t in self.tiles.values())

    @property
    def share_done(self) -> float:
        """Share of the planned units that are done, 0 to 1; 1 once complete."""
        if self.state == "complete":
            return 1.0
        planned = sum(units[1] for units in self.units.values())
        return sum(units[0] for units in self.units.values()) / planned if planned else 0.0


@dataclass
class Tally:
    """All images of a run."""

    images: dict[str, ImageTally] = field(default_factory=dict)
    """By name, in the order in which they were listed."""

    @classmethod
    def of(cls, names: Iterable[str]) -> Tally:
        """Nothing done yet."""
        return cls({name: ImageTally(name) for name in names})

    def count(self, state: str) -> int:
        """Images in one state."""
        return sum(image.state == state for image in self.images.values())

    @property
    def tiles_done(self) -> int:
        """Tiles answered, all images and passes."""
        return sum(image.tiles_done for image in self.images.values())

    @property
    def pixels(self) -> int:
        """Pixels through models, halos included, all images and passes."""
        return sum(sum(image.pixels.values()) for image in self.images.values())

    @property
    def share_refined(self) -> float | None:
        """Share of the tiles that the finest pass chosen so far visits; None before any choice."""
        chosen = [tiles for image in self.images.values() if (tiles := image.finest_choice)]
        return sum(t["selected"] for t in chosen) / sum(t["of"] for t in chosen) if chosen else None

    @property
    def work_done(self) -> float:
        """Images' worth of work that is done: whole images, and shares of those in progress."""
        return sum(
            1.0 if image.state == "quarantined" else image.share_done
            for image in self.images.values()
        )

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record of the journal in; kinds that say nothing are passed over."""
        image = self.images.get(record.get("image", ""))
        if image is None:
            return
        if record["kind"] == "restart":
            self.images[image.name] = ImageTally(image.name)
        else:
            _ADDERS.get(record.get("kind", ""), _add_nothing)(image, record)


def _add_receipt(image: ImageTally, record: Mapping[str, Any]) -> None:
    if image.state == "waiting":
        image.state = "running"
    if "step" in record:
        _add_step(image, record)
    else:
        _add_sweep(image, record)


def _add_step(image: ImageTally, record: Mapping[str, Any]) -> None:
    image.stage = str(record.get("plans", "finalise"))
    image.memory |= {name: dict(account) for name, account in record.get("memory", {}).items()}
    if "plans" in record:
        image.units[image.stage] = [0, record["units"]]
        image.tiles[image.stage] = dict(record["tiles"])


def _add_sweep(image: ImageTally, record: Mapping[str, Any]) -> None:
    name = record["pass"]
    image.stage = name
    image.units.setdefault(name, [0, 0])[0] += 1
    tiles = image.tiles.setdefault(name, {})
    for outcome, count in record["tiles"].items():
        tiles[outcome] = tiles.get(outcome, 0) + count
    lanes = image.seconds.setdefault(name, {})
    for lane, seconds in record["seconds"].items():
        lanes[lane] = lanes.get(lane, 0.0) + seconds
    image.pixels[name] = image.pixels.get(name, 0) + record["pixels"]
    image.errors = (image.errors + list(record["errors"]))[:20]
    measured = record.get("memory", {}).get("measured_nbytes", 0)
    account = image.memory.setdefault(name, {})
    account["measured_nbytes"] = max(account.get("measured_nbytes") or 0, measured)


def _add_end(image: ImageTally, record: Mapping[str, Any]) -> None:
    del record
    image.state = "complete"


def _add_quarantine(image: ImageTally, record: Mapping[str, Any]) -> None:
    image.state, image.reason = "quarantined", str(record["reason"])


def _add_nothing(image: ImageTally, record: Mapping[str, Any]) -> None:
    del image, record


_ADDERS = {
    "receipt": _add_receipt,
    "image": _add_end,
    "quarantine": _add_quarantine,
}
