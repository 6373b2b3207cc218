"""A unit on its way through the engine's lanes, and a batch of its windows."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from saccade.pipeline.plan import Batch
from saccade.workers.context import ImageContext
from saccade.workers.lanes import FirstFailure
from saccade.workers.reading import WindowPixels
from saccade.workers.sharing import Helper, Owner, Side, patience_seconds
from saccade.workers.strip import Strip
from saccade.workers.sweep import SweepJob
from saccade.workers.tasks import Task

Receipt = dict[str, Any]


@dataclass(eq=False)
class Flight:
    """One unit between being asked for and being answered."""

    task: Task
    """What was asked."""
    answer: Future[Receipt]
    """Where the receipt, or the first failure, goes."""
    opened: Future[Side] | None = None
    """Ends when the image is open; of a sweep."""
    image: ImageContext | None = None
    """Of the unit's image, once opened."""
    job: SweepJob | None = None
    """What a sweep has gathered; None before its first window is there, and once it is stored."""
    side: Owner | Helper | None = None
    """What it asks about batches that others may compute; None until its image is open."""
    computed: int = 0
    """Batches that went through the model here."""
    helped: int = 0
    """Batches of which somebody else's answer was taken."""
    failure: FirstFailure = field(default_factory=FirstFailure)
    """The first thing that went wrong."""
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "device": 0.0})
    """Busy time by lane."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards what follows, and ``seconds``, which several readers add to."""
    to_write: deque[Strip | None] = field(default_factory=deque)
    """Strips that are ready, from top to bottom; None comes after the last one."""
    being_written: bool = False
    """Whether a thread of the write lane is at this unit."""
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By lane, from when to when it was at the unit, by the host's clock."""

    def spend(self, lane: str, since: float) -> None:
        """Add the time since ``since`` to a lane."""
        seconds, now = time.perf_counter() - since, time.time()
        with self.lock:
            self.seconds[lane] = self.seconds.get(lane, 0.0) + seconds
            began, _ = self.spans.get(lane, (now - seconds, now))
            self.spans[lane] = (min(began, now - seconds), now)

    @property
    def passes(self) -> bool:
        """Whether it is a glance, which passes other sweeps by."""
        return self.task.unit.kind == "sweep" and self.task.unit.pass_index == 0

    def gathering(self) -> SweepJob:
        """What a sweep gathers, made when asked for first: a unit that is read ahead holds none."""
        if self.job is None:
            assert self.image is not None
            plan, unit = self.image.plan, self.task.unit
            self.job = SweepJob(plan, plan.passes[unit.pass_index], unit)
        return self.job

    @property
    def patience_seconds(self) -> float:
        """How long to wait for a batch that somebody else has claimed."""
        return patience_seconds(self.seconds["device"] / self.computed if self.computed else None)

    @property
    def spans_said(self) -> dict[str, list[float]]:
        """As receipts hold them."""
        return {lane: [round(at, 3) for at in span] for lane, span in self.spans.items()}


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """A batch whose windows are being read; no batch marks the end of its unit."""

    flight: Flight
    batch: Batch = ()
    index: int = 0
    reads: tuple[Future[WindowPixels], ...] = ()
    nbytes: int = 0
