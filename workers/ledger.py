"""What the dispatcher remembers of images, stages and units. Knows no worker beyond its name.

Only open stages are remembered: a unit is forgotten when it is done, so that a completion that
comes later, or twice, is that of an unknown unit and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from saccade.workers.events import Lane, StageReady, UnitRef


class State(IntEnum):
    """Where a unit stands; a unit is in exactly one state."""

    WAITING = 0
    """In a line, or resting; never assigned, or its attempt failed or was given up."""
    RUNNING = 1
    """Assigned to a worker that is thought to be at it."""
    COMMITTING = 2
    """Written; its receipt is not yet durable."""
    DONE = 3
    """Its receipt is durable."""
    WITHDRAWN = 4
    """Its image was quarantined."""


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.RUNNING, State.COMMITTING, State.WITHDRAWN}),
    State.RUNNING: frozenset({State.WAITING, State.COMMITTING, State.WITHDRAWN}),
    State.COMMITTING: frozenset({State.DONE, State.WITHDRAWN}),
    State.DONE: frozenset(),
    State.WITHDRAWN: frozenset(),
}
"""Every move there is. A waiting unit commits when an attempt that was given up completes."""


@dataclass(slots=True, eq=False)
class Image:
    """An image in flight."""

    name: str
    """Its name."""
    arrival: int
    """Place in the archive: lower is served first."""
    last_stage: int = -1
    """Number of the latest stage that was opened."""
    stage: Stage | None = None
    """The stage that is open, if any."""
    open_at: Counter[Lane] = field(default_factory=Counter)
    """Workers that are thought to have it open, by the lane of what they do there."""


Held = tuple[str, int]
"""A worker, and the number of the attempt that it has."""


@dataclass(slots=True, eq=False)
class Entry:
    """One unit of an open stage, and where it stands."""

    ref: UnitRef
    """The unit."""
    stage: Stage
    """Where it belongs."""
    place: int
    """Place within the stage, kept for good: a unit that runs again is ahead of what never ran."""
    failures: int
    """Attempts that count against it, earlier runs included."""
    suspect: bool
    """Whether it was in flight when a worker died: it runs alone from then on."""
    attempt: int
    """Number of the latest attempt; the first one is ``failures + 1``."""
    state: State = State.WAITING
    """Where it stands."""
    held: tuple[Held, ...] = ()
    """Attempts that count, while it runs: one, and perhaps a backup."""
    met_passing: int = 0
    """How often it failed for what may pass; it waits longer each time."""
    backed_up: bool = False
    """Whether it ever had a backup: it gets no other."""
    helped: bool = False
    """Whether anybody ever helped: what it took says nothing of others."""
    help_over: bool = False
    """Whether help failed, or found nothing left to do: it gets no other until it begins again."""
    deadly: bool = False
    """Whether a worker died while it helped: nobody else is asked, ever."""

    def move(self, to: State) -> None:
        """Change state, by the table."""
        if to not in TRANSITIONS[self.state]:
            raise AssertionError(f"unit {self.ref.id} can't go from {self.state!r} to {to!r}")
        self.stage.counts[self.state] -= 1
        self.stage.counts[to] += 1
        self.state = to
        self.held = ()

    def start(self, worker: str) -> None:
        """Begin the next attempt, beside one that runs if there is one."""
        if self.state is State.RUNNING:
            self.backed_up = True
        else:
            self.move(State.RUNNING)
            self.help_over = False
        self.attempt += 1
        self.held += ((worker, self.attempt),)

    def give_up(self, held: Held) -> None:
        """Count an attempt no more; the unit waits unless another one runs."""
        left = tuple(one for one in self.held if one != held)
        if left:
            self.held = left
        else:
            self.move(State.WAITING)

    @property
    def owned_since(self) -> int:
        """Number of the oldest attempt that counts, while it runs; else of the next one."""
        return min((attempt for _, attempt in self.held), default=self.attempt + 1)

    def runs_as(self, worker: str, attempt: int) -> bool:
        """Whether this attempt, of this worker, is one that counts now."""
        return (worker, attempt) in self.held


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage is, in units."""

    stage: int
    """Number of the stage."""
    waiting: int
    """Not assigned."""
    running: int
    """Assigned."""
    committing: int
    """Written, not yet durable."""
    done: int
    """Durable, earlier runs included."""

    @property
    def total(self) -> int:
        """All units of the stage."""
        return self.waiting + self.running + self.committing + self.done


@dataclass(slots=True, eq=False)
class Stage:
    """An image's open stage."""

    image: Image
    """Whose."""
    number: int
    """Its number."""
    entries: list[Entry] = field(default_factory=list)
    """Units that were not done when it opened, in their order."""
    counts: list[int] = field(default_factory=lambda: [0] * len(State))
    """Units per state."""

    @classmethod
    def opened(cls, image: Image, event: StageReady) -> Stage:
        """The stage of an event, in which only what is not done waits."""
        stage = cls(image, event.stage)
        done = event.already_done
        missing = sorted((u for u in event.units if u.id not in done), key=lambda u: u.order)
        for place, unit in enumerate(missing):
            failures = event.failures.get(unit.id, 0)
            suspect = unit.id in event.suspects
            stage.entries.append(Entry(unit, stage, place, failures, suspect, attempt=failures))
        stage.counts[State.WAITING] = len(missing)
        stage.counts[State.DONE] = len(event.units) - len(missing)
        return stage

    @property
    def complete(self) -> bool:
        """Whether every unit is done."""
        return self.counts[State.WAITING : State.DONE] == [0, 0, 0]

    @property
    def half_done(self) -> bool:
        """Whether, of the units beside any one that runs, half are written."""
        written = self.counts[State.COMMITTING] + self.counts[State.DONE]
        return 2 * written >= sum(self.counts) - 1

    def progress(self) -> StageProgress:
        """How far it is."""
        return StageProgress(self.number, *self.counts[: State.WITHDRAWN])

    def check(self) -> None:
        """Raise AssertionError where counts are wrong, or a stage that is open is complete."""
        states = [entry.state for entry in self.entries]
        assert not self.complete, f"{self.number} of {self.image.name} is complete but open"
        for state in (State.WAITING, State.RUNNING, State.COMMITTING, State.WITHDRAWN):
            assert self.counts[state] == states.count(state), (self.number, state)


def check_stage_ready(event: StageReady, image: Image) -> None:
    """Refuse a stage that the run loop should not have announced."""
    name = f"stage {event.stage} of image {event.image!r}"
    if image.stage is not None:
        raise ValueError(
            f"{name} announced while stage {image.stage.number} is open; close it first"
        )
    if event.stage <= image.last_stage:
        raise ValueError(f"{name} announced after stage {image.last_stage}; numbers must rise")
    if len({unit.id for unit in event.units}) < len(event.units):
        raise ValueError(f"{name} lists a unit twice; unit ids are unique")
    if strangers := [unit.id for unit in event.units if unit.image != event.image]:
        raise ValueError(f"{name} lists units of other images: {strangers[:3]}")
