"""Few images and many workers as arithmetic, batch by batch: what it gains that idle workers help.

The rules are those of ``scheduling_world.py``. A device takes one batch after the other, its
worker's units in the order in which they came; read ahead of it lies what it needs, but for a
unit's first batch. Whoever helps claims batches from the last to the first, as the package does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from scheduling_world import ANSWER_SECONDS, COSTS, POLL_SECONDS, Case, SimImage, Simulation

from saccade.workers import events
from saccade.workers.local import SLOTS


@dataclass(slots=True)
class Shared:
    """One sweep unit, whoever is at it."""

    batches: int
    """Of the unit."""
    batch_seconds: float
    """That each is on the device."""
    batch_mp: float
    """Of each."""
    write_seconds: float
    """When all are answered."""
    stored: dict[int, float] = field(default_factory=dict)
    """When the answer of a batch lies there that somebody who helps has claimed."""
    owned: set[int] = field(default_factory=set)
    """Claimed by an owner."""


@dataclass(slots=True, eq=False)
class Flight:
    """A unit at a worker."""

    unit: str
    """Its id."""
    attempt: int
    """Which; 0 where it is help."""
    shared: Shared
    """The unit."""
    new: bool
    """Whether its image is to be opened for it."""
    next: int = 0
    """Batch that the owner comes to."""
    stopped: bool = False
    """Whether it was told to stop."""


class Batches(Simulation):
    """The driver's loop over workers that compute batch by batch."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.helped = 0
        self.serial = 0.0
        self._shared: dict[str, Shared] = {}
        self._queues: dict[str, deque[Flight]] = {name: deque() for name in self.workers}
        self._busy: set[str] = set()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def run(self) -> Batches:
        """Every image from its first unit to its last."""
        for name in self.workers:
            self._tell(events.WorkerJoined(name, SLOTS))
        self._take_up()
        self._tick()
        while self._flying:
            self.now, _, happens = heappop(self._agenda)
            happens()
        return self

    @property
    def least_seconds(self) -> float:
        """A mean image's steps, and all batches on devices that never wait."""
        return self.serial / self.case.images + self.bound / self.case.workers

    def _at(self, seconds: float, happens: Callable[[], None]) -> None:
        self._number += 1
        heappush(self._agenda, (seconds, self._number, happens))

    def _tick(self) -> None:
        self._tell(events.Tick(self.now))
        self._at(self.now + POLL_SECONDS, self._tick)

    def _obey(self, told: events.Instruction) -> None:
        match told:
            case events.Help(worker, unit):
                self.helped += 1
                self._queue(worker, Flight(unit, 0, self._shared[unit], self._opens(worker, unit)))
            case events.StopHelping(worker, unit):
                for flight in self._queues[worker]:
                    flight.stopped |= flight.unit == unit and not flight.attempt
            case _:
                super()._obey(told)

    def _opens(self, worker: str, unit: str) -> bool:
        return bool(self.workers[worker]._opened(unit.split("/")[0]))

    def _assign(self, told: events.Assign) -> None:
        name, number, unit = told.unit.split("/")
        image = self._flying[name]
        lanes = image.lanes(int(number), int(unit))
        self.backups += told.backup
        self.bound += lanes[2] * (not told.backup)
        if lanes[0]:
            self.serial += lanes[0]
            worker = self.workers[told.worker]
            worker.step = max(self.now, worker.step) + lanes[0]
            self._answers(worker.step, told.worker, told.unit, told.attempt)
            return
        shared = self._shared.setdefault(told.unit, _shared(image, int(number), int(unit)))
        opens = self._opens(told.worker, told.unit)
        self._queue(told.worker, Flight(told.unit, told.attempt, shared, opens))

    def _queue(self, worker: str, flight: Flight) -> None:
        self._queues[worker].append(flight)
        if worker not in self._busy:
            self._go_on(worker)

    def _go_on(self, worker: str) -> None:
        """The device is free: the next batch of the first unit, or the next unit."""
        self._busy.discard(worker)
        while queue := self._queues[worker]:
            flight = queue[0]
            seconds = self._own(flight) if flight.attempt else self._help(flight)
            if seconds is not None:
                self._busy.add(worker)
                self._note(worker, seconds)
                self._at(self.now + seconds, lambda: self._go_on(worker))
                return
            queue.popleft()
            self._leave(worker, flight)

    def _note(self, worker: str, seconds: float) -> None:
        self.workers[worker].spans.append((self.now, self.now + seconds))

    def _own(self, flight: Flight) -> float | None:
        """Seconds of the owner's next batch; None where there is none."""
        shared, index = flight.shared, flight.next
        if index == shared.batches:
            return None
        flight.next += 1
        if index in shared.stored:
            return max(0.0, shared.stored[index] - self.now) + COSTS.taking * shared.batch_mp
        shared.owned.add(index)
        return self._first(flight, index == 0) + shared.batch_seconds

    def _help(self, flight: Flight) -> float | None:
        shared = flight.shared
        if flight.stopped:
            return None
        for index in reversed(range(shared.batches)):
            if index in shared.owned:
                return None
            if index not in shared.stored:
                seconds = self._first(flight, flight.new) + shared.batch_seconds
                shared.stored[index] = self.now + seconds + COSTS.storing * shared.batch_mp
                return seconds
        return None

    def _first(self, flight: Flight, first: bool) -> float:
        """What the device waits for before a unit's first batch."""
        opening, flight.new = COSTS.opening * flight.new, False
        return opening + COSTS.read * flight.shared.batch_mp * first

    def _leave(self, worker: str, flight: Flight) -> None:
        if not flight.attempt:
            self._at(
                self.now + ANSWER_SECONDS, lambda: self._tell(events.HelpEnded(worker, flight.unit))
            )
            return
        lanes = self.workers[worker]
        lanes.write = max(self.now, lanes.write) + flight.shared.write_seconds
        self._answers(lanes.write, worker, flight.unit, flight.attempt)

    def _answers(self, at: float, worker: str, unit: str, attempt: int) -> None:
        def answer() -> None:
            self._tell(events.UnitDone(worker, unit, attempt, {}))
            self._take_up()

        self._at(at + ANSWER_SECONDS, answer)


def _shared(image: SimImage, number: int, unit: int) -> Shared:
    _, _, device, write = image.lanes(number, unit)
    batches = max(1, image.batches(number, unit))
    return Shared(batches, device / batches, image.seen(number, unit) / batches, write)
