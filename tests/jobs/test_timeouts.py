"""How long a unit may take: pure arithmetic on what units like it took."""

from __future__ import annotations

import pytest

from saccade.jobs.in_flight import InFlight
from saccade.jobs.timeouts import ENOUGH, REMEMBERED, UnitTimes, size_px
from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import Unit, Window
from saccade.workers import events

OTHERWISE = 1800.0


def sweep(side: int, index: int = 0, name: str = "u") -> Unit:
    box = Box(0, 0, side, side)
    return Unit(name, "a", "sweep", index, box, ((Window(box, box),),))


def composing(side: int) -> Unit:
    return Unit("c", "a", "sweep", 0, Box(0, 0, side, side))


def learned(seconds_per_px: float, count: int = ENOUGH) -> UnitTimes:
    times = UnitTimes(OTHERWISE, factor=7, least_seconds=11)
    for side in range(3, 3 + count):
        times.learn(sweep(side), seconds_per_px * side**2)
    return times


def test_before_anything_is_known_the_option_holds() -> None:
    assert UnitTimes(OTHERWISE).allowed_seconds(sweep(5)) == OTHERWISE
    assert learned(1.0, ENOUGH - 1).allowed_seconds(sweep(5)) == OTHERWISE


def test_a_unit_may_take_so_many_times_what_its_size_suggests() -> None:
    assert learned(2.0).allowed_seconds(sweep(13)) == pytest.approx(7 * 2.0 * 13**2)


def test_a_large_unit_may_take_longer_than_the_option() -> None:
    assert learned(2.0).allowed_seconds(sweep(1000)) > OTHERWISE


def test_less_than_the_floor_is_never_asked_and_the_floor_is_never_above_the_option() -> None:
    assert learned(1e-9).allowed_seconds(sweep(5)) == 11
    short = UnitTimes(0.5)
    for _ in range(ENOUGH):
        short.learn(sweep(5), 1e-9)
    assert short.allowed_seconds(sweep(5)) == 0.5


@pytest.mark.parametrize(
    "other",
    [sweep(5, index=1), composing(5), Unit("s", "a", "select", 0), Unit("p", "a", "prepare", 0)],
)
def test_nothing_is_concluded_for_another_pass_or_another_kind_of_work(other: Unit) -> None:
    times = learned(2.0)
    assert times.allowed_seconds(other) == OTHERWISE
    times.learn(Unit("s", "a", "select", 0), 1e9)
    assert times.allowed_seconds(sweep(13)) == pytest.approx(7 * 2.0 * 13**2)


def test_units_that_only_compose_are_measured_by_what_they_compose() -> None:
    assert (size_px(composing(5)), size_px(sweep(3))) == (25, 9)


def test_one_slow_unit_changes_little_and_a_lasting_change_counts() -> None:
    times = learned(2.0)
    times.learn(sweep(5), 1e6)
    assert times.expected_seconds(sweep(1)) == pytest.approx(2.0)
    for _ in range(REMEMBERED):
        times.learn(sweep(5), 3.0 * 25)
    assert times.expected_seconds(sweep(1)) == pytest.approx(3.0)


def given(unit: str, attempt: int = 1, worker: str = "w") -> events.Assign:
    return events.Assign(worker, unit, attempt)


def test_a_unit_waits_for_those_that_its_worker_had_before() -> None:
    flight = InFlight(UnitTimes(10.0))
    for second, name in enumerate("abc"):
        flight.give(given(name), sweep(3, name=name), float(second))
    flight.give(given("d", worker="v"), sweep(3, name="d"), 0.0)
    late = {now: [a.assign.unit for a in flight.overdue(now)] for now in (10.5, 21.5, 31.5, 32.5)}
    assert late == {10.5: ["a", "d"], 21.5: ["b"], 31.5: [], 32.5: ["c"]}


def test_what_failed_is_waited_for_no_longer_and_its_second_attempt_is() -> None:
    flight = InFlight(UnitTimes(10.0))
    flight.give(given("a", 1, "v"), sweep(3, name="a"), 0.0)
    flight.give(given("a", 2, "w"), sweep(3, name="a"), 0.0)
    flight.hear(events.UnitFailed("v", "a", 1, "broken"), 1.0)
    assert [attempt.assign.attempt for attempt in flight.overdue(11.0)] == [2]


def test_no_attempt_of_a_unit_that_is_done_is_waited_for() -> None:
    flight = InFlight(UnitTimes(10.0))
    flight.give(given("a", 1, "v"), sweep(3, name="a"), 0.0)
    flight.give(given("a", 2, "w"), sweep(3, name="a"), 0.0)
    flight.hear(events.UnitDone("v", "a", 1, {}), 1.0)
    assert list(flight.overdue(99.0)) == []


def test_what_a_worker_held_that_left_is_not_waited_for() -> None:
    flight = InFlight(UnitTimes(10.0))
    flight.give(given("b", 1, "w"), sweep(3, name="b"), 0.0)
    flight.hear(events.WorkerLeft("w"), 1.0)
    assert list(flight.overdue(99.0)) == []


def test_what_a_worker_took_is_learned_from_its_answers() -> None:
    times = UnitTimes(OTHERWISE, factor=7, least_seconds=11)
    flight = InFlight(times)
    for number in range(ENOUGH):
        flight.give(given("a", number), sweep(3, name="a"), 100.0)
        flight.hear(events.UnitDone("w", "a", number, {}), 118.0)
    assert times.expected_seconds(sweep(5)) == pytest.approx(2.0 * 25)
