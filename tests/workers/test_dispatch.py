"""The dispatcher's rules, one by one, as whole lists of instructions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.dispatch import Dispatcher
from saccade.workers.events import (
    Assign,
    Cancel,
    Commit,
    Committed,
    Drained,
    DrainRequested,
    Event,
    ImageDone,
    ImageFailed,
    Instruction,
    Quarantine,
    RecordFailure,
    StageComplete,
    StageReady,
    Tick,
    UnitDone,
    UnitFailed,
    UnitRef,
    UnitTimedOut,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from saccade.workers.ledger import StageProgress
from saccade.workers.resting import pause_seconds


class Checked(Dispatcher):
    """A dispatcher whose books are checked after every event."""

    def handle(self, event: Event) -> list[Instruction]:
        told = super().handle(event)
        self.check_invariants()
        return told


def stage(image: str, *units: str, number: int = 0, **known: object) -> StageReady:
    refs = tuple(UnitRef(unit, image, "sweep") for unit in units)
    return StageReady(image, number, refs, **known)  # type: ignore[arg-type]


def done(worker: str, unit: str, attempt: int = 1) -> UnitDone:
    return UnitDone(worker, unit, attempt, {"unit": unit})


def commit(worker: str, unit: str, attempt: int = 1) -> Commit:
    return Commit(unit, attempt, worker, {"unit": unit})


def started(*events: Event, max_failures: int = 3) -> Checked:
    dispatcher = Checked(max_failures)
    for event in events:
        dispatcher.handle(event)
    return dispatcher


# ------------------------------------------------------------------------------------------ order


def test_the_oldest_image_is_served_first_and_room_that_is_left_goes_to_the_next() -> None:
    d = started(stage("a", "a1", "a2", "a3"), stage("b", "b1", "b2"))
    assert d.handle(WorkerJoined("w", slots=2)) == [Assign("w", "a1", 1), Assign("w", "a2", 1)]
    assert d.handle(done("w", "a2")) == [commit("w", "a2"), Assign("w", "a3", 1)]
    assert d.handle(done("w", "a1")) == [commit("w", "a1"), Assign("w", "b1", 1)]


def test_a_later_stage_of_an_older_image_is_ahead_of_a_younger_image() -> None:
    d = started(stage("a", "a1"), stage("b", "b1", "b2", "b3"), WorkerJoined("w", slots=1))
    d.handle(done("w", "a1"))
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]
    assert d.handle(stage("a", "a2", number=1)) == []
    assert d.handle(done("w", "b1")) == [commit("w", "b1"), Assign("w", "a2", 1)]


def test_units_go_by_order_and_ties_as_listed() -> None:
    refs = tuple(
        UnitRef(name, "a", "sweep", order=n) for name, n in zip("xyz", (5, 2, 5), strict=True)
    )
    d = started(WorkerJoined("w", slots=3))
    told = d.handle(StageReady("a", 0, refs))
    assert told == [Assign("w", "y", 1), Assign("w", "x", 1), Assign("w", "z", 1)]


def test_a_unit_that_runs_again_is_ahead_of_those_that_never_ran() -> None:
    d = started(stage("a", "a1", "a2", "a3"), WorkerJoined("w", slots=1))
    told = d.handle(UnitFailed("w", "a1", 1, "decoder says no"))
    assert told == [RecordFailure("a", "a1", 1, "decoder says no"), Assign("w", "a1", 2)]


def test_the_least_busy_worker_gets_the_next_unit() -> None:
    d = started(WorkerJoined("v"), WorkerJoined("w"))
    told = d.handle(stage("a", "a1", "a2", "a3"))
    assert told == [Assign("v", "a1", 1), Assign("w", "a2", 1), Assign("v", "a3", 1)]


# ---------------------------------------------------------------------------------------- credits


def sized(*nbytes: int) -> StageReady:
    refs = tuple(UnitRef(f"u{n}", "a", "sweep", n, order) for order, n in enumerate(nbytes))
    return StageReady("a", 0, refs)


def test_bytes_in_flight_stay_within_the_workers() -> None:
    d = started(sized(13, 17, 19), WorkerJoined("w", slots=3, nbytes=31))
    assert d.progress() == {"a": StageProgress(0, waiting=1, running=2, committing=0, done=0)}
    assert d.handle(done("w", "u13")) == [commit("w", "u13")]
    assert d.handle(done("w", "u17")) == [commit("w", "u17"), Assign("w", "u19", 1)]


def test_a_unit_larger_than_a_worker_waits_for_it_to_be_empty_and_has_it_for_itself() -> None:
    d = started(sized(7, 37, 5), WorkerJoined("w", slots=3, nbytes=31))
    assert d.handle(done("w", "u7")) == [commit("w", "u7"), Assign("w", "u37", 1)]
    assert d.handle(done("w", "u37")) == [commit("w", "u37"), Assign("w", "u5", 1)]


def test_a_large_unit_that_waits_for_room_is_not_overtaken_but_another_worker_may_take_it() -> None:
    d = started(sized(23, 29, 2), WorkerJoined("w", slots=3, nbytes=31))
    assert d.progress()["a"].running == 1
    told = d.handle(WorkerJoined("v", slots=1, nbytes=31))
    assert told == [Assign("v", "u29", 1), Assign("w", "u2", 1)]


# ------------------------------------------------------------------------- committing and resuming


def test_a_unit_is_done_only_when_its_receipt_is_durable() -> None:
    d = started(stage("a", "a1"), WorkerJoined("w"))
    assert d.handle(done("w", "a1")) == [commit("w", "a1")]
    assert d.progress() == {"a": StageProgress(0, waiting=0, running=0, committing=1, done=0)}
    assert not d.idle
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]
    assert d.idle
    assert d.progress() == {}


def test_only_what_is_not_done_runs_after_a_resume() -> None:
    d = started(WorkerJoined("w", slots=5))
    told = d.handle(stage("a", "a1", "a2", "a3", already_done={"a1", "a3", "of another stage"}))
    assert told == [Assign("w", "a2", 1)]
    assert d.progress() == {"a": StageProgress(0, waiting=0, running=1, committing=0, done=2)}
    assert d.progress()["a"].total == 3


@pytest.mark.parametrize("units", [(), ("a1", "a2")])
def test_a_stage_with_nothing_left_is_complete_at_once(units: tuple[str, ...]) -> None:
    d = started(WorkerJoined("w"))
    assert d.handle(stage("a", *units, already_done={*units})) == [StageComplete("a", 0)]
    assert d.idle


def test_duplicate_late_and_unknown_completions_change_nothing() -> None:
    d = started(stage("a", "a1", "a2"), WorkerJoined("w", slots=1))
    assert d.handle(done("w", "never heard of")) == []
    assert d.handle(done("w", "a2")) == []  # not assigned so far
    assert d.handle(done("w", "a1", attempt=2)) == []  # nor this attempt
    d.handle(done("w", "a1"))
    assert d.handle(done("w", "a1")) == []
    d.handle(Committed("a1"))
    assert d.handle(done("w", "a1")) == []
    assert d.handle(Committed("a1")) == []


# ----------------------------------------------------------------------- deaths, poison, time-outs


def test_units_of_a_worker_that_died_with_several_in_flight_run_alone_and_none_is_charged() -> None:
    d = started(stage("a", "a1", "a2", "a3"), WorkerJoined("w", slots=2))
    assert d.handle(WorkerLost("w", "signal 11")) == []
    assert d.handle(WorkerJoined("v", slots=2)) == [Assign("v", "a1", 2, alone=True)]
    assert d.handle(done("v", "a1", 2)) == [commit("v", "a1", 2), Assign("v", "a2", 2, alone=True)]
    assert d.handle(done("v", "a2", 2)) == [commit("v", "a2", 2), Assign("v", "a3", 1)]


def test_a_worker_is_kept_for_suspects_while_the_others_go_on() -> None:
    workers = [WorkerJoined(name, slots=2) for name in "uvw"]
    d = started(*workers, stage("a", *(f"a{n}" for n in range(11))))  # a0 a3 | a1 a4 | a2 a5
    assert d.handle(WorkerLost("u", "signal 9")) == []
    assert d.handle(done("v", "a1")) == [commit("v", "a1")]
    assert d.handle(done("w", "a2")) == [commit("w", "a2"), Assign("w", "a6", 1)]
    assert d.handle(done("v", "a4")) == [commit("v", "a4"), Assign("v", "a0", 2, alone=True)]
    told = d.handle(done("v", "a0", 2))
    assert told == [commit("v", "a0", 2), Assign("v", "a3", 2, alone=True)]
    told = d.handle(done("v", "a3", 2))
    assert told == [commit("v", "a3", 2), Assign("v", "a7", 1), Assign("v", "a8", 1)]


def test_deaths_of_a_unit_in_flight_by_itself_count_until_its_image_is_quarantined() -> None:
    d = started(stage("a", "a1"), stage("b", "b1"), max_failures=2)
    d.handle(WorkerJoined("u", slots=1))
    reason = "worker u died: signal 11"
    assert d.handle(WorkerLost("u", "signal 11")) == [
        RecordFailure("a", "a1", 1, reason, "WorkerLost")
    ]
    assert d.handle(WorkerJoined("v", slots=2)) == [Assign("v", "a1", 2, alone=True)]
    reason = "worker v died: signal 11"
    assert d.handle(WorkerLost("v", "signal 11")) == [
        RecordFailure("a", "a1", 2, reason, "WorkerLost"),
        Quarantine("a", "a1", reason, 2, "WorkerLost"),
    ]
    assert d.handle(WorkerJoined("w")) == [Assign("w", "b1", 1)]


def test_a_worker_ended_on_purpose_leaves_no_suspects_and_charges_nothing() -> None:
    d = started(stage("a", "a1", "a2", "a3"), WorkerJoined("w"), max_failures=1)
    assert d.handle(WorkerLeft("w")) == []
    assert d.handle(WorkerJoined("v")) == [Assign("v", "a1", 2), Assign("v", "a2", 2)]


def test_a_worker_that_owes_an_answer_gets_nothing_new_until_it_gives_it() -> None:
    d = started(stage("a", "a1", "a2", "a3"), WorkerJoined("w", slots=2))
    reason = "worker w did not answer in time"
    told = d.handle(UnitTimedOut("w", "a1", 1))
    assert told == [Cancel("w", "a1", 1), RecordFailure("a", "a1", 1, reason, "UnitTimedOut")]
    assert d.handle(UnitTimedOut("w", "a1", 1)) == []
    assert d.handle(done("w", "a2")) == [commit("w", "a2")]
    told = d.handle(UnitFailed("w", "a1", 1, "cancelled"))
    assert told == [Assign("w", "a1", 2), Assign("w", "a3", 1)]


def test_an_attempt_that_was_given_up_is_committed_if_it_completes_first_and_only_then() -> None:
    d = started(stage("a", "a1"), WorkerJoined("v", slots=1), WorkerJoined("w", slots=1))
    assert d.handle(UnitTimedOut("v", "a1", 1))[-1] == Assign("w", "a1", 2)
    assert d.handle(done("v", "a1", 1)) == [commit("v", "a1", 1)]
    assert d.handle(done("w", "a1", 2)) == []
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]


def test_a_worker_never_has_two_copies_of_one_unit() -> None:
    d = started(stage("a", "a1"), WorkerJoined("v", slots=1), WorkerJoined("w", slots=2))
    d.handle(UnitTimedOut("v", "a1", 1))
    d.handle(done("v", "a1", 1))  # overtakes the copy on w
    d.handle(Committed("a1"))
    d.handle(ImageDone("a"))
    d.handle(WorkerLeft("v"))
    assert d.handle(stage("a", "a1")) == []
    assert d.handle(done("w", "a1", 2)) == [Assign("w", "a1", 1)]


def test_a_worker_that_owes_an_answer_is_not_kept_for_suspects() -> None:
    workers = [WorkerJoined(name, slots=2) for name in "uvw"]
    d = started(*workers, stage("a", *(f"a{n}" for n in range(8))))  # a0 a3 | a1 a4 | a2 a5
    d.handle(UnitTimedOut("v", "a1", 1))
    d.handle(done("v", "a4"))
    d.handle(WorkerLost("u", "signal 9"))
    assert d.handle(done("w", "a2")) == [commit("w", "a2")]
    assert d.handle(done("w", "a5")) == [commit("w", "a5"), Assign("w", "a0", 2, alone=True)]


def test_the_worker_kept_for_suspects_stays_the_same_until_it_is_empty() -> None:
    workers = [WorkerJoined(name, slots=3) for name in "uvw"]
    d = started(*workers, stage("a", *(f"a{n}" for n in range(20))))  # a0 a3 a6 | a1 a4 a7 | a2 ...
    d.handle(WorkerLost("u", "signal 9"))  # v is kept
    assert d.handle(WorkerJoined("x", slots=1)) == [Assign("x", "a0", 2, alone=True)]
    assert d.handle(done("w", "a2")) == [commit("w", "a2"), Assign("w", "a9", 1)]
    assert d.handle(done("v", "a1")) == [commit("v", "a1")]


def test_a_unit_that_completed_while_waiting_behind_others_does_not_mix_with_later_ones() -> None:
    d = started(stage("a"), stage("b", "b1"), WorkerJoined("v"), WorkerLeft("v"))
    d.handle(stage("a", "a1", number=1))
    d.handle(done("v", "b1"))
    assert d.handle(Committed("b1")) == [StageComplete("b", 0)]
    assert d.handle(stage("b", "b2", number=1)) == []
    assert d.handle(WorkerJoined("w")) == [Assign("w", "a1", 1), Assign("w", "b2", 1)]


def test_a_unit_that_completed_while_it_waited_is_not_assigned_in_a_later_stage() -> None:
    d = started(stage("a", "a1"), WorkerJoined("v"), WorkerLeft("v"), stage("b", "b1"))
    assert d.handle(done("v", "a1")) == [commit("v", "a1")]
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]
    assert d.handle(stage("a", "a2", number=1)) == []
    assert d.handle(WorkerJoined("w")) == [Assign("w", "a2", 1), Assign("w", "b1", 1)]


def test_a_completion_of_a_worker_that_was_thought_lost_counts() -> None:
    d = started(stage("a", "a1"), WorkerJoined("w"), WorkerLost("w", "no heartbeat"))
    assert d.handle(done("w", "a1")) == [commit("w", "a1")]
    assert d.handle(WorkerJoined("v")) == []
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]


def test_a_unit_that_timed_out_explains_the_death_of_its_worker() -> None:
    d = started(stage("a", "a1", "a2"), WorkerJoined("w"), UnitTimedOut("w", "a1", 1))
    assert d.handle(WorkerLost("w", "killed")) == []
    assert d.handle(WorkerJoined("v")) == [Assign("v", "a1", 2), Assign("v", "a2", 2)]


def test_a_name_may_come_back_and_answers_of_its_earlier_bearer_free_no_slot() -> None:
    d = started(stage("a", "a1", "a2"), WorkerJoined("w", slots=1), WorkerLeft("w"))
    assert d.handle(WorkerJoined("w", slots=1)) == [Assign("w", "a1", 2)]
    assert d.handle(UnitFailed("w", "a1", 1, "late")) == []
    assert d.handle(done("w", "a1", 2)) == [commit("w", "a1", 2), Assign("w", "a2", 1)]


# ------------------------------------------------------------------------------------- quarantine


def test_a_failure_that_can_only_repeat_quarantines_at_once_and_withdraws_the_image() -> None:
    d = started(stage("a", "a1", "a2", "a3"), stage("b", "b1"), WorkerJoined("w", slots=2))
    assert d.handle(UnitFailed("w", "a1", 1, "broken file", retryable=False)) == [
        RecordFailure("a", "a1", 1, "broken file"),
        Quarantine("a", "a1", "broken file", 1),
        Cancel("w", "a2", 1),
    ]
    assert d.handle(done("w", "a2")) == [Assign("w", "b1", 1)]
    assert d.progress() == {"b": StageProgress(0, waiting=0, running=1, committing=0, done=0)}


def test_failures_of_earlier_runs_count() -> None:
    d = started(stage("a", "a1", failures={"a1": 2}), WorkerJoined("w"))
    assert d.handle(UnitFailed("w", "a1", 3, "again")) == [
        RecordFailure("a", "a1", 3, "again"),
        Quarantine("a", "a1", "again", 3),
    ]
    told = d.handle(stage("b", "b1", "b2", failures={"b2": 3}))
    assert told == [Quarantine("b", "b2", "failed 3 times in earlier runs", 3)]


def passing(worker: str, unit: str, attempt: int) -> UnitFailed:
    return UnitFailed(worker, unit, attempt, "full", passing=True)


def assigned(told: Iterable[Instruction]) -> list[tuple[str, int]]:
    return [(i.unit, i.attempt) for i in told if isinstance(i, Assign)]


def test_a_unit_that_met_what_may_pass_rests_longer_each_time_while_others_go_on() -> None:
    d = started(Tick(7), stage("a", "a1", "a2"), WorkerJoined("w", slots=1), max_failures=9)
    assert d.handle(passing("w", "a1", 1)) == [
        RecordFailure("a", "a1", 1, "full"),
        Assign("w", "a2", 1),
    ]
    d.handle(done("w", "a2"))
    assert d.handle(Tick(7.9)) == []
    assert assigned(d.handle(Tick(8))) == [("a1", 2)]
    assert assigned(d.handle(passing("w", "a1", 2))) == []
    assert assigned(d.handle(Tick(11.9))) == []
    assert assigned(d.handle(Tick(12))) == [("a1", 3)]


def test_a_unit_that_rests_can_be_committed_by_an_attempt_that_was_given_up() -> None:
    d = started(Tick(0), stage("a", "a1"), WorkerJoined("v"), WorkerJoined("w"), max_failures=9)
    d.handle(UnitTimedOut("v", "a1", 1))
    d.handle(passing("w", "a1", 2))
    assert d.handle(done("v", "a1", 1)) == [commit("v", "a1", 1)]
    assert d.handle(Tick(100)) == []
    assert d.handle(Committed("a1")) == [StageComplete("a", 0)]


def test_a_suspect_that_rests_keeps_no_worker_from_others_and_then_runs_alone() -> None:
    units = stage("a", "a1", "a2", suspects=frozenset({"a1"}))
    d = started(Tick(0), units, WorkerJoined("w", slots=2), max_failures=9)
    assert assigned(d.handle(passing("w", "a1", 1))) == [("a2", 1)]
    assert d.handle(Tick(1)) == []
    assert d.handle(done("w", "a2"))[-1] == Assign("w", "a1", 2, alone=True)


def test_a_drain_does_not_wait_for_what_rests() -> None:
    d = started(Tick(0), stage("a", "a1"), WorkerJoined("w"))
    d.handle(passing("w", "a1", 1))
    assert d.handle(DrainRequested()) == [Drained()]
    assert d.handle(Tick(100)) == []


def test_what_may_pass_counts_as_a_failure_and_sets_an_image_aside_in_the_end() -> None:
    d = started(Tick(0), stage("a", "a1"), WorkerJoined("w"), max_failures=2)
    d.handle(passing("w", "a1", 1))
    d.handle(Tick(1))
    assert d.handle(passing("w", "a1", 2))[-1] == Quarantine("a", "a1", "full", 2)
    assert d.handle(Tick(100)) == []
    assert d.idle


def test_pauses_grow_up_to_a_bound() -> None:
    assert [pause_seconds(times) for times in range(1, 6)] == [1, 4, 16, 64, 64]


def test_what_a_failure_is_called_is_handed_on_as_it_came() -> None:
    d = started(stage("a", "a1"), WorkerJoined("w"), max_failures=1)
    assert d.handle(UnitFailed("w", "a1", 1, "it broke", error="Whatever")) == [
        RecordFailure("a", "a1", 1, "it broke", "Whatever"),
        Quarantine("a", "a1", "it broke", 1, "Whatever"),
    ]
    told = d.handle(stage("b", "b1", failures={"b1": 1}, errors={"b1": "Else"}))
    assert told == [Quarantine("b", "b1", "failed 1 times in earlier runs", 1, "Else")]


def test_units_in_flight_when_an_earlier_driver_died_run_alone() -> None:
    d = started(WorkerJoined("w"))
    told = d.handle(stage("a", "a1", "a2", "a3", suspects={"a2"}))
    assert told == [Assign("w", "a2", 1, alone=True)]


def test_an_image_that_fails_by_itself_is_quarantined_known_or_not() -> None:
    d = started(stage("a", "a1"), WorkerJoined("w"))
    told = d.handle(ImageFailed("a", "no pixel size"))
    assert told == [Quarantine("a", None, "no pixel size", 0), Cancel("w", "a1", 1)]
    told = d.handle(ImageFailed("never announced", "no such file"))
    assert told == [Quarantine("never announced", None, "no such file", 0)]


def test_a_receipt_made_durable_after_its_image_was_quarantined_changes_nothing() -> None:
    d = started(stage("a", "a1"), WorkerJoined("w"), done("w", "a1"), ImageFailed("a", "vanished"))
    assert d.handle(Committed("a1")) == []
    assert d.idle


# ---------------------------------------------------------------------------------------- drained


def test_a_drain_assigns_nothing_more_and_ends_when_the_last_receipt_is_durable() -> None:
    d = started(stage("a", "a1", "a2", "a3"), WorkerJoined("w", slots=1))
    assert d.handle(DrainRequested()) == []
    assert d.handle(WorkerJoined("v")) == []
    assert d.handle(done("w", "a1")) == [commit("w", "a1")]
    assert d.handle(Committed("a1")) == [Drained()]
    assert d.handle(DrainRequested()) == []


def test_a_drain_of_nothing_in_flight_is_over_at_once() -> None:
    assert started().handle(DrainRequested()) == [Drained()]


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (stage("a", "x", number=7), "while stage 1 is open"),
        (stage("b", "b1", "b1"), "lists a unit twice"),
        (stage("b", "a1"), "repeats units"),
        (StageReady("b", 0, (UnitRef("c1", "c", "sweep"),)), "units of other images"),
        (ImageDone("a"), "stage 1 is open"),
        (Committed("a1"), "while running"),
        (WorkerJoined("w"), "joined twice"),
    ],
)
def test_what_can_not_be_is_refused_and_changes_nothing(event: Event, message: str) -> None:
    d = started(stage("a", "a1", number=1), WorkerJoined("w"))
    before = d.progress()
    with pytest.raises(ValueError, match=message):
        d.handle(event)
    d.check_invariants()
    assert d.progress() == before


def test_stage_numbers_of_an_image_rise_until_the_image_is_done() -> None:
    d = started(stage("a", number=3))
    with pytest.raises(ValueError, match="numbers must rise"):
        d.handle(stage("a", number=3))
    d.handle(ImageDone("a"))
    assert d.handle(stage("a", number=0)) == [StageComplete("a", 0)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnitRef("", "a", "sweep"),
        lambda: UnitRef("u", "a", "sweep", nbytes=-1),
        lambda: UnitRef("u", "a", "sweep", work=0),
        lambda: WorkerJoined("w", slots=0),
        lambda: WorkerJoined("w", nbytes=-1),
        lambda: Dispatcher(max_failures=0),
    ],
)
def test_values_that_make_no_sense_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="found"):
        make()


# ------------------------------------------------------------------------------------- whole runs


def run_out(
    d: Dispatcher, events: Iterable[Event], poison: frozenset[str] = frozenset(), slots: int = 2
) -> Counter[object]:
    """Obey every instruction; a worker dies of a poisonous unit and is replaced by a new one."""
    told = deque(i for event in events for i in d.handle(event))
    seen: Counter[object] = Counter()
    lives: Counter[str] = Counter()
    while told:
        instruction = told.popleft()
        seen[type(instruction)] += 1
        match instruction:
            case Assign(worker, unit, _) if unit in poison:
                told.extend(d.handle(WorkerLost(worker, "signal 11")))
                told = deque(i for i in told if not (isinstance(i, Assign) and i.worker == worker))
                lives[worker] += 1
                name = f"{worker.partition('.')[0]}.{lives.total()}"
                told.extend(d.handle(WorkerJoined(name, slots)))
            case Assign(worker, unit, attempt):
                told.extend(d.handle(UnitDone(worker, unit, attempt, {})))
            case Commit(unit):
                seen["committed", unit] += 1
                told.extend(d.handle(Committed(unit)))
            case StageComplete(image):
                seen["complete", image] += 1
                told.extend(d.handle(ImageDone(image)))
            case Quarantine(image):
                seen["quarantined", image] += 1
            case RecordFailure(_, unit):
                seen["failed", unit] += 1
    return seen


@given(
    poison=st.frozensets(st.sampled_from([f"{i}{n}" for i in "abc" for n in range(7)]), max_size=3),
    workers=st.integers(1, 4),
    slots=st.integers(1, 3),
)
def test_poison_costs_its_own_image_and_no_innocent_unit_is_charged(
    poison: frozenset[str], workers: int, slots: int
) -> None:
    d = Checked(max_failures=3)
    joins = [WorkerJoined(f"w{n}", slots) for n in range(workers)]
    stages = [stage(image, *(f"{image}{n}" for n in range(7))) for image in "abc"]
    seen = run_out(d, [*joins, *stages], poison, slots)
    bad = {unit[0] for unit in poison}
    assert {unit for kind, unit in filter(_pair, seen) if kind == "failed"} <= poison
    assert {image for kind, image in filter(_pair, seen) if kind == "quarantined"} == bad
    assert {image for kind, image in filter(_pair, seen) if kind == "complete"} == {*"abc"} - bad
    for image in {*"abc"} - bad:
        assert all(seen["committed", f"{image}{n}"] == 1 for n in range(7))
    assert d.idle


def _pair(key: object) -> bool:
    return isinstance(key, tuple)


def test_a_large_run_takes_one_assignment_and_one_commit_per_unit() -> None:
    images, units = 13, 1601
    joins = [WorkerJoined(f"w{n}", slots=2) for n in range(17)]
    stages = [stage(f"i{i}", *(f"i{i}.{n}" for n in range(units))) for i in range(images)]
    d = Dispatcher()
    seen = run_out(d, [*joins, *stages])
    assert seen[Assign] == seen[Commit] == images * units
    assert seen[StageComplete] == images
    assert d.idle
    d.check_invariants()
