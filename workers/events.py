"""The words that the run loop and the dispatcher exchange. Values only; decides nothing.

Events go in (what happened), instructions come out (what to do, in this order). An *attempt* is one
assignment of a unit, numbered per unit; a *failure* is an attempt that counts against its unit.

A unit is done in two steps, because a receipt is the only mark of completion: the dispatcher
answers ``UnitDone`` with ``Commit``; the loop makes the receipt durable and only then says
``Committed``. Receipts of several units may share one fsync.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Lane(IntEnum):
    """Where a worker has room for a unit: each kind of room is given away by itself."""

    STEP = 0
    """One that needs no device: it runs beside those that do."""
    GLANCE = 1
    """A sweep on which more work waits: it goes along with others, for it takes little."""
    SWEEP = 2
    """Any other."""


@dataclass(frozen=True, slots=True)
class UnitRef:
    """All that the dispatcher needs to know of a unit."""

    id: str
    """Hash of image, pass, level and write region; unique in a run."""
    image: str
    """Name of the image it belongs to."""
    kind: str
    """'sweep', 'select' or 'finalise'; carried, not interpreted."""
    nbytes: int = 0
    """Memory it is projected to hold while in flight."""
    order: int = 0
    """Place within its stage: lower goes first; ties keep the order in which units are listed."""
    family: str = ""
    """Units whose times compare, in all images: a kind and a pass. Empty where two attempts must
    not run side by side: such a unit gets no backup."""
    work: float = 1.0
    """Time it is expected to take beside others of its family; positive."""
    parts: int = 0
    """Batches, each of which another worker may answer ahead of it; 0 where nobody can help."""
    lane: Lane = Lane.SWEEP
    """Which room of a worker it takes."""
    urgency: int = 0
    """Of a step: lower goes first, whatever its image."""

    def __post_init__(self) -> None:
        if not self.id or not self.image or self.nbytes < 0 or self.work <= 0 or self.parts < 0:
            raise ValueError(
                f"a unit has an id, an image, nbytes >= 0, work > 0 and parts >= 0; found {self}"
            )


# ---------------------------------------------------------------------------- events: what happened


@dataclass(frozen=True, slots=True)
class StageReady:
    """An image's next stage can run. The first stage of an image fixes its place in the archive."""

    image: str
    """Which image; it has no other stage open."""
    stage: int
    """Number of the stage; higher than the image's earlier ones."""
    units: tuple[UnitRef, ...]
    """Every unit of the stage, done or not; may be empty."""
    already_done: Set[str] = frozenset()
    """Ids of units whose receipts are in the journal; others than this stage's are ignored."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failures per unit id that the journal knows of; absent means none."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Per unit id, why it failed the last time, for people; absent means unknown."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Per unit id, what the last failure is called; likewise."""
    suspects: Set[str] = frozenset()
    """Ids of units that were in flight when an earlier driver died with them: they run alone."""


@dataclass(frozen=True, slots=True)
class ImageDone:
    """The loop has nothing more to run for an image, whose stages are all complete."""

    image: str
    """Which image."""


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """An image is at fault for a reason found outside its units; it is quarantined."""

    image: str
    """Which image; unknown ones are quarantined too, so that the journal hears of it."""
    reason: str
    """For people."""


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker is ready. A name may come back after its earlier bearer was lost or left."""

    worker: str
    """Its name."""
    slots: int = 2
    """Most sweeps in flight, but for glances; positive."""
    nbytes: int | None = None
    """Most bytes in flight, a single larger unit excepted; None sets no limit."""
    host: str = ""
    """The machine that it runs on, for people; empty where that is not known."""
    glances: int = 1
    """Most glances in flight besides; positive."""
    steps: int = 1
    """Most steps in flight besides; positive."""

    def __post_init__(self) -> None:
        rooms = (self.slots, self.glances, self.steps)
        if min(rooms) < 1 or (self.nbytes is not None and self.nbytes < 0):
            raise ValueError(f"a worker has a slot or more of each and nbytes >= 0; found {self}")

    @property
    def room(self) -> Mapping[Lane, int]:
        """Most units in flight, by lane."""
        return {Lane.STEP: self.steps, Lane.GLANCE: self.glances, Lane.SWEEP: self.slots}


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died by itself: what it held may have killed it."""

    worker: str
    """Its name; one that is not known is no news."""
    reason: str
    """For people: exit code, signal, the scheduler's words."""


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker was ended on purpose (preempted, scaled down, cancelled): no unit is at fault."""

    worker: str
    """Its name; one that is not known is no news."""


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A worker wrote all shards of a unit."""

    worker: str
    """Who; possibly one that was thought lost."""
    unit: str
    """Id of the unit."""
    attempt: int
    """As in the ``Assign`` it answers."""
    receipt: Mapping[str, Any]
    """What the journal will hold."""


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """A worker raised an error for a unit, and lives."""

    worker: str
    """Who."""
    unit: str
    """Id of the unit."""
    attempt: int
    """As in the ``Assign`` it answers."""
    reason: str
    """For people."""
    retryable: bool = True
    """False where another attempt can only fail the same way."""
    error: str = ""
    """What it is called: carried, not interpreted; empty where that is not known."""
    passing: bool = False
    """Whether what was in the way may be over by itself soon: the next attempt waits for that."""


