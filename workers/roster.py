"""Who works, on what, and who has room. Decides which worker is next; knows no line, no stage.

A worker is bounded by slots, of which each lane has its own, and by bytes. A unit larger than a
worker's bytes is admitted when the worker is empty, and then nothing else is. Suspects run alone:
while some wait, up to half of the workers (at least one) are kept for them, so that the others'
units go on.

A worker keeps the images open that it was at last; which ones is guessed from what it was given,
for glances and other sweeps apart: whoever glances at an image need not be the one to sweep it.

Help takes no slot and no bytes here: only who holds nothing is asked for it, and it ends where a
unit comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from saccade.workers.events import Lane, UnitRef, WorkerJoined
from saccade.workers.ledger import Entry, Image
from saccade.workers.straggling import Paces, is_late, is_long

IDLE_IMAGES = 2
"""Images that a worker is thought to keep open besides one per slot."""


@dataclass(slots=True, eq=False)
class Copy:
    """One attempt in flight on one worker, whether or not it still counts."""

    entry: Entry
    """The unit."""
    attempt: int
    """Which attempt."""
    alone: bool
    """Whether nothing else may be in flight beside it."""
    since_seconds: float
    """When it was given away."""
    cancelled: bool = False
    """Whether it was told to stop, and has not answered."""

    def counts_at(self, worker: str) -> bool:
        """Whether it is an attempt that counts, on the worker that holds it."""
        return self.entry.runs_as(worker, self.attempt)


@dataclass(slots=True, eq=False)
class Helping:
    """What a worker without units of its own does meanwhile."""

    entry: Entry
    """The unit that it helps with."""
    attempt: int
    """Number of the unit's latest attempt when it was asked for help."""
    stopping: bool = False
    """Whether it was told to stop, and has not answered."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker and what it holds."""

    name: str
    """Its name."""
    slots: Mapping[Lane, int]
    """Most units in flight, by lane."""
    nbytes: int | None
    """Most bytes in flight, a single larger unit excepted."""
    joined: int
    """Earlier workers have lower numbers."""
    copies: dict[str, Copy] = field(default_factory=dict)
    """In flight, by unit id."""
    nbytes_in_flight: int = 0
    """Sum over ``copies``."""
    taken: Counter[Lane] = field(default_factory=Counter)
    """Slots that ``copies`` take."""
    images: dict[Lane, dict[int, Image]] = field(default_factory=lambda: {one: {} for one in Lane})
    """Thought to be open, by lane of what it did there, by arrival; the one used last is last."""
    answered_seconds: float = 0.0
    """When it answered for the last unit of any family."""
    helping: Helping | None = None
    """With what it helps, until it has said that this is over."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and no help that is not over."""
        return not self.copies and self.helping is None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop something; it gets nothing new until it has answered."""
        return any(copy.cancelled for copy in self.copies.values())

    def open_for(self, lane: Lane) -> bool:
        """Whether it has a slot to give."""
        closed = any(copy.alone or copy.cancelled for copy in self.copies.values())
        return self.taken[lane] < self.slots[lane] and not closed

    def has_room(self, ref: UnitRef) -> bool:
        """Whether a unit's bytes fit, and no overtaken copy of it is still here."""
        if not self.copies:
            return True
        fits = self.nbytes is None or self.nbytes_in_flight + ref.nbytes <= self.nbytes
        return fits and ref.id not in self.copies

    def counting(self) -> list[Copy]:
        """Attempts here that count."""
        return [copy for copy in self.copies.values() if copy.counts_at(self.name)]

    def seconds_of(self, copy: Copy, now_seconds: float) -> float:
        """For how long a unit has run, or has waited to be the first in turn here."""
        return now_seconds - max(copy.since_seconds, self.answered_seconds)

    def late(self, now_seconds: float, paces: Paces) -> list[Copy]:
        """What runs here and counts, if the first of it is late."""
        timed = self.timed()
        expected_seconds = paces.expected_seconds(timed[0].entry.ref) if timed else None
        if not timed or not is_late(self.seconds_of(timed[0], now_seconds), expected_seconds):
            return []
        return [copy for copy in timed if copy.counts_at(self.name)]

    def queued(self, paces: Paces) -> list[Copy]:
        """What counts, waits behind the first, and takes long enough to be worth taking over."""
        behind = (copy for copy in self.timed()[1:] if copy.counts_at(self.name))
        return [copy for copy in behind if is_long(paces.expected_seconds(copy.entry.ref))]

    def timed(self) -> list[Copy]:
        """What runs here and has a family: the first of it, and what waits behind that."""
        return [copy for copy in self.copies.values() if copy.entry.ref.family]

    def open_image(self, image: Image, lane: Lane) -> None:
        """It works on an image now; the one that it left the longest ago is closed for it."""
        images = self.images[lane]
        if images.pop(image.arrival, None) is None:
            image.open_at[lane] += 1
        images[image.arrival] = image
        if len(images) > self.slots[lane] + IDLE_IMAGES:
            images.pop(next(iter(images))).open_at[lane] -= 1


