"""Any order of events commits every unit exactly once, whatever dies, hangs, lies or comes late.

``World`` plays the workers and keeps books of its own, from instructions only.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from saccade.workers.dispatch import Dispatcher
from saccade.workers.events import (
    Assign,
    Cancel,
    Commit,
    Committed,
    Drained,
    DrainRequested,
    Event,
    Help,
    HelpEnded,
    ImageDone,
    Instruction,
    Lane,
    Quarantine,
    RecordFailure,
    StageComplete,
    StageReady,
    StopHelping,
    Tick,
    UnitDone,
    UnitFailed,
    UnitRef,
    UnitTimedOut,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from saccade.workers.helping import HelpRule
from saccade.workers.resting import pause_seconds
from saccade.workers.straggling import LEAST_SECONDS, Paces

Attempt = tuple[str, str, int]
"""Worker, unit, number of the attempt."""
PICK = st.integers(0, 10**6)
STAGES = 3
NEVER = 10**6
FAMILIES = ("sweep 1", "sweep 1", "")
PARTS = (11, 2, 0)


class Eager(Paces):
    """Expects so little time of a unit that many get a backup."""

    def expected_seconds(self, ref: UnitRef) -> float | None:
        """The least that is worth one."""
        return LEAST_SECONDS if ref.family else None


class World(RuleBasedStateMachine):
    """A run loop and its workers, in which anything may happen next."""

    workers = Bundle("workers")

    @initialize(max_failures=st.sampled_from([1, 2, 3, NEVER]), most=st.sampled_from([0, 1, None]))
    def start(self, max_failures: int, most: int | None) -> None:
        self.max_failures = max_failures
        self.dispatcher = Dispatcher(max_failures, HelpRule(0.0, 0.0, most))
        self.most_helpers = NEVER if most is None else most
        self.dispatcher._paces = Eager()
        self.units: dict[str, UnitRef] = {}
        self.open_stage: dict[str, StageReady] = {}
        self.limits: dict[str, WorkerJoined] = {}
        self.held: dict[str, dict[str, Attempt]] = {}
        self.alone: set[Attempt] = set()
        self.counting: dict[str, set[Attempt]] = {}
        self.backed_up: set[str] = set()
        self.helping: dict[str, str] = {}
        self.stopping: set[str] = set()
        self.now_seconds = 0.0
        self.passed: Counter[str] = Counter()
        self.resting: dict[str, float] = {}
        self.zombies: list[Attempt] = []
        self.answered: list[Attempt] = []
        self.to_commit: list[str] = []
        self.committed: set[str] = set()
        self.failures: Counter[str] = Counter()
        self.complete: list[tuple[str, int]] = []
        self.to_follow: list[StageReady] = []
        self.quarantined: set[str] = set()
        self.draining = False
        self.drained = 0

    # ------------------------------------------------------------------------- what may happen

    @rule(sizes=st.lists(st.integers(0, 40), max_size=5), resumed=PICK)
    def new_image(self, sizes: list[int], resumed: int) -> None:
        self.announce(f"image{len({*self.stages_seen})}", 0, sizes, resumed)

    @precondition(lambda self: self.to_follow)
    @rule(pick=PICK, sizes=st.lists(st.integers(0, 40), max_size=5))
    def next_stage(self, pick: int, sizes: list[int]) -> None:
        last = self.to_follow.pop(pick % len(self.to_follow))
        if last.stage + 1 < STAGES:
            self.announce(last.image, last.stage + 1, sizes, resumed=0)
        else:
            self.tell(ImageDone(last.image))

    @rule(slots=st.integers(1, 3), nbytes=st.none() | st.integers(0, 60))
    def join(self, slots: int, nbytes: int | None) -> None:
        event = WorkerJoined(f"worker{len(self.limits)}", slots, nbytes)
        self.limits[event.worker] = event
        self.held[event.worker] = {}
        self.tell(event)

    @precondition(lambda self: self.in_flight or self.zombies)
    @rule(pick=PICK)
    def complete_one(self, pick: int) -> None:
        attempts = [*self.in_flight, *self.zombies]
        self.answer(attempts[pick % len(attempts)])

    @precondition(lambda self: self.answered)
    @rule(pick=PICK)
    def answer_again(self, pick: int) -> None:
        worker, unit, attempt = self.answered[pick % len(self.answered)]
        told = self.tell(UnitDone(worker, unit, attempt, {}))
        assert not any(isinstance(i, Commit) for i in told)

    @precondition(lambda self: self.in_flight)
    @rule(pick=PICK)
    def meet_what_may_pass(self, pick: int) -> None:
        chosen = self.in_flight[pick % len(self.in_flight)]
        unit = chosen[1]
        counts = chosen in self.counting.get(unit, ())
        self.release(chosen)
        self.passed[unit] += counts
        if counts and unit not in self.counting:
            self.resting[unit] = self.now_seconds + pause_seconds(self.passed[unit])
        told = self.tell(UnitFailed(*chosen, "full", passing=True))
        assert any(isinstance(i, RecordFailure) for i in told) == counts

    @precondition(lambda self: self.in_flight)
    @rule(pick=PICK, retryable=st.sampled_from([True, True, False]))
    def fail_one(self, pick: int, retryable: bool) -> None:
        chosen = self.in_flight[pick % len(self.in_flight)]
        counts = chosen in self.counting.get(chosen[1], ())
        self.release(chosen)
        told = self.tell(UnitFailed(*chosen, "raised", retryable))
        assert any(isinstance(i, RecordFailure) for i in told) == counts
        if counts and not retryable:
            assert self.units[chosen[1]].image in self.quarantined

    @precondition(lambda self: self.in_flight)
    @rule(pick=PICK)
    def time_out(self, pick: int) -> None:
        chosen = self.in_flight[pick % len(self.in_flight)]
        counts = chosen in self.counting.get(chosen[1], ())
        self.count_out(chosen)
        told = self.tell(UnitTimedOut(*chosen))
        assert (told[:1] == [Cancel(*chosen)]) == counts

    @precondition(lambda self: self.held)
    @rule(pick=PICK, on_purpose=st.booleans())
    def end_worker(self, pick: int, on_purpose: bool) -> None:
        worker = sorted(self.held)[pick % len(self.held)]
        held = self.held.pop(worker)
        helped = self.helping.pop(worker, None)
        self.stopping.discard(worker)
        self.zombies += held.values()
        for attempt in held.values():
            self.count_out(attempt)
        told = self.tell(WorkerLeft(worker) if on_purpose else WorkerLost(worker, "signal 9"))
        charged = [i for i in told if isinstance(i, RecordFailure)]
        assert len(charged) <= (len(held) == 1 and not on_purpose and helped is None)
        assert self.tell(WorkerLost(worker, "again")) == []

    @precondition(lambda self: self.helping)
    @rule(pick=PICK, reason=st.sampled_from(["", "raised"]))
    def end_help(self, pick: int, reason: str) -> None:
        worker = sorted(self.helping)[pick % len(self.helping)]
        self.stopping.discard(worker)
        told = self.tell(HelpEnded(worker, self.helping.pop(worker), reason))
        assert not any(isinstance(i, RecordFailure | Quarantine | Cancel) for i in told)

    @precondition(lambda self: self.to_commit)
    @rule(pick=PICK)
    def commit_one(self, pick: int) -> None:
        unit = self.to_commit.pop(pick % len(self.to_commit))
        self.committed.add(unit)
        self.tell(Committed(unit))

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        rested = {*self.resting}
        self.now_seconds += seconds
        told = self.tell(Tick(self.now_seconds))
        assert all(isinstance(i, Help | StopHelping | Assign) for i in told)
        assert all(i.backup or i.unit in rested for i in told if isinstance(i, Assign))

    @precondition(lambda self: len(self.answered) > 5)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self.tell(DrainRequested())

    # ------------------------------------------------------------------- what must hold, always

    @invariant()
    def the_books_balance(self) -> None:
        self.dispatcher.check_invariants()

    @invariant()
    def no_worker_is_empty_while_units_wait(self) -> None:
        waiting = self.wait_for_a_worker()
        # one that is to run alone waits until the help is over that was told to stop
        empty = [w for w, held in self.held.items() if not held and w not in self.stopping]
        assert not (waiting and empty) or self.draining

    @invariant()
    def help_is_for_units_that_run_or_may_run_again(self) -> None:
        for worker, unit in self.helping.items():
            over = unit in self.committed or unit in self.to_commit
            over |= self.units[unit].image in self.quarantined
            assert not over or worker in self.stopping
            assert not self.held[worker] or worker in self.stopping

    @invariant()
    def progress_is_what_happened(self) -> None:
        for image, progress in self.dispatcher.progress().items():
            units = {unit.id for unit in self.open_stage[image].units}
            assert progress.total == len(units)
            assert progress.done == len(units & self.committed)
            assert progress.running == len(units & self.counting.keys() - {*self.to_commit})

    @invariant()
    def a_drain_is_over_exactly_when_nothing_is_in_flight(self) -> None:
        pending = [u for u in self.to_commit if self.units[u].image not in self.quarantined]
        if self.draining and not self.in_flight and not pending:
            assert self.drained == 1
        assert self.drained <= self.draining

    def teardown(self) -> None:
        """Let the run end undisturbed: then everything is committed, once, and every stage told."""
        if not hasattr(self, "dispatcher"):
            return
        self.join(2, 31)
        while self.helping:
            self.end_help(0, "")
        while self.in_flight or self.to_commit or self.to_follow or self.rest():
            self.time_passes(100.0)
            while self.in_flight:
                self.answer(self.in_flight[0])
            while self.to_commit:
                self.commit_one(0)
            while self.to_follow:
                self.next_stage(0, [3, 5, 7])
        self.the_books_balance()
        if self.draining:
            assert self.drained == 1
            return
        well = {unit for unit, ref in self.units.items() if ref.image not in self.quarantined}
        assert well <= self.committed
        images = {ref.image for ref in self.stages_seen.values()} - self.quarantined
        assert {*self.complete} >= {(image, n) for image in images for n in range(STAGES)}
        assert self.dispatcher.idle

    # ------------------------------------------------------------------ the world's own books

    @property
    def in_flight(self) -> list[Attempt]:
        return [attempt for held in self.held.values() for attempt in held.values()]

    @property
    def stages_seen(self) -> dict[tuple[str, int], StageReady]:
        return self.__dict__.setdefault("_stages_seen", {})

    def announce(self, image: str, number: int, sizes: list[int], resumed: int) -> None:
        refs = tuple(
            UnitRef(
                f"{image}/{number}/{n}",
                image,
                "sweep",
                nbytes,
                n % 3,
                FAMILIES[n % 3],
                parts=PARTS[n % 3],
                lane=Lane(max(0, 2 - n // 2)),
                urgency=n % 2,
            )
            for n, nbytes in enumerate(sizes)
        )
        already = frozenset(ref.id for n, ref in enumerate(refs) if resumed >> n & 1)
        event = StageReady(image, number, refs, already)
        self.units |= {ref.id: ref for ref in refs}
        self.committed |= already
        self.open_stage[image] = self.stages_seen[image, number] = event
        self.tell(event)

    def answer(self, chosen: Attempt) -> None:
        worker, unit, attempt = chosen
        known = unit in self.committed or unit in self.to_commit
        known |= self.units[unit].image in self.quarantined
        self.release(chosen)
        self.answered.append(chosen)
        told = self.tell(UnitDone(worker, unit, attempt, {"from": worker}))
        expected = [] if known else [Commit(unit, attempt, worker, {"from": worker})]
        assert [i for i in told if isinstance(i, Commit)] == expected

    def release(self, chosen: Attempt) -> None:
        worker, unit, _ = chosen
        if chosen in self.zombies:
            self.zombies.remove(chosen)
        else:
            del self.held[worker][unit]
        self.count_out(chosen)

    def count_out(self, chosen: Attempt) -> None:
        """One attempt less that counts."""
        held = self.counting.get(chosen[1], set())
        held.discard(chosen)
        if not held:
            self.counting.pop(chosen[1], None)

    def rest(self) -> set[str]:
        """Units that nobody may be given yet; none of a run that drains will be."""
        over = {*self.committed, *self.to_commit}
        over |= {unit for unit in self.resting if self.units[unit].image in self.quarantined}
        resting = {unit for unit, until in self.resting.items() if until > self.now_seconds}
        return set() if self.draining else resting - over

    def wait_for_a_worker(self) -> int:
        """How many units nothing but the want of a worker keeps waiting."""
        waiting = sum(p.waiting for p in self.dispatcher.progress().values())
        return waiting - len(self.rest())

    def check_backup(self, told: Assign) -> None:
        """A unit gets one, where nobody has anything better to do."""
        unit = self.units[told.unit]
        assert unit.family, "two attempts of what must run once at a time"
        assert not self.held[told.worker], "a backup on a worker that is busy"
        assert told.worker not in self.helping, "a backup on a worker that helps"
        assert not self.wait_for_a_worker(), "others wait"
        assert told.unit not in self.backed_up, "a second backup"
        assert len(self.counting[told.unit]) == 1
        assert not self.alone & self.counting[told.unit], "a backup of a suspect"
        self.backed_up.add(told.unit)

    def tell(self, event: Event) -> list[Instruction]:
        told = self.dispatcher.handle(event)
        for instruction in told:
            getattr(self, f"on_{type(instruction).__name__}")(instruction)
        return told

    def on_Assign(self, told: Assign) -> None:  # noqa: N802
        unit, held, limits = self.units[told.unit], self.held[told.worker], self.limits[told.worker]
        chosen = (told.worker, told.unit, told.attempt)
        assert not self.draining
        assert unit.image not in self.quarantined
        assert unit.id not in self.committed
        assert unit.id not in self.to_commit
        assert self.resting.pop(unit.id, 0.0) <= self.now_seconds, "it has not rested"
        if told.backup:
            self.check_backup(told)
        else:
            assert unit.id not in self.counting, "running twice, and neither copy was given up"
        assert not self.alone & {*held.values()}, "something beside a suspect"
        assert not (told.alone and held), "a suspect beside something"
        assert not (told.alone and told.worker in self.helping), "a suspect beside help"
        assert told.worker not in self.helping or told.worker in self.stopping
        held[unit.id] = chosen
        self.counting.setdefault(unit.id, set()).add(chosen)
        self.alone |= {chosen} if told.alone else set()
        taken = Counter(self.units[u].lane for u in held)
        assert all(taken[lane] <= most for lane, most in limits.room.items())
        nbytes = sum(self.units[u].nbytes for u in held)
        assert len(held) == 1 or limits.nbytes is None or nbytes <= limits.nbytes

    def on_Help(self, told: Help) -> None:  # noqa: N802
        assert not self.draining
        assert not self.held[told.worker], "help from a worker that has something to do"
        assert told.worker not in self.helping, "help with two units at once"
        assert not self.wait_for_a_worker(), "others wait"
        assert self.counting[told.unit], "help with a unit that nobody has"
        assert not self.alone & self.counting[told.unit], "help with a suspect"
        assert self.units[told.unit].parts > 1
        assert [*self.helping.values()].count(told.unit) < self.most_helpers
        self.helping[told.worker] = told.unit

    def on_StopHelping(self, told: StopHelping) -> None:  # noqa: N802
        assert self.helping[told.worker] == told.unit
        assert told.worker not in self.stopping, "told twice"
        self.stopping.add(told.worker)

    def on_Commit(self, told: Commit) -> None:  # noqa: N802
        assert told.unit not in self.committed
        assert told.unit not in self.to_commit
        self.counting.pop(told.unit, None)
        self.to_commit.append(told.unit)

    def on_RecordFailure(self, told: RecordFailure) -> None:  # noqa: N802
        assert told.image == self.units[told.unit].image
        for attempt in [a for a in self.counting.get(told.unit, ()) if a[2] == told.attempt]:
            self.count_out(attempt)
        self.failures[told.unit] += 1

    def on_Cancel(self, told: Cancel) -> None:  # noqa: N802
        assert self.held[told.worker][told.unit] == (told.worker, told.unit, told.attempt)
        self.count_out((told.worker, told.unit, told.attempt))

    def on_StageComplete(self, told: StageComplete) -> None:  # noqa: N802
        stage = self.open_stage.pop(told.image)
        assert stage.stage == told.stage
        assert (told.image, told.stage) not in self.complete
        assert {unit.id for unit in stage.units} <= self.committed
        self.complete.append((told.image, told.stage))
        self.to_follow.append(stage)

    def on_Quarantine(self, told: Quarantine) -> None:  # noqa: N802
        assert told.image not in self.quarantined
        assert told.unit is not None
        assert told.failures == self.failures[told.unit] <= self.max_failures
        self.quarantined.add(told.image)

    def on_Drained(self, told: Drained) -> None:  # noqa: N802
        assert not self.in_flight
        assert not [u for u in self.to_commit if self.units[u].image not in self.quarantined]
        self.drained += 1


World.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyOrderOfEventsCommitsEveryUnitExactlyOnce = World.TestCase


class Ticking(World):
    """The same with a clock that is told after every event, and workers that often idle: they help
    and give backups."""

    @precondition(lambda self: len(self.stages_seen) < 3)
    @rule(count=st.integers(1, 3))
    def new_image(self, count: int) -> None:
        self.announce(f"image{len({*self.stages_seen})}", 0, [0] * count, 0)

    @rule()
    def two_join(self) -> None:
        self.join(1, None)
        self.join(3, None)

    def tell(self, event: Event) -> list[Instruction]:
        told = super().tell(event)
        self.now_seconds += 1.0
        super().tell(Tick(self.now_seconds))
        return told


Ticking.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrderOfEventsWithIdleWorkers = Ticking.TestCase
