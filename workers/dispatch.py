"""Which unit runs where, and when a stage is complete: events in, instructions out.

A pure state machine: no clock, no I/O, no thread, no randomness; the same events give the same
instructions. It knows neither what a unit does nor how a worker is reached.

* A worker has room for steps, for glances and for other sweeps, each by itself, so that what the
  device will need is chosen and looked at while it is busy; steps go by urgency.
* A worker with room goes on with an image that it has open, then takes one that nobody has, then
  steals from the oldest (``lines``); each image's units go in their order. A unit keeps its place:
  one that runs again is ahead of those that never ran. A worker whose turn falls on a unit that it
  has no room for waits until it has, so that large units don't starve.
* Units are idempotent and their writes atomic, so a unit may run again anywhere, and whichever
  attempt completes first is committed, even one that was given up. Attempts that are overtaken are
  not cancelled: what they still put into place are the same bytes.
* Where nothing waits and a worker is idle, a unit that is late (``straggling``) gets a backup: one
  in its life, once half of its stage is written. A backup is no failure, and both attempts count:
  the unit goes on while either does, and what fails is charged as ever. Suspects get none.
* Who is idle still helps (``helping``) with a unit that will take a while: it answers batches that
  the unit's worker then need not. Help is no attempt: it commits nothing and takes no slot, what
  becomes of it is charged to nobody, and it is told to stop when the unit ends or a unit comes.
* A failure is: an error that a worker raised, a time-out, or a death with nothing else in flight.
  When a worker dies with several units in flight, each is a *suspect* and runs alone from then on.
  At ``max_failures`` the unit's image is quarantined.
* A unit that failed for what may pass rests before its next attempt (``resting``), each time for
  longer; nothing waits for it but the end of its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from saccade.workers.events import (
    Assign,
    Cancel,
    Commit,
    Committed,
    Drained,
    DrainRequested,
    Event,
    HelpEnded,
    ImageDone,
    ImageFailed,
    Instruction,
    Lane,
    Quarantine,
    RecordFailure,
    StageComplete,
    StageReady,
    Tick,
    UnitDone,
    UnitFailed,
    UnitTimedOut,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from saccade.workers.helping import HELP_RULE, HelpRule, end_help, help_to_give, stop_helping
from saccade.workers.ledger import (
    Entry,
    Held,
    Image,
    Stage,
    StageProgress,
    State,
    check_stage_ready,
)
from saccade.workers.lines import LanesLines, Line
from saccade.workers.resting import Resting, pause_seconds
from saccade.workers.roster import Copy, Roster, Worker
from saccade.workers.straggling import Paces

Told = Iterator[Instruction]
Failing = UnitFailed | UnitTimedOut | WorkerLost


class Dispatcher:
    """Assigns units to workers until every stage is complete.

    Args:
        max_failures: failures of one unit after which its image is quarantined; positive.
        help_rule: which units idle workers help with.
    """

    def __init__(self, max_failures: int = 3, help_rule: HelpRule = HELP_RULE) -> None:
        if max_failures < 1:
            raise ValueError(f"max_failures is 1 or more; found {max_failures}")
        self._max_failures = max_failures
        self._help_rule = help_rule
        self._images: dict[str, Image] = {}
        self._units: dict[str, Entry] = {}
        self._lines, self._suspects, self._resting = LanesLines(), Line(), Resting()
        self._roster = Roster()
        self._paces = Paces()
        self._now_seconds = 0.0
        self._arrivals = 0
        self._committing = 0
        self._draining = False
        self._said_drained = False

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event in; the instructions that follow are to be obeyed in this order.

        Raises:
            ValueError: the run loop announced what can't be (a stage or worker twice, ...); nothing
                has changed then.
        """
        told = list(_HANDLERS[type(event)](self, event))
        told.extend(self._assignments())
        told.extend(self._drained())
        return told

    @property
    def idle(self) -> bool:
        """Whether no stage is open and nothing is in flight."""
        return not (self._units or self._roster.copies_in_flight)

    def progress(self) -> dict[str, StageProgress]:
        """Counts of the open stage of each image that has one, oldest image first."""
        open_stages = (image.stage for image in self._images.values() if image.stage)
        return {stage.image.name: stage.progress() for stage in open_stages}

    # ------------------------------------------------------------------------ images and stages

    def _stage_ready(self, event: StageReady) -> Told:
        image = self._images.get(event.image) or Image(event.image, self._arrivals)
        check_stage_ready(event, image)
        stage = Stage.opened(image, event)
        if known := [e.ref.id for e in stage.entries if e.ref.id in self._units]:
            raise ValueError(f"stage {event.stage} of {event.image!r} repeats units {known[:3]}")
        self._register(image, stage)
        worst = max(stage.entries, key=lambda entry: entry.failures, default=None)
        if worst and worst.failures >= self._max_failures:
            reason = f"failed {worst.failures} times in earlier runs"
            if last := event.reasons.get(worst.ref.id):
                reason += f", the last time: {last}"
            error = event.errors.get(worst.ref.id, "")
            yield from self._quarantine(image.name, worst, reason, error)
        else:
            yield from self._complete_if_done(stage)

    def _register(self, image: Image, stage: Stage) -> None:
        if image.name not in self._images:
            self._images[image.name] = image
            self._arrivals += 1
        image.stage, image.last_stage = stage, stage.number
        self._units.update((entry.ref.id, entry) for entry in stage.entries)
        for entry in stage.entries:
            self._enqueue(entry)

    def _complete_if_done(self, stage: Stage) -> Told:
        if stage.complete:
            stage.image.stage = None
            yield StageComplete(stage.image.name, stage.number)

    def _image_done(self, event: ImageDone) -> Told:
        image = self._images.get(event.image)
        if image and image.stage:
            raise ValueError(
                f"image {event.image!r} called done while stage {image.stage.number} is open"
            )
        self._images.pop(event.image, None)
        return iter(())

    def _image_failed(self, event: ImageFailed) -> Told:
        return self._quarantine(event.image, None, event.reason)

    def _quarantine(self, name: str, culprit: Entry | None, reason: str, error: str = "") -> Told:
        unit, failures = (culprit.ref.id, culprit.failures) if culprit else (None, 0)
        yield Quarantine(name, unit, reason, failures, error)
        image = self._images.pop(name, None)
        for entry in image.stage.entries if image and image.stage else ():
            yield from self._withdraw(entry)

    def _withdraw(self, entry: Entry) -> Told:
        if entry.state is State.DONE:
            return
        for held in entry.held:
            yield self._cancel(entry, held)
        yield from stop_helping(self._roster, entry)
        self._committing -= entry.state is State.COMMITTING
        entry.move(State.WITHDRAWN)
        del self._units[entry.ref.id]

    # ---------------------------------------------------------------------------------- workers

    def _worker_joined(self, event: WorkerJoined) -> Told:
        self._roster.join(event)
        return iter(())

    def _worker_left(self, event: WorkerLeft) -> Told:
        worker = self._roster.remove(event.worker)
        for copy in worker.counting() if worker else ():
            self._give_up(copy.entry, (event.worker, copy.attempt))
        return iter(())

    def _worker_lost(self, event: WorkerLost) -> Told:
        worker = self._roster.remove(event.worker)
        if worker is not None:
            if worker.helping:
                worker.helping.entry.deadly = True
            for copy in worker.counting():
                yield from self._outlive(copy, worker, event)

    def _outlive(self, copy: Copy, dead: Worker, event: WorkerLost) -> Told:
        # what was cancelled there explains the death, and has been charged for
        entry, held = copy.entry, (dead.name, copy.attempt)
        entry.suspect |= not dead.stopping
        if entry.suspect:
            yield from stop_helping(self._roster, entry)
        if len(dead.copies) == 1 and dead.helping is None:
            yield from self._fail(event, entry, held, f"worker {dead.name} died: {event.reason}")
        else:
            self._give_up(entry, held)

    # ------------------------------------------------------------------------------------ units

    def _unit_done(self, event: UnitDone) -> Told:
        seconds = self._roster.finish(event.worker, event.unit, event.attempt, self._now_seconds)
        entry = self._units.get(event.unit)
        if entry is None or not 0 < event.attempt <= entry.attempt:
            return
        if seconds is not None and not entry.helped:
            self._paces.learn(entry.ref, seconds)
        if entry.state is not State.COMMITTING:
            entry.move(State.COMMITTING)
            self._committing += 1
            yield Commit(event.unit, event.attempt, event.worker, event.receipt)
            yield from stop_helping(self._roster, entry)

    def _committed(self, event: Committed) -> Told:
        entry = self._units.get(event.unit)
        if entry is None:
            return
        if entry.state is not State.COMMITTING:
            raise ValueError(f"unit {event.unit} called committed while {entry.state.name.lower()}")
        entry.move(State.DONE)
        self._committing -= 1
        del self._units[event.unit]
        yield from self._complete_if_done(entry.stage)

    def _unit_failed(self, event: UnitFailed) -> Told:
        self._roster.finish(event.worker, event.unit, event.attempt, self._now_seconds)
        entry = self._units.get(event.unit)
        if entry and entry.runs_as(event.worker, event.attempt):
            yield from self._fail(event, entry, (event.worker, event.attempt), event.reason)

    def _unit_timed_out(self, event: UnitTimedOut) -> Told:
        entry = self._units.get(event.unit)
        if entry and entry.runs_as(event.worker, event.attempt):
            held = (event.worker, event.attempt)
            yield self._cancel(entry, held)
            reason = f"worker {event.worker} did not answer in time"
            yield from self._fail(event, entry, held, reason)

    def _help_ended(self, event: HelpEnded) -> Told:
        end_help(self._roster, event)
        return iter(())

    def _cancel(self, entry: Entry, held: Held) -> Cancel:
        worker, attempt = held
        self._roster.cancel(worker, entry.ref.id)
        return Cancel(worker, entry.ref.id, attempt)

    def _fail(self, event: Failing, entry: Entry, held: Held, reason: str) -> Told:
        error = event.error if isinstance(event, UnitFailed) else type(event).__name__
        hopeless = isinstance(event, UnitFailed) and not event.retryable
        entry.failures += 1
        entry.met_passing += (passing := isinstance(event, UnitFailed) and event.passing)
        self._give_up(entry, held, passing)
        yield RecordFailure(entry.ref.image, entry.ref.id, held[1], reason, error)
        if hopeless or entry.failures >= self._max_failures:
            yield from self._quarantine(entry.ref.image, entry, reason, error)

    def _give_up(self, entry: Entry, held: Held, passing: bool = False) -> None:
        entry.give_up(held)
        if entry.state is State.WAITING and passing:
            self._resting.push(entry, self._now_seconds + pause_seconds(entry.met_passing))
        elif entry.state is State.WAITING:
            self._enqueue(entry)

    def _enqueue(self, entry: Entry) -> None:
        (self._suspects if entry.suspect else self._lines).push(entry)

    # -------------------------------------------------------------------------------- assigning

    def _assignments(self) -> Told:
        if self._draining:
            return
        while self._suspects.head() and (worker := self._roster.empty()):
            yield from self._assign(self._suspects.pop(), worker)
        if self._suspects.head():  # alone means beside no help either
            yield from stop_helping(self._roster)
        self._roster.keep_for_suspects(len(self._suspects))
        for lane in Lane:
            while match := self._match(lane):
                self._lines.take(match[1])
                yield from self._assign(match[1], match[0])

    def _match(self, lane: Lane) -> tuple[Worker, Entry] | None:
        """The next worker to be given a unit of a lane, and that unit."""
        if self._lines.head(lane) is None:
            return None
        for worker in self._roster.open_workers(lane):
            entry = self._lines.turn(lane, worker.images)
            if entry and worker.has_room(entry.ref):
                return worker, entry
        return None

    def _assign(self, entry: Entry, worker: Worker, backup: bool = False) -> Told:
        if worker.helping:
            yield from stop_helping(self._roster, worker.helping.entry, worker)
        entry.start(worker.name)
        alone = entry.suspect
        self._roster.start(worker, entry, alone, self._now_seconds)
        yield Assign(worker.name, entry.ref.id, entry.attempt, alone, backup)

    def _tick(self, event: Tick) -> Told:
        """Give idle workers something to do: what has rested, is late, or can be helped with."""
        self._now_seconds = max(self._now_seconds, event.now_seconds)
        for entry in self._resting.due(self._now_seconds):
            self._enqueue(entry)
        if self._draining or self._suspects.head() or any(map(self._lines.head, Lane)):
            return
        yield from self._back_up()
        yield from help_to_give(self._roster, self._paces, self._now_seconds, self._help_rule)

    def _back_up(self) -> Told:
        """One unit per idle worker."""
        idle = self._roster.empty()
        for copy in self._roster.worth_another(self._now_seconds, self._paces) if idle else ():
            if idle is None:
                return
            if _may_be_backed_up(copy.entry):
                yield from self._assign(copy.entry, idle, backup=True)
                idle = self._roster.empty()

    def _drain_requested(self, event: DrainRequested) -> Told:
        self._draining = True
        return iter(())

    def _drained(self) -> Told:
        in_flight = self._roster.copies_in_flight or self._committing
        if self._draining and not self._said_drained and not in_flight:
            self._said_drained = True
            yield Drained()

    # ------------------------------------------------------------------------------- invariants

    def check_invariants(self) -> None:
        """Raise AssertionError where the books don't balance; reads everything, for tests."""
        self._roster.check()
        stages = [image.stage for image in self._images.values() if image.stage]
        entries = [e for s in stages for e in s.entries if e.state is not State.DONE]
        assert self._units == {e.ref.id: e for e in entries}
        assert all(e.failures < self._max_failures for e in entries)
        for stage in stages:
            stage.check()
        assert self._committing == sum(stage.counts[State.COMMITTING] for stage in stages)
        waiting = [e for e in entries if e.state is State.WAITING]
        lined_up = self._lines.waiting() + self._suspects.waiting() + self._resting.waiting()
        assert sorted(map(id, waiting)) == sorted(map(id, lined_up))
        running = [e for e in entries if e.state is State.RUNNING]
        assert all(1 <= len(e.held) <= 1 + e.backed_up for e in running)
        assert all(not e.held for e in entries if e.state is not State.RUNNING)
        for worker in self._roster:
            assert not (worker.helping and worker.helping.entry.ref.parts < 1), worker
        held = [(id(e), attempt) for e in running for _, attempt in e.held]
        counting = [(id(c.entry), c.attempt) for worker in self._roster for c in worker.counting()]
        assert sorted(held) == sorted(counting)


def _may_be_backed_up(entry: Entry) -> bool:
    return entry.stage.half_done and not (entry.backed_up or entry.suspect)


_HANDLERS: Mapping[type[Event], Callable[[Dispatcher, Any], Told]] = {
    StageReady: Dispatcher._stage_ready,
    ImageDone: Dispatcher._image_done,
    ImageFailed: Dispatcher._image_failed,
    WorkerJoined: Dispatcher._worker_joined,
    WorkerLeft: Dispatcher._worker_left,
    WorkerLost: Dispatcher._worker_lost,
    UnitDone: Dispatcher._unit_done,
    UnitFailed: Dispatcher._unit_failed,
    UnitTimedOut: Dispatcher._unit_timed_out,
    HelpEnded: Dispatcher._help_ended,
    Committed: Dispatcher._committed,
    Tick: Dispatcher._tick,
    DrainRequested: Dispatcher._drain_requested,
}
