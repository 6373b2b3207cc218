"""What a run has done so far, counted from its journal's records. Pure.

The run loop feeds it the records that it writes, ``saccade status`` those that it reads: both tell
the same story in the same words.

Images are told one by one where that helps: the first of the list, and of the others those that are
being worked on, were set aside, or have tiles that could not be read. The rest is counted: memory
follows the images in flight and those that failed, not the archive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.jobs.manifests.names import TOLD, Names
from saccade.jobs.monitoring.folded import Folded, Numbers
from saccade.jobs.monitoring.folded_passes import FoldedPasses, PassNumbers


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
    error: str = ""
    """What that failure is called; empty in journals of older versions."""
    errors: list[str] = field(default_factory=list)
    """What could not be read, the first few."""
    notes: tuple[str, ...] = ()
    """How it is read, where that is not what its file suggests."""

    @property
    def passes(self) -> PassNumbers:
        """What it did of its passes."""
        return PassNumbers(self.units, self.tiles, self.seconds, self.pixels)

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

    names: Names
    """Of all images."""
    images: dict[str, ImageTally] = field(default_factory=dict)
    """Those that are told one by one, by name: the first of the list in its order, then others."""
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per pass: bytes as of an image, the most of any image that is only counted."""
    passes: FoldedPasses | None = None
    """What passes did of images that are only counted; None where nobody asks."""
    _folded: Folded = field(init=False)
    _unreadable: int = 0

    def __post_init__(self) -> None:
        self._folded = Folded(len(self.names) if len(self.names) > len(self.names.first) else 0)

    @classmethod
    def of(cls, names: Names | Iterable[str], told: int = TOLD, by_pass: bool = False) -> Tally:
        """Nothing done yet.

        Args:
            names: of all images, in the order in which they were listed.
            told: how many of them to tell one by one.
            by_pass: whether passes are counted of the others, too; some 60 bytes each and pass.
        """
        known = names if isinstance(names, Names) else Names.of(names, told)
        passes = FoldedPasses(len(known)) if by_pass else None
        return cls(known, {name: ImageTally(name) for name in known.first}, passes=passes)

    @property
    def total(self) -> int:
        """Images asked for."""
        return len(self.names)

    @property
    def untold(self) -> int:
        """Images that are only counted: waiting or complete, and far down the list."""
        return self.total - len(self.images)

    def count(self, state: str) -> int:
        """Images in one state."""
        told = sum(image.state == state for image in self.images.values())
        if state == "complete":
            return told + self._folded.images
        untold = self.total - len(self.images) - self._folded.images
        return told + (untold if state == "waiting" else 0)

    def state(self, name: str) -> str:
        """Of one image of the list."""
        if name in self.images:
            return self.images[name].state
        return "complete" if self._is_folded(self.names.place(name)) else "waiting"

    def unfinished(self) -> np.ndarray:
        """``(total,)`` bool: images that are neither complete nor set aside, by place."""
        left = ~self._folded.there() if self._folded.places else np.ones(self.total, np.bool_)
        for name, image in self.images.items():
            left[self.names.place(name)] = image.state in ("waiting", "running")
        return left

    @property
    def tiles_done(self) -> int:
        """Tiles answered, all images and passes."""
        return self._folded.total.tiles + sum(i.tiles_done for i in self.images.values())

    @property
    def pixels(self) -> int:
        """Pixels through models, halos included, all images and passes."""
        told = sum(sum(image.pixels.values()) for image in self.images.values())
        return self._folded.total.pixels + told

    @property
    def share_refined(self) -> float | None:
        """Share of the tiles that the finest pass chosen so far visits; None before any choice."""
        chosen = [tiles for image in self.images.values() if (tiles := image.finest_choice)]
        selected = self._folded.total.selected + sum(t["selected"] for t in chosen)
        of = self._folded.total.of + sum(t["of"] for t in chosen)
        return selected / of if of else None

    @property
    def work_done(self) -> float:
        """Images' worth of work that is done: whole images, and shares of those in progress."""
        told = sum(
            1.0 if image.state == "quarantined" else image.share_done
            for image in self.images.values()
        )
        return self._folded.images + told

    def most_memory(self) -> dict[str, dict[str, int]]:
        """Per pass: bytes as of an image, the most of any image."""
        most = {name: dict(account) for name, account in self.memory.items()}
        for image in self.images.values():
            _raise_to(most, image.memory)
        return most

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record of the journal in; kinds that say nothing are passed over."""
        kind, name = record.get("kind", ""), record.get("image", "")
        if kind == "restart":
            self._begin_anew(name)
        elif kind in _ADDERS and (image := self.images.get(name) or self._noticed(name)):
            _ADDERS[kind](image, record)
            if kind == "image":
                self._fold(image)

    def _noticed(self, name: str) -> ImageTally | None:
        """An image that is told from now on; None where it is not asked for, or is over."""
        place = self.names.place(name)
        if place is None or self._is_folded(place):
            return None
        self.images[name] = ImageTally(name)
        return self.images[name]

    def _begin_anew(self, name: str) -> None:
        place = self.names.place(name)
        if self._is_folded(place):
            assert place is not None
            self._folded.take(place)
            if self.passes is not None:
                self.passes.take(place)
        elif name in self.images:
            self._unreadable -= self._lingers(name)
            self.images[name] = ImageTally(name)
            if not self._always_told(place):
                del self.images[name]

    def _fold(self, image: ImageTally) -> None:
        """Only count a complete image from now on, unless there is more to tell of it."""
        place = self.names.place(image.name)
        if place is None or self._always_told(place):
            return
        if image.tiles_failed and self._unreadable < TOLD:
            self._unreadable += 1
            return
        chosen = image.finest_choice or {"selected": 0, "of": 0}
        pixels = sum(image.pixels.values())
        self._folded.put(place, Numbers(image.tiles_done, pixels, chosen["selected"], chosen["of"]))
        if self.passes is not None:
            self.passes.put(place, image.passes.numbers())
        _raise_to(self.memory, image.memory)
        del self.images[image.name]

    def _always_told(self, place: int | None) -> bool:
        return place is not None and place < len(self.names.first)

    def _lingers(self, name: str) -> bool:
        """Whether an image is told although it is complete and far down the list."""
        complete = self.images[name].state == "complete"
        return complete and not self._always_told(self.names.place(name))

    def _is_folded(self, place: int | None) -> bool:
        return place is not None and bool(self._folded.places) and self._folded.has(place)


def _raise_to(most: dict[str, dict[str, int]], memory: Mapping[str, Mapping[str, int]]) -> None:
    """Per pass and word, the larger of two accounts of memory."""
    for name, account in memory.items():
        known = most.setdefault(name, {})
        for word, nbytes in account.items():
            known[word] = max(known.get(word) or 0, nbytes or 0)


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
    image.notes = tuple(record.get("notes", image.notes))
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
    image.error = str(record.get("error", ""))


_ADDERS = {
    "receipt": _add_receipt,
    "image": _add_end,
    "quarantine": _add_quarantine,
}
