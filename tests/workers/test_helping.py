"""Which units idle workers help with, and when they stop: rules, as instructions."""

from __future__ import annotations

import pytest

from saccade.workers.dispatch import Dispatcher
from saccade.workers.events import (
    Assign,
    Commit,
    DrainRequested,
    Event,
    Help,
    HelpEnded,
    Instruction,
    Quarantine,
    RecordFailure,
    StageReady,
    StopHelping,
    Tick,
    UnitDone,
    UnitFailed,
    UnitRef,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from saccade.workers.helping import NO_HELP, HelpRule, share_left

LONG = 7.0
"""Seconds after which a unit of which nothing is known is worth helping with."""
RULE = HelpRule(least_seconds=LONG, fewest_parts=3)


class Checked(Dispatcher):
    """A dispatcher whose books are checked after every event."""

    def handle(self, event: Event) -> list[Instruction]:
        told = super().handle(event)
        self.check_invariants()
        return told


def done(worker: str, unit: str, attempt: int = 1) -> UnitDone:
    return UnitDone(worker, unit, attempt, {})


def given_by(told: list[Instruction]) -> list[tuple[str, str]]:
    return [(i.worker, i.unit) for i in told if isinstance(i, Assign)]


def stage(image: str, count: int, parts: int = 31, **known: object) -> Event:
    units = tuple(
        UnitRef(f"{image}{n}", image, "sweep", 0, n, "sweep 1", parts=parts) for n in range(count)
    )
    return StageReady(image, 0, units, **known)  # type: ignore[arg-type]


def at_work(workers: str = "vw", units: int = 1, rule: HelpRule = RULE, **known: object) -> Checked:
    """Workers of three slots, of which the first have a unit each."""
    d = Checked(help_rule=rule)
    d.handle(Tick(0))
    d.handle(stage("a", units, **known))  # type: ignore[arg-type]
    for worker in workers:
        d.handle(WorkerJoined(worker, 3))
    return d


def late(d: Dispatcher) -> list[Instruction]:
    return d.handle(Tick(LONG))


def test_an_idle_worker_helps_with_a_unit_that_has_run_for_long() -> None:
    d = at_work()
    assert d.handle(Tick(LONG - 1)) == []
    assert d.handle(Tick(LONG)) == [Help("w", "a0", 1)]
    assert d.handle(Tick(LONG + 1)) == [], "helped already"


def test_nobody_helps_while_units_wait() -> None:
    d = Checked(help_rule=RULE)
    for event in (Tick(0), stage("a", 4), WorkerJoined("v", 3)):
        d.handle(event)
    assert late(d) == []


def test_a_unit_of_few_batches_gets_no_help() -> None:
    for parts, helped in ((0, False), (1, False), (11, False), (12, True)):
        assert bool(late(at_work(parts=parts))) == helped, parts


def test_a_unit_gets_so_much_help_that_everyone_has_a_few_batches() -> None:
    # half of 31 is taken to be left: for three each they may be five
    assert late(at_work("stuvwxyz")) == [Help(worker, "a0", 1) for worker in "tuvw"]


def test_help_goes_where_most_is_left_per_worker() -> None:
    d = Checked(help_rule=HelpRule(LONG, 1))
    refs = tuple(
        UnitRef(f"a{n}", "a", "sweep", 0, n, "sweep 1", work, parts=100)
        for n, work in enumerate((2.0, 7.0))
    )
    for event in (Tick(0), StageReady("a", 0, refs), *(WorkerJoined(w, 1) for w in "stuvwxy")):
        d.handle(event)
    units = [i.unit for i in late(d) if isinstance(i, Help)]
    assert units == ["a1", "a1", "a1", "a0", "a1"]


def test_as_many_help_as_the_rule_says_at_most() -> None:
    assert late(at_work("stuvwxyz", rule=HelpRule(LONG, 1, most=2))) == [
        Help("t", "a0", 1),
        Help("u", "a0", 1),
    ]
    assert late(at_work("stuvwxyz", rule=NO_HELP)) == []


def test_help_stops_when_the_unit_is_written_and_is_no_attempt() -> None:
    d = at_work()
    late(d)
    assert d.handle(done("v", "a0")) == [Commit("a0", 1, "v", {}), StopHelping("w", "a0")]
    assert d.handle(HelpEnded("w", "a0")) == []


def test_who_helps_turns_to_a_unit_that_comes() -> None:
    d = at_work()
    late(d)
    told = d.handle(stage("b", 1))
    assert told == [StopHelping("w", "a0"), Assign("w", "b0", 1)]


def test_a_worker_with_nothing_at_all_to_do_gets_a_unit_before_one_that_helps() -> None:
    d = at_work("vwx", rule=HelpRule(LONG, 3, most=1))
    assert late(d) == [Help("w", "a0", 1)]
    assert given_by(d.handle(stage("b", 1))) == [("x", "b0")]


def test_help_that_fails_is_charged_to_nobody_and_not_tried_again() -> None:
    d = at_work()
    late(d)
    assert d.handle(HelpEnded("w", "a0", "it raised")) == []
    assert d.handle(Tick(2 * LONG)) == []


def test_help_that_found_nothing_left_is_not_given_again() -> None:
    d = at_work()
    late(d)
    d.handle(HelpEnded("w", "a0"))
    assert d.handle(Tick(2 * LONG)) == []


def test_a_worker_that_dies_helping_charges_no_unit() -> None:
    d = at_work("vwx", rule=HelpRule(LONG, 3, most=1))
    late(d)
    assert d.handle(WorkerLost("w", "signal 9")) == []
    assert d.handle(Tick(2 * LONG)) == [], "what killed one is not shown to another"


def test_a_worker_that_dies_before_its_help_is_over_makes_its_unit_a_suspect_only() -> None:
    d = at_work("vw")
    late(d)
    d.handle(stage("b", 1))
    told = d.handle(WorkerLost("w", "signal 9"))
    assert not any(isinstance(i, RecordFailure) for i in told)
    assert d.handle(done("v", "a0"))[-1] == Assign("v", "b0", 2, alone=True)


def test_the_help_outlives_an_owner_that_left_and_not_one_that_died() -> None:
    left, died = at_work("vw"), at_work("vw")
    for d in (left, died):
        late(d)
    assert left.handle(WorkerLeft("v")) == [StopHelping("w", "a0"), Assign("w", "a0", 2)]
    told = died.handle(WorkerLost("v", "signal 9"))
    assert [type(i) for i in told] == [StopHelping, RecordFailure]
    assert died.handle(HelpEnded("w", "a0")) == [Assign("w", "a0", 2, alone=True)]


def taken_over(by: str = "z") -> Checked:
    """A unit whose owner answers no more, and that another worker has now; one helped, in vain."""
    d = at_work("vw", units=1)
    late(d)
    d.handle(HelpEnded("w", "a0", "it raised"))
    assert d.handle(Tick(2 * LONG)) == []
    d.handle(WorkerLeft("v"))
    assert d.handle(WorkerJoined(by, 3)) == []
    return d


def test_a_new_owner_is_helped_anew() -> None:
    d = taken_over()
    assert d.handle(Tick(3 * LONG)) == [Help("z", "a0", 2)]
    d.handle(HelpEnded("z", "a0"))
    assert d.handle(Tick(4 * LONG)) == [], "and no more than once in vain"


def test_an_owner_that_tries_again_is_helped_anew() -> None:
    d = at_work("vw")
    late(d)
    d.handle(HelpEnded("w", "a0"))
    told = d.handle(UnitFailed("v", "a0", 1, "it broke"))
    (again,) = [i for i in told if isinstance(i, Assign)]
    (helper,) = {"v", "w"} - {again.worker}
    assert d.handle(Tick(3 * LONG)) == [Help(helper, "a0", 2)]


def test_help_that_ends_for_an_owner_that_left_says_nothing_of_the_next_one() -> None:
    d = at_work("vwx", rule=HelpRule(LONG, 3, most=1))
    assert late(d) == [Help("w", "a0", 1)]
    assert d.handle(WorkerLeft("v")) == [Assign("x", "a0", 2)]
    assert d.handle(HelpEnded("w", "a0")) == [], "it met what the first owner had begun"
    assert d.handle(Tick(3 * LONG)) == [Help("w", "a0", 2)]


def test_what_killed_a_helper_is_shown_to_no_other_whoever_owns_it() -> None:
    d = at_work("vwx", rule=HelpRule(LONG, 3, most=1))
    late(d)
    d.handle(WorkerLost("w", "signal 9"))
    d.handle(WorkerLeft("v"))
    d.handle(WorkerJoined("y", 3))
    assert d.handle(Tick(3 * LONG)) == []


def test_suspects_get_no_help() -> None:
    d = at_work(suspects=frozenset({"a0"}))
    assert late(d) == []


def test_help_stops_when_the_image_is_set_aside() -> None:
    d = at_work("vwx", units=2)
    late(d)
    told = d.handle(UnitFailed("v", "a0", 1, "damaged", retryable=False))
    assert any(isinstance(i, Quarantine) for i in told)
    assert [i for i in told if isinstance(i, StopHelping)]


def test_nobody_is_asked_for_help_once_the_run_drains() -> None:
    d = at_work()
    d.handle(DrainRequested())
    assert late(d) == []


def test_what_a_helped_unit_took_says_nothing_of_others() -> None:
    d = at_work("vw", units=1)
    late(d)
    d.handle(done("v", "a0"))
    assert d._paces._recent == {}


@pytest.mark.parametrize(
    ("seconds", "expected", "share"),
    [(1, 20, 0.95), (0, 20, 1), (40, 20, 0.25), (1, 6, 0), (6, None, 0), (7, None, 0.5)],
)
def test_what_is_left_of_a_unit_follows_from_what_its_like_take(
    seconds: float, expected: float | None, share: float
) -> None:
    assert share_left(seconds, expected, RULE) == pytest.approx(share)
