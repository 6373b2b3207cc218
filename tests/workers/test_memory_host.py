from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.pipeline.errors import PlanError
from saccade.workers.memory import Budget
from saccade.workers.memory_host import LaneNeeds, lane_budgets, workers_that_fit

MIB = 2**20

hosts = st.builds(Budget, st.integers(0, 2**36), st.integers(0, 2**32))
needs_ = st.builds(
    LaneNeeds, st.integers(1, 2**31), st.just("look"), st.integers(1, 2**30), st.just("glance")
)


def needs(window: int, unit: int) -> LaneNeeds:
    return LaneNeeds(window, "look", unit, "glance")


@given(hosts, st.integers(1, 17), needs_)
def test_all_workers_together_stay_within_what_the_host_allows(
    host: Budget, workers: int, least: LaneNeeds
) -> None:
    assume(workers_that_fit(host, workers, least) == workers)
    lanes = lane_budgets(host, workers, least)
    filling = least.unit_nbytes
    each = host.reserved_nbytes + lanes.read_nbytes + lanes.write_nbytes + filling
    assert workers * each <= host.allowed_nbytes
    assert lanes.read_nbytes >= least.window_nbytes
    assert lanes.write_nbytes >= least.unit_nbytes


@given(hosts, st.integers(1, 17), needs_)
def test_lanes_are_refused_exactly_where_the_least_does_not_fit(
    host: Budget, workers: int, least: LaneNeeds
) -> None:
    fits = (host.reserved_nbytes + least.least_nbytes) * workers <= host.allowed_nbytes
    assert fits == (workers_that_fit(host, workers, least) == workers)
    if fits:
        lane_budgets(host, workers, least)
    else:
        with pytest.raises(PlanError, match="--memory"):
            lane_budgets(host, workers, least)


def test_what_is_spare_goes_to_reading_first_and_then_to_writing() -> None:
    def lanes(allowed: int) -> tuple[int, int]:
        made = lane_budgets(
            Budget(allowed), 1, needs(7, 11), most_read_nbytes=17, most_write_nbytes=23
        )
        return made.read_nbytes, made.write_nbytes

    least = 7 + 2 * 11
    assert lanes(least) == (7, 11)
    assert lanes(least + 3) == (10, 11)
    assert lanes(least + 10) == (17, 11)
    assert lanes(least + 15) == (17, 16)
    assert lanes(least + 1009) == (17, 23)


def test_a_batch_or_unit_beyond_the_usual_most_still_gets_its_room() -> None:
    lanes = lane_budgets(
        Budget(1009), 1, needs(101, 103), most_read_nbytes=17, most_write_nbytes=23
    )
    assert (lanes.read_nbytes, lanes.write_nbytes) == (101, 103)


@pytest.mark.parametrize(
    ("host", "window", "unit", "offender"),
    [
        (Budget(900 * MIB, 30 * MIB), 701 * MIB, 211 * MIB, "pass 'look': a batch of windows"),
        (Budget(900 * MIB, 30 * MIB), 401 * MIB, 311 * MIB, "pass 'glance': two units hold"),
        (Budget(900 * MIB, 800 * MIB), 101 * MIB, 31 * MIB, "what each worker reserves is most"),
    ],
)
def test_a_refusal_names_the_worst_offender(
    host: Budget, window: int, unit: int, offender: str
) -> None:
    with pytest.raises(PlanError) as refused:
        lane_budgets(host, 1, needs(window, unit))
    assert str(refused.value).startswith(offender)
    assert "allow at least" in str(refused.value)


def test_where_fewer_workers_would_fit_the_refusal_says_how_many() -> None:
    with pytest.raises(PlanError) as refused:
        lane_budgets(Budget(1000 * MIB, 100 * MIB), 7, needs(50 * MIB, 51 * MIB))
    for part in ("at most 3 workers", "needs 152 MiB", "beside the 100 MiB", "1/7 of 1000 MiB"):
        assert part in str(refused.value)


def test_workers_that_need_nothing_all_fit() -> None:
    assert workers_that_fit(Budget(7), 5, needs(0, 0)) == 5
