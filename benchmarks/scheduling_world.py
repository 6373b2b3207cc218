"""An archive and its workers as arithmetic, for ``scheduling.py``: no pixel, no clock, no thread.

What decides is the package's own; what is told here is when a worker would have answered. A worker
has lanes that read, compute, write and do steps, each one thing after the other, as the engine has.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, exp

from saccade.jobs.stages import URGENCY
from saccade.jobs.taking_up import WINDOW, LargestFirst, images_in_flight
from saccade.workers import events
from saccade.workers.dispatch import Dispatcher
from saccade.workers.helping import NO_HELP, HelpRule
from saccade.workers.ledger import Entry
from saccade.workers.lines import LanesLines, Lines
from saccade.workers.local import GLANCES, SLOTS, joined
from saccade.workers.tasks import ImageEntry

POLL_SECONDS = 0.25
"""The longest that the driver waits before it looks at the time."""
ANSWER_SECONDS = 0.005
"""From a unit's end until the driver has it: a call, and a share of an fsync."""
IDLE_IMAGES = 2
"""Images that a worker keeps open while nobody uses them."""
UNIT_MP = 16.8
"""Megapixels of a shard of 4096 x 4096."""
GLANCE = 64
"""Pixels of the last pass per pixel of the glance."""
BATCH_MP = 0.41
"""Megapixels of a window of 640 x 640, of which the default layout makes a batch."""
HALOS = 1.3
"""Pixels of windows per pixel of the tiles that they answer for."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, and seconds per megapixel, of one worker.

    Fitted by ``borders.py --costs`` to the receipts of two runs of ``builtin:retina-lesions`` in
    two passes, by one worker on a processor that others shared: two slides, an aerial image and
    four photographs of 6 to 16 megapixels, and slides of 100 to 800, which ``sparse_slide.py``
    wrote. Opening was timed by itself. What counts is how the numbers compare.
    """

    prepare: tuple[float, float] = (0.19, 0.0014)
    """At all, and per megapixel of the image."""
    select: tuple[float, float] = (0.16, 0.0042)
    """Likewise."""
    finalise: tuple[float, float] = (0.9, 0.0036)
    """Likewise."""
    opening: float = 0.04
    """Before the first unit of an image on a worker."""
    read: float = 0.32
    """Per megapixel that is read, halos included."""
    device: float = 1.27
    """Likewise."""
    write: tuple[float, float] = (0.05, 0.06)
    """Per unit, and per megapixel of its region, composed or not."""
    storing: float = 0.059
    """Per megapixel that somebody answers who helps, halos included: five classes as float32.
    ``helping.py --costs`` measures this and the next."""
    taking: float = 0.012
    """Likewise, for the unit's owner."""


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Case:
    """One archive, and how it is worked on."""

    name: str = "all"
    """For the table."""
    images: int = 10_000
    """In the archive."""
    workers: int = 64
    """That join at the beginning."""
    affinity: bool = True
    """Whether workers go on with images that they have open."""
    window: int = WINDOW
    """Images among which the largest goes first; 1 keeps the manifest's order."""
    backup: bool = True
    """Whether the dispatcher is told the time."""
    each: float = 3
    """Images in flight per worker."""
    slow: float = 0.0
    """Share of attempts that take ten times as long."""
    split: int = 1
    """Parts that each unit of the last images is cut into, at no cost."""
    least_units: int = 1
    """Units that a pass over a whole image is cut into at least."""
    median_mp: float = 100
    """Megapixels of an image in the last pass."""
    seed: int = 7
    """Which archive of these."""
    help: HelpRule = NO_HELP
    """Whom idle workers help; only where units are played batch by batch."""


class OldestFirst(Lines):
    """The order without affinity: whoever has room takes the oldest image's next unit."""

    def turn(self, opened: object, glanced: object = None) -> Entry | None:
        """Whatever is open."""
        return self.head()


STEPS = {0: "prepare", 2: "select", 4: "finalise"}
"""Of the stages, those without a device."""


