"""What counts as late."""

from __future__ import annotations

from statistics import median_high

from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.events import UnitRef
from saccade.workers.straggling import FEWEST, REMEMBERED, Paces, is_late, is_long


def unit(work: float = 1.0, family: str = "sweep 1") -> UnitRef:
    return UnitRef("u", "a", "sweep", family=family, work=work)


@given(st.lists(st.floats(0.001, 1e6), min_size=FEWEST, max_size=3 * REMEMBERED))
def test_the_expected_time_is_the_median_of_the_latest(seconds: list[float]) -> None:
    paces = Paces()
    for one in seconds:
        paces.learn(unit(), one)
    assert paces.expected_seconds(unit()) == median_high(seconds[-REMEMBERED:])


def test_too_few_times_are_no_median_and_families_are_kept_apart() -> None:
    paces = Paces()
    for _ in range(FEWEST):
        assert paces.expected_seconds(unit()) is None
        paces.learn(unit(), 3.0)
        paces.learn(unit(family=""), 3.0)
    assert paces.expected_seconds(unit()) == 3.0
    assert paces.expected_seconds(unit(family="sweep 2")) is None
    assert paces.expected_seconds(unit(family="")) is None


def test_time_is_expected_to_grow_with_work() -> None:
    paces = Paces()
    for work in (2, 3, 5, 7, 11):
        paces.learn(unit(work), 13.0 * work)
    assert paces.expected_seconds(unit(17)) == 13.0 * 17


def test_units_answered_along_with_others_say_nothing_of_time() -> None:
    paces = Paces()
    for _ in range(99):
        paces.learn(unit(), 0.0)
    assert paces.expected_seconds(unit()) is None


def test_late_is_three_times_the_usual_but_never_what_is_short_or_unknown() -> None:
    assert is_late(21.1, 7.0)
    assert not is_late(20.9, 7.0)
    assert not is_late(1.9, 0.01)
    assert not is_late(1e9, None)
    assert is_long(2.0)
    assert not is_long(1.9)
    assert not is_long(None)
