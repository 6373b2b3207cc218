"""Who gets which unit, and what gets a second attempt: rules of time and place, as instructions."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.dispatch import Dispatcher
from saccade.workers.events import (
    Assign,
    Cancel,
    Commit,
    Committed,
    DrainRequested,
    Event,
    ImageDone,
    Instruction,
    Lane,
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

PACE = 7.0
"""Seconds that units of the tests usually take."""


class Checked(Dispatcher):
    """A dispatcher whose books are checked after every event."""

    def handle(self, event: Event) -> list[Instruction]:
        told = super().handle(event)
        self.check_invariants()
        return told


def stage(image: str, count: int, number: int = 0, family: str = "sweep", **known: object) -> Event:
    units = tuple(UnitRef(f"{image}{n}", image, "sweep", 0, n, family) for n in range(count))
    return StageReady(image, number, units, **known)  # type: ignore[arg-type]


def done(worker: str, unit: str, attempt: int = 1) -> UnitDone:
    return UnitDone(worker, unit, attempt, {})


def given_by(told: list[Instruction]) -> list[tuple[str, str]]:
    return [(i.worker, i.unit) for i in told if isinstance(i, Assign)]


# --------------------------------------------------------------------------------------- affinity


def test_a_worker_takes_an_image_that_nobody_has_open_before_it_helps_another() -> None:
    d = Checked()
    for event in (stage("a", 3), stage("b", 3), WorkerJoined("v", 1)):
        d.handle(event)
    assert given_by(d.handle(WorkerJoined("w", 1))) == [("w", "b0")]


def test_a_worker_goes_on_with_the_image_that_it_has_open() -> None:
    d = Checked()
    for event in (stage("a", 3), stage("b", 3), WorkerJoined("v", 1), WorkerJoined("w", 1)):
        d.handle(event)
    assert given_by(d.handle(done("w", "b0"))) == [("w", "b1")]
    assert given_by(d.handle(done("v", "a0"))) == [("v", "a1")]


def test_a_worker_whose_images_have_nothing_left_steals_from_the_oldest() -> None:
    d = Checked()
    for event in (stage("a", 3), stage("b", 1), WorkerJoined("v", 1), WorkerJoined("w", 1)):
        d.handle(event)
    assert given_by(d.handle(done("w", "b0"))) == [("w", "a1")]


def test_what_an_image_goes_on_with_goes_to_the_worker_that_has_it_open() -> None:
    d = Checked()
    for event in (stage("a", 4), stage("b", 1), WorkerJoined("v", 1), WorkerJoined("w", 1)):
        d.handle(event)
    d.handle(done("w", "b0"))  # and w steals a1
    d.handle(Committed("b0"))
    units = (UnitRef("b later", "b", "select"),)
    assert d.handle(StageReady("b", 1, units)) == []
    assert given_by(d.handle(done("v", "a0"))) == [("v", "a2")]
    assert given_by(d.handle(done("w", "a1"))) == [("w", "a3")]
    assert given_by(d.handle(done("w", "a3"))) == [("w", "b later")]


def lane(image: str, number: int, which: Lane, count: int = 1, urgency: int = 0) -> Event:
    """A stage of one lane's units, named by image, stage and place."""
    units = tuple(
        UnitRef(f"{image}{number}.{n}", image, "", order=n, lane=which, urgency=urgency)
        for n in range(count)
    )
    return StageReady(image, number, units)


def test_a_glance_and_a_step_go_to_a_worker_whose_slots_for_sweeps_are_taken() -> None:
    d = Checked()
    d.handle(WorkerJoined("w", 2, glances=1, steps=1))
    assert len(d.handle(lane("a", 3, Lane.SWEEP, 5))) == 2
    assert given_by(d.handle(lane("b", 1, Lane.GLANCE, 2))) == [("w", "b1.0")]
    assert given_by(d.handle(lane("c", 0, Lane.STEP))) == [("w", "c0.0")]
    assert d.handle(lane("e", 0, Lane.STEP)) == []
    assert given_by(d.handle(done("w", "b1.0"))) == [("w", "b1.1")]


def test_of_steps_the_most_urgent_goes_first_and_of_those_the_oldest_image_s() -> None:
    d = Checked()
    waiting = (("a", 0, 2), ("b", 1, 1), ("c", 2, 0), ("e", 3, 1), ("f", 4, 0))
    for image, number, urgency in waiting:
        d.handle(lane(image, number, Lane.STEP, urgency=urgency))
    given = given_by(d.handle(WorkerJoined("w", steps=1)))
    while d.progress() and len(given) < len(waiting):
        given += given_by(d.handle(done(*given[-1])))
    assert [unit[0] for _, unit in given] == ["c", "f", "b", "e", "a"]