@dataclass(slots=True)
class SimImage:
    """An image, and where it stands."""

    name: str
    """In the archive."""
    mp: float
    """Megapixels of its last pass."""
    parts: int = 1
    """Parts of each unit."""
    least_units: int = 1
    """Of the last pass."""
    stage: int = 0
    """The open stage."""
    shares: list[float] = field(default_factory=list)
    """Of each unit of the last pass, the share of its region that goes through the model."""

    def units(self, number: int) -> tuple[events.UnitRef, ...]:
        """The units of a stage: prepare, glance, select, refine, finalise."""
        count, work = self._count(number), 1.0
        if number == 3:
            self.shares = self._drawn(count)
        family = f"sweep {number // 2}" if number % 2 else ""
        lane = {1: events.Lane.GLANCE, 3: events.Lane.SWEEP}.get(number, events.Lane.STEP)
        urgency = URGENCY.get(STEPS.get(number, ""), 0)
        refs = []
        for n in range(count):
            if number == 3:
                work = 1.0 + HALOS * self.shares[n]
            name, parts = f"{self.name}/{number}/{n}", self.batches(number, n)
            refs.append(
                events.UnitRef(name, self.name, "", 0, n, family, work, parts, lane, urgency)
            )
        return tuple(refs)

    def batches(self, number: int, unit: int) -> int:
        """Windows of a sweep unit, each a batch."""
        return ceil(self.seen(number, unit) / BATCH_MP)

    def seen(self, number: int, unit: int) -> float:
        """Megapixels of a unit that go through the model, halos included."""
        if number not in (1, 3):
            return 0.0
        region = (self.mp / GLANCE if number == 1 else self.mp) / self._count(number)
        return region * (1.0 if number == 1 else HALOS * self.shares[unit])

    def _count(self, number: int) -> int:
        passes = {1: self.mp / GLANCE, 3: self.mp}
        if number not in passes:
            return 1
        least = self.least_units if number == 3 else 1
        return self.parts * max(least, ceil(passes[number] / UNIT_MP))

    def _drawn(self, count: int) -> list[float]:
        chance = random.Random(zlib.crc32(self.name.encode()))
        share = chance.uniform(0.05, 0.6)
        return [chance.betavariate(share, 1 - share) for _ in range(count)]

    def lanes(self, number: int, unit: int) -> tuple[float, float, float, float]:
        """Seconds of step, read, device and write."""
        if number in (0, 2, 4):
            base, per_mp = (COSTS.prepare, COSTS.select, COSTS.finalise)[number // 2]
            return base + per_mp * self.mp, 0, 0, 0
        region = (self.mp / GLANCE if number == 1 else self.mp) / self._count(number)
        seen = self.seen(number, unit)
        write = COSTS.write[0] / self.parts + COSTS.write[1] * region
        return 0, COSTS.read * seen, COSTS.device * seen, write


@dataclass(slots=True)
class SimWorker:
    """When each lane is free again, and what is open."""

    step: float = 0.0
    read: float = 0.0
    device: float = 0.0
    write: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When the device was at a unit."""
    images: dict[str, None] = field(default_factory=dict)
    """Open; the one used last is last."""
    opens: int = 0
    """Images opened."""

    def take(self, image: str, now: float, lanes: tuple[float, float, float, float]) -> float:
        """Queue a unit; returns when it is written."""
        step, read, device, write = lanes
        if step:
            self.step = max(now, self.step) + step
            return self.step
        begun = max(now, self.read) + self._opened(image)
        self.read = begun + read
        started = max(begun + read / 8, self.device)  # a unit's first windows, of some eight
        self.device = max(started + device, self.read)
        self.spans.append((started, self.device))
        self.write = max(self.device, self.write) + write
        return self.write

    def _opened(self, image: str) -> float:
        new = image not in self.images
        self.images.pop(image, None)
        self.images[image] = None
        self.opens += new
        if len(self.images) > SLOTS + GLANCES + IDLE_IMAGES:
            del self.images[next(iter(self.images))]
        return COSTS.opening if new else 0.0


class Simulation:
    """The driver's loop over simulated workers."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.dispatcher = Dispatcher(help_rule=case.help)
        if not case.affinity:
            lanes = (events.Lane.GLANCE, events.Lane.SWEEP)
            self.dispatcher._lines = LanesLines({lane: OldestFirst() for lane in lanes})
        self.workers = {f"w{n:03d}": SimWorker() for n in range(case.workers)}
        self.now = self._told = 0.0
        self.first_idle: float | None = None
        self.backups = 0
        self.bound = 0.0
        self._flying: dict[str, SimImage] = {}
        self._happening: list[tuple[float, int, events.UnitDone | events.Tick]] = []
        self._holding = dict.fromkeys(self.workers, 0)
        self._sizes = self._drawn()
        self._left = case.images
        entries = (ImageEntry(name, name) for name in self._sizes)
        self._waiting = LargestFirst(entries, self._guessed, case.window)
        self._number = 0

    def _drawn(self) -> dict[str, float]:
        chance, median = random.Random(self.case.seed), self.case.median_mp
        return {f"i{n:06d}": median * exp(chance.gauss(0, 1)) for n in range(self.case.images)}

    def _guessed(self, entry: ImageEntry) -> float:
        """What a file's size says of an image: half as much, or twice."""
        return self._sizes[entry.name] * 2 ** random.Random(entry.name).uniform(-1, 1)

    def run(self) -> Simulation:
        """Every image from its first unit to its last."""
        for name in self.workers:
            self._tell(joined(name, ""))
        self._take_up()
        while self._flying:
            self.now, _, happened = heappop(self._happening)
            if self.case.backup and self.now >= self._told + POLL_SECONDS:
                self._told = self.now
                self._tell(events.Tick(self.now))
            if isinstance(happened, events.Tick):
                self._look_again()
            else:
                self._holding[happened.worker] -= 1
                self._tell(happened)
                self._take_up()
                self._note_idle(happened.worker)
        return self

    def _happens(self, at: float, event: events.UnitDone | events.Tick) -> None:
        self._number += 1
        heappush(self._happening, (at, self._number, event))

    def _look_again(self) -> None:
        self._happens(self.now + POLL_SECONDS, events.Tick(self.now))

    def _note_idle(self, worker: str) -> None:
        """When, for the first time, no image is left to begin and a worker has run out of units."""
        if self.first_idle is None and not self._waiting and not self._holding[worker]:
            self.first_idle = self.now
            self._look_again()

    def _take_up(self) -> None:
        limit = images_in_flight(self.case.workers, self.case.each)
        while self._waiting and len(self._flying) < limit:
            name = self._waiting.take().name
            self._left -= 1
            parts = self.case.split if self._left < self.case.workers else 1
            image = SimImage(name, self._sizes[name], parts, self.case.least_units)
            self._flying[name] = image
            self._begin(image)

    def _begin(self, image: SimImage) -> None:
        self._tell(events.StageReady(image.name, image.stage, image.units(image.stage)))

    def _tell(self, event: events.Event) -> None:
        for told in self.dispatcher.handle(event):
            self._obey(told)

    def _obey(self, told: events.Instruction) -> None:
        match told:
            case events.Assign():
                self._assign(told)
            case events.Commit(unit):
                self._tell(events.Committed(unit))
            case events.StageComplete(image):
                self._follow(self._flying[image])
            case _:
                raise AssertionError(f"nothing failed, and yet {told}")

    def _follow(self, image: SimImage) -> None:
        if image.stage < 4:
            image.stage += 1
            self._begin(image)
            return
        del self._flying[image.name]
        self._tell(events.ImageDone(image.name))

    def _assign(self, told: events.Assign) -> None:
        name, number, unit = told.unit.split("/")
        lanes = self._flying[name].lanes(int(number), int(unit))
        self.bound += lanes[2] * (not told.backup)
        self.backups += told.backup
        if zlib.crc32(f"{told.unit}/{told.attempt}".encode()) < self.case.slow * 2**32:
            lanes = tuple(10 * seconds for seconds in lanes)  # type: ignore[assignment]
        ends = self.workers[told.worker].take(name, self.now, lanes) + ANSWER_SECONDS
        self._holding[told.worker] += 1
        self._happens(ends, events.UnitDone(told.worker, told.unit, told.attempt, {}))