class Roster:
    """All workers. Choices are deterministic: least busy first, then who joined first."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._open: dict[Lane, dict[str, Worker]] = {lane: {} for lane in Lane}
        self._kept: set[str] = set()
        self._joins = 0
        self.copies_in_flight = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def join(self, event: WorkerJoined) -> None:
        """Take a worker on."""
        if event.worker in self._workers:
            raise ValueError(f"worker {event.worker!r} joined twice; say first that it left")
        worker = Worker(event.worker, event.room, event.nbytes, self._joins)
        self._joins += 1
        self._workers[worker.name] = worker
        self._refresh(worker)

    def remove(self, name: str) -> Worker | None:
        """Strike a worker off; None where it is not known."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            for lane, images in worker.images.items():
                for image in images.values():
                    image.open_at[lane] -= 1
            self.copies_in_flight -= len(worker.copies)
            for offered in self._open.values():
                offered.pop(name, None)
            self._kept.discard(name)
        return worker

    def start(self, worker: Worker, entry: Entry, alone: bool, now_seconds: float) -> None:
        """Count an attempt in."""
        worker.copies[entry.ref.id] = Copy(entry, entry.attempt, alone, now_seconds)
        worker.nbytes_in_flight += entry.ref.nbytes
        worker.taken[entry.ref.lane] += 1
        if entry.ref.lane is not Lane.STEP:  # steps keep no image open
            worker.open_image(entry.stage.image, entry.ref.lane)
        self.copies_in_flight += 1
        self._refresh(worker)

    def finish(self, name: str, unit: str, attempt: int, now_seconds: float) -> float | None:
        """Count an attempt out; the seconds that it took, or None: this worker does not hold it."""
        worker = self._workers.get(name)
        copy = worker.copies.get(unit) if worker else None
        if worker is None or copy is None or copy.attempt != attempt:
            return None
        del worker.copies[unit]
        worker.nbytes_in_flight -= copy.entry.ref.nbytes
        worker.taken[copy.entry.ref.lane] -= 1
        self.copies_in_flight -= 1
        self._refresh(worker)
        seconds = worker.seconds_of(copy, now_seconds)
        if copy.entry.ref.family:
            worker.answered_seconds = now_seconds
        return seconds

    def cancel(self, name: str, unit: str) -> None:
        """Give a worker nothing new until it answers for this unit."""
        worker = self._workers[name]
        worker.copies[unit].cancelled = True
        self._refresh(worker)

    def open_workers(self, lane: Lane) -> list[Worker]:
        """Those that have a slot to give, the least busy first: few, while units wait."""
        return sorted(self._open[lane].values(), key=_busyness)

    def empty(self) -> Worker | None:
        """The first worker that has nothing to do."""
        return next((worker for worker in self._workers.values() if worker.idle), None)

    def helpers(self, entry: Entry | None = None) -> list[Worker]:
        """Workers that help, with this unit or any, and were not told to stop."""
        helping = ((w, w.helping) for w in self if w.helping and not w.helping.stopping)
        return [worker for worker, help_ in helping if entry is None or help_.entry is entry]

    def end_help(self, name: str, unit: str) -> Helping | None:
        """Count help out; None where this worker does not help with that unit."""
        worker = self._workers.get(name)
        if worker is None or worker.helping is None or worker.helping.entry.ref.id != unit:
            return None
        ended, worker.helping = worker.helping, None
        return ended

    def worth_another(self, now_seconds: float, paces: Paces) -> list[Copy]:
        """What an idle worker might do as well: what is late, then what was queued the latest."""
        late = [copy for worker in self for copy in worker.late(now_seconds, paces)]
        queued = [copy for worker in self for copy in worker.queued(paces)]
        late.sort(key=lambda copy: copy.since_seconds)
        queued.sort(key=lambda copy: -copy.since_seconds)
        return late + queued

    def keep_for_suspects(self, suspects: int) -> None:
        """Keep a worker free of other units per suspect that waits, half of all workers at most.

        Workers already kept come first, then the least busy: they are empty soonest.
        """
        if not suspects and not self._kept:
            return
        able = [worker for worker in self._workers.values() if not worker.stopping]
        able.sort(key=lambda worker: (worker.name not in self._kept, *_busyness(worker)))
        most = min(suspects, max(1, len(self._workers) // 2))
        before, self._kept = self._kept, {worker.name for worker in able[:most]}
        for name in before ^ self._kept:
            self._refresh(self._workers[name])

    def check(self) -> None:
        """Raise AssertionError where slots, bytes or counts are wrong."""
        for worker in self._workers.values():
            copies = worker.copies.values()
            assert worker.taken == Counter(c.entry.ref.lane for c in copies), worker
            assert all(worker.taken[lane] <= worker.slots[lane] for lane in Lane), worker
            assert worker.nbytes_in_flight == sum(c.entry.ref.nbytes for c in copies), worker
            within = worker.nbytes is None or worker.nbytes_in_flight <= worker.nbytes
            assert within or len(copies) == 1, worker
            assert len(copies) == 1 or not any(c.alone for c in copies), worker
            for lane, offered in self._open.items():
                free = worker.open_for(lane) and worker.name not in self._kept
                assert (worker.name in offered) == free, worker
        assert self.copies_in_flight == sum(len(w.copies) for w in self._workers.values())
        assert set().union(self._kept, *self._open.values()) <= {*self._workers}
        self._check_images()

    def _check_images(self) -> None:
        held = [(lane, worker) for worker in self for lane in Lane]
        opened = Counter((lane, arrival) for lane, w in held for arrival in w.images[lane])
        for lane, worker in held:
            assert len(worker.images[lane]) <= worker.slots[lane] + IDLE_IMAGES, worker
            for arrival, image in worker.images[lane].items():
                assert image.arrival == arrival, worker
                assert image.open_at[lane] == opened[lane, arrival], image

    def _refresh(self, worker: Worker) -> None:
        for lane, offered in self._open.items():
            if worker.open_for(lane) and worker.name not in self._kept:
                offered[worker.name] = worker
            else:
                offered.pop(worker.name, None)


def _busyness(worker: Worker) -> tuple[int, bool, int]:
    return (len(worker.copies), worker.helping is not None, worker.joined)