def test_whoever_glanced_at_an_image_sweeps_it_unless_another_worker_does() -> None:
    d = Checked()
    for event in (WorkerJoined("v", 1), WorkerJoined("w", 1), lane("a", 1, Lane.GLANCE)):
        d.handle(event)
    assert given_by(d.handle(lane("b", 1, Lane.GLANCE))) == [("w", "b1.0")]
    for event in (done("w", "b1.0"), done("v", "a1.0"), Committed("b1.0"), Committed("a1.0")):
        d.handle(event)
    d.handle(lane("c", 3, Lane.SWEEP, 2))  # one unit for each of them
    assert d.handle(lane("a", 3, Lane.SWEEP, 2)) == d.handle(lane("b", 3, Lane.SWEEP, 2)) == []
    assert given_by(d.handle(done("w", "c3.1"))) == [("w", "b3.0")]
    assert given_by(d.handle(done("v", "c3.0"))) == [("v", "a3.0")]
    assert given_by(d.handle(done("v", "a3.0"))) == [("v", "a3.1")]
    assert given_by(d.handle(done("v", "a3.1"))) == [("v", "b3.1")]


def test_a_step_opens_no_image_so_that_whoever_did_it_is_not_thought_to_have_it() -> None:
    d = Checked()
    for event in (WorkerJoined("v", 1), lane("a", 0, Lane.STEP), done("v", "a0.0")):
        d.handle(event)
    d.handle(Committed("a0.0"))
    d.handle(lane("b", 3, Lane.SWEEP, 2))
    d.handle(lane("a", 3, Lane.SWEEP))
    assert given_by(d.handle(done("v", "b3.0"))) == [("v", "b3.1")]


def test_an_image_whose_only_worker_died_goes_to_whoever_has_room() -> None:
    d = Checked()
    for event in (stage("a", 2), WorkerJoined("v", 1), WorkerLeft("v")):
        d.handle(event)
    assert given_by(d.handle(WorkerJoined("w", 2))) == [("w", "a0"), ("w", "a1")]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    turns=st.randoms(use_true_random=False),
)
def test_no_slot_is_free_while_a_unit_waits(counts, slots, turns) -> None:  # type: ignore[no-untyped-def]
    d, held, finished = Checked(), {}, Counter[str]()
    told: deque[Instruction] = deque()
    for n, most in enumerate(slots):
        told.extend(d.handle(WorkerJoined(f"w{n}", most)))
    for n, count in enumerate(counts):
        told.extend(d.handle(stage(f"i{n}.", count)))
    while told or held:
        while told:
            match told.popleft():
                case Assign(worker, unit, attempt):
                    held[unit] = (worker, attempt)
                case Commit(unit):
                    told.extend(d.handle(Committed(unit)))
                case StageComplete(image):
                    told.extend(d.handle(ImageDone(image)))
        waiting = sum(progress.waiting for progress in d.progress().values())
        assert not waiting or len(held) == sum(slots)
        if held:
            unit = turns.choice(sorted(held))
            finished[unit] += 1
            told.extend(d.handle(done(held[unit][0], unit, held.pop(unit)[1])))
    assert sorted(finished.values()) == [1] * sum(counts)
    assert d.idle


# ---------------------------------------------------------------------------------------- backups


def late_unit(count: int = 9, slots: int = 1) -> Checked:
    """A stage of which one unit runs, on v, while w is idle; all others took ``PACE``."""
    d, now = Checked(), 0.0
    for event in (WorkerJoined("v", 1), stage("a", count), Tick(0.0)):
        d.handle(event)
    for n in range(count - 1):
        now += PACE
        d.handle(Tick(now))
        d.handle(done("v", f"a{n}"))
        d.handle(Committed(f"a{n}"))
    d.handle(WorkerJoined("w", slots))
    return d


def since(seconds: float, count: int = 9) -> Tick:
    """So long after the last unit was given away."""
    return Tick(PACE * (count - 1) + seconds)


def test_a_unit_that_takes_three_times_the_median_gets_a_backup_and_only_one() -> None:
    d = late_unit()
    assert d.handle(since(3 * PACE)) == []
    assert d.handle(since(3 * PACE + 1)) == [Assign("w", "a8", 2, backup=True)]
    d.handle(WorkerJoined("x", 1))
    assert d.handle(since(99 * PACE)) == []


def test_of_two_attempts_the_first_to_complete_is_committed_and_the_other_changes_nothing() -> None:
    for first, second in ((("v", 1), ("w", 2)), (("w", 2), ("v", 1))):
        d = late_unit()
        d.handle(since(4 * PACE))
        told = d.handle(done(first[0], "a8", first[1]))
        assert told == [Commit("a8", first[1], first[0], {})]
        assert d.handle(Committed("a8")) == [StageComplete("a", 0)]
        assert d.handle(done(second[0], "a8", second[1])) == []


