"""One sweep unit on its way through the engine: what is gathered, and what is ready for storage.

A unit is computed window by window and written strip by strip: a strip is ready once every window
that reaches into it is placed and the strips above it are ready. So a unit holds the strips that
are being computed, not all that it answers for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.pipeline.image_plan import (
    STATUS_DEGRADED,
    STATUS_DONE,
    STATUS_FAILED,
    STATUS_NODATA,
    ImagePlan,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Unit, Window
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_writing import Written
from saccade.workers.answer import Said
from saccade.workers.reading import WindowPixels, scores_without_data, tiles_lost
from saccade.workers.strip import Answered, Strip, strips_of
from saccade.workers.strip_writing import StripWriter


@dataclass
class SweepJob:
    """One unit while it is computed. Windows are placed by one thread, strips stored by another."""

    plan: ImagePlan
    """Of the image."""
    layout: PassLayout
    """Of the pass."""
    unit: Unit
    """What is computed."""
    tiles: dict[int, int] = field(default_factory=dict)
    """Tiles by status, of the strips that are stored."""
    errors: list[str] = field(default_factory=list)
    """What could not be read."""
    pixels_read: int = 0
    """Input pixels given to the model, halos included."""
    nbytes_read: int = 0
    """Bytes of those pixels, as they were decoded."""
    splits: int = 0
    """How often a batch was halved to fit the device."""

    def __post_init__(self) -> None:
        self._boxes = strips_of(self.plan, self.layout, self.unit)
        self._strips: dict[int, Strip] = {}
        self._first = 0  # of the strips that are not ready
        self._reaching = [0] * len(self._boxes)
        for window in self.unit.windows:
            for at in self._reached(window):
                self._reaching[at] += 1
        self._computed = [count > 0 for count in self._reaching]
        self._writer: StripWriter | None = None

    def _reached(self, window: Window) -> list[int]:
        """The strips that a window has something to say of."""
        ground = window.core
        if self.layout.blend == "hann":
            ground = ground.grow(self.layout.halo_px).clip(self.layout.plane.shape)
        scores = self.layout.scores_of(ground)
        return [at for at, box in enumerate(self._boxes) if box.overlaps(scores)]

    def wants(self, window: Window, read: WindowPixels) -> bool:
        """Whether a window is to be answered: some pixel of its core has data."""
        holes = scores_without_data(self.layout, read)
        core = self.layout.scores_of(window.core)
        seen = window.read.reduce(self.layout.stride)
        return holes is None or not holes[core.relative_to(seen).slices].all()

    def place(self, window: Window, read: WindowPixels, said: Said | None) -> None:
        """Take one window's answer, and leave out what could not be read.

        Args:
            window: which window.
            read: its pixels, for what was lost of them and where there is no data.
            said: what the model said of it; None where it was not asked.
        """
        failed, degraded = tiles_lost(self.layout, window, read)
        self.errors.extend(read.reasons)
        self.nbytes_read += read.pixels.nbytes
        if said is not None:
            self.pixels_read += window.read.area
        holes = scores_without_data(self.layout, read)
        answered = Answered(window, said, holes, frozenset(failed), frozenset(degraded))
        for at in self._reached(window):
            self._strip(at).place(answered)
            self._reaching[at] -= 1

    def _strip(self, at: int) -> Strip:
        if at not in self._strips:
            box, computed = self._boxes[at], self._computed[at]
            self._strips[at] = Strip(self.plan, self.layout, box, computed)
        return self._strips[at]

    def ready(self) -> Iterator[Strip]:
        """The strips that became ready, from top to bottom, each once; the caller has them now."""
        while self._first < len(self._boxes) and not self._reaching[self._first]:
            strip = self._strip(self._first)
            del self._strips[self._first]
            self._first += 1
            yield strip

    # ----------------------------------------------------------------------------------- writing

    def store(self, strip: Strip, store: ImageStore) -> None:
        """Compress a strip that became ready, in the order in which they did."""
        if self._writer is None:
            self._writer = StripWriter(store, self.plan, self.layout, self.unit.region)
        self._writer.add(strip)
        for state, count in zip(*np.unique(strip.status, return_counts=True), strict=True):
            self.tiles[int(state)] = self.tiles.get(int(state), 0) + int(count)

    def put(self) -> list[Written]:
        """Put everything that this unit owns into place; returns what was put where."""
        assert self._writer is not None
        return self._writer.put()

    def abandon(self) -> None:
        """Leave nothing of what is not in place."""
        if self._writer is not None:
            self._writer.abandon()

    def write(self, store: ImageStore) -> list[Written]:
        """Store all that is ready and put it into place; every window is placed."""
        for strip in self.ready():
            self.store(strip, store)
        return self.put()

    def counts(self) -> dict[str, int]:
        """Tiles by outcome, for the receipt."""
        named = {"done": STATUS_DONE, "degraded": STATUS_DEGRADED, "failed": STATUS_FAILED}
        if self.layout.holes:  # only where the image may lack data
            named["nodata"] = STATUS_NODATA
        return {name: self.tiles.get(int(state), 0) for name, state in named.items()}


def receipt_of(
    job: SweepJob, attempt: int, written: list[Written], seconds: dict[str, float]
) -> dict[str, Any]:
    """What the journal keeps of a sweep unit."""
    return {
        "unit": job.unit.id,
        "image": job.unit.image,
        "pass": job.layout.name,
        "attempt": attempt,
        "keys": {w.key: w.checksum for w in written},
        "nbytes": sum(w.nbytes for w in written),
        "tiles": job.counts(),
        "pixels": job.pixels_read,
        "read_nbytes": job.nbytes_read,
        "errors": job.errors[:20],
        "batch": job.layout.batch,
        "splits": job.splits,
        "seconds": {lane: round(value, 4) for lane, value in seconds.items()},
    }