@dataclass(frozen=True, slots=True)
class UnitTimedOut:
    """A worker has not answered for a unit in time."""

    worker: str
    """Who."""
    unit: str
    """Id of the unit."""
    attempt: int
    """As in the ``Assign`` that was not answered."""


@dataclass(frozen=True, slots=True)
class HelpEnded:
    """A worker helps with a unit no more."""

    worker: str
    """Who."""
    unit: str
    """Id of the unit."""
    reason: str = ""
    """For people, where it failed; empty where it was told to stop, or nothing was left."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The receipt of a unit is durable: only now is the unit done."""

    unit: str
    """Id of the unit."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What time it is, for all events until the next one; the only clock that there is."""

    now_seconds: float
    """Since any moment; never falls."""


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Assign nothing more; finish what is in flight."""


Event = (
    StageReady
    | ImageDone
    | ImageFailed
    | WorkerJoined
    | WorkerLost
    | WorkerLeft
    | UnitDone
    | UnitFailed
    | UnitTimedOut
    | HelpEnded
    | Committed
    | Tick
    | DrainRequested
)

# ------------------------------------------------------------------------- instructions: what to do


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a unit to a worker."""

    worker: str
    """To whom."""
    unit: str
    """Id of the unit."""
    attempt: int
    """Number to repeat in the answer."""
    alone: bool = False
    """The unit is a suspect: nothing else is in flight there until it is answered for."""
    backup: bool = False
    """Another attempt runs elsewhere, and is late: whichever completes first is committed."""


@dataclass(frozen=True, slots=True)
class Help:
    """Let a worker answer batches of a unit ahead of the worker that has it, and store them.

    It is no attempt: it has no receipt, takes no slot, and what becomes of it is ``HelpEnded``.
    """

    worker: str
    """Who is to help."""
    unit: str
    """Id of the unit."""
    attempt: int
    """Number of the unit's latest attempt, for people."""


@dataclass(frozen=True, slots=True)
class StopHelping:
    """Let a worker help no more; it says ``HelpEnded``. It is not ended for it."""

    worker: str
    """Who helps."""
    unit: str
    """Id of the unit."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Make a receipt durable, then say ``Committed``."""

    unit: str
    """Id of the unit."""
    attempt: int
    """The attempt whose receipt this is."""
    worker: str
    """Who wrote the shards."""
    receipt: Mapping[str, Any]
    """As the worker gave it."""


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """Write a failure down, so that its count survives a restart."""

    image: str
    """Image of the unit."""
    unit: str
    """Id of the unit."""
    attempt: int
    """The attempt that failed."""
    reason: str
    """For people."""
    error: str = ""
    """As the worker called it, or the name of the event: of a death, of a time-out."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop an attempt on a worker, or end the worker and say ``WorkerLeft``.

    Until the worker answers for the attempt or is gone, the attempt keeps its slot and bytes, and
    the worker gets nothing new. A list may cancel several attempts on one worker.
    """

    worker: str
    """Where."""
    unit: str
    """Id of the unit."""
    attempt: int
    """Which attempt."""


@dataclass(frozen=True, slots=True)
class StageComplete:
    """Every unit of a stage is done; answer with ``StageReady`` or ``ImageDone``."""

    image: str
    """Which image."""
    stage: int
    """Number of the stage."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Set an image aside; none of its units runs any more."""

    image: str
    """Which image."""
    unit: str | None
    """Id of the unit at fault; None where the image itself is."""
    reason: str
    """For people: the last failure."""
    failures: int
    """How often the unit at fault failed, earlier runs included."""
    error: str = ""
    """What the last failure is called; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is in flight after ``DrainRequested``; said once."""


Instruction = (
    Assign
    | Help
    | StopHelping
    | Commit
    | RecordFailure
    | Cancel
    | StageComplete
    | Quarantine
    | Drained
)