def test_a_backup_is_no_failure_and_what_fails_is_charged_while_the_other_attempt_goes_on() -> None:
    d = late_unit()
    d.handle(since(4 * PACE))
    assert d.handle(UnitFailed("v", "a8", 1, "broke")) == [RecordFailure("a", "a8", 1, "broke")]
    assert d.handle(done("w", "a8", 2)) == [Commit("a8", 2, "w", {})]


def test_a_unit_both_of_whose_attempts_are_lost_waits_again() -> None:
    d = late_unit()
    d.handle(since(4 * PACE))
    assert d.handle(WorkerLeft("v")) == []
    assert d.progress()["a"].running == 1
    d.handle(WorkerLeft("w"))
    assert given_by(d.handle(WorkerJoined("x"))) == [("x", "a8")]


def test_the_death_of_one_attempts_worker_is_charged_and_the_other_goes_on() -> None:
    d = late_unit()
    d.handle(since(4 * PACE))
    reason = "worker w died: signal 9"
    assert d.handle(WorkerLost("w", "signal 9")) == [
        RecordFailure("a", "a8", 2, reason, "WorkerLost")
    ]
    assert d.handle(done("v", "a8", 1)) == [Commit("a8", 1, "v", {})]


def test_an_attempt_that_times_out_is_ended_and_the_other_goes_on() -> None:
    d = late_unit()
    d.handle(since(4 * PACE))
    told = d.handle(UnitTimedOut("v", "a8", 1))
    assert told[0] == Cancel("v", "a8", 1)
    assert isinstance(told[1], RecordFailure)
    assert len(told) == 2


def test_an_image_that_is_set_aside_has_both_attempts_ended() -> None:
    d = late_unit()
    d.handle(since(4 * PACE))
    told = d.handle(UnitFailed("w", "a8", 2, "damaged", retryable=False))
    assert told == [
        RecordFailure("a", "a8", 2, "damaged"),
        Quarantine("a", "a8", "damaged", 1),
        Cancel("v", "a8", 1),
    ]


def test_nothing_is_backed_up_while_anything_waits() -> None:
    d = late_unit()
    d.handle(stage("b", 2))
    assert d.handle(since(99 * PACE)) == []


def test_nothing_is_backed_up_during_a_drain() -> None:
    d = late_unit()
    d.handle(DrainRequested())
    assert d.handle(since(99 * PACE)) == []


def test_a_unit_of_no_family_gets_no_backup() -> None:
    d = Checked()
    for event in (WorkerJoined("v", 1), stage("a", 1, family=""), WorkerJoined("w"), Tick(1e6)):
        assert not any(isinstance(i, Assign) and i.backup for i in d.handle(event))


def test_nothing_is_late_before_half_of_its_stage_is_written() -> None:
    d = late_unit()
    d.handle(done("v", "a8"))
    d.handle(Committed("a8"))
    d.handle(ImageDone("a"))
    told = [
        i for e in (stage("b", 4), *(WorkerJoined(name, 1) for name in "xyz")) for i in d.handle(e)
    ]
    at = {unit: worker for worker, unit in given_by(told)}
    assert d.handle(since(99 * PACE)) == []
    d.handle(done(at["b1"], "b1"))
    assert d.handle(since(99 * PACE)) == []  # one of three that stand beside a unit that runs
    d.handle(done(at["b2"], "b2"))
    assert [unit for _, unit in given_by(d.handle(since(99 * PACE)))] == ["b0", "b3"]


def test_suspects_get_no_backup() -> None:
    d = late_unit()
    d.handle(done("v", "a8"))
    d.handle(Committed("a8"))
    d.handle(ImageDone("a"))
    told = d.handle(stage("b", 1, suspects={"b0"}))
    assert told == [Assign("v", "b0", 1, alone=True)]
    assert d.handle(since(99 * PACE)) == []


def test_more_work_may_take_more_time() -> None:
    d = late_unit()
    d.handle(done("v", "a8"))
    d.handle(Committed("a8"))
    d.handle(ImageDone("a"))
    large = UnitRef("b0", "b", "sweep", family="sweep", work=5)
    d.handle(StageReady("b", 0, (large,)))
    assert d.handle(since(14 * PACE)) == []
    assert d.handle(since(16 * PACE)) == [Assign("w", "b0", 2, backup=True)]


def test_an_idle_worker_begins_what_is_queued_behind_another_unit() -> None:
    d = late_unit(slots=2)
    d.handle(done("v", "a8"))
    d.handle(Committed("a8"))
    d.handle(ImageDone("a"))
    d.handle(WorkerLeft("v"))
    assert given_by(d.handle(stage("b", 3, already_done={"b2"}))) == [("w", "b0"), ("w", "b1")]
    d.handle(WorkerJoined("x", 2))
    assert d.handle(since(1)) == [Assign("x", "b1", 2, backup=True)]
