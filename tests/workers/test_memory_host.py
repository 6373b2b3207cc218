from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import UsageError
from saccade.workers.memory import Budget
from saccade.workers.memory_host import (
    MOST_READ_NBYTES,
    MOST_WRITE_NBYTES,
    WORKING_NBYTES,
    LaneBudgets,
    share_of,
    workers_that_fit,
)

GIB = 2**30
sizes = st.integers(0, 2**40)


@given(sizes, st.integers(0, 2**33), st.integers(1, 64), st.booleans())
def test_all_workers_together_stay_within_what_the_host_allows(
    allowed: int, reserved: int, workers: int, processes: bool
) -> None:
    host = Budget(allowed, reserved)
    share = share_of(host, workers, processes=processes)
    own = reserved if processes else 0  # threads share what the process holds already
    held = reserved + workers * (own + share.free_nbytes)
    assert held <= max(allowed, reserved + workers * own)


@given(sizes)
def test_lanes_take_their_part_and_no_more_than_helps(free: int) -> None:
    lanes = LaneBudgets.within(free)
    assert lanes.read_nbytes == min(free // 8, MOST_READ_NBYTES)
    assert lanes.write_nbytes == min(free // 4, MOST_WRITE_NBYTES)


@given(sizes, sizes, sizes, sizes)
def test_a_batch_or_a_unit_beyond_its_budget_is_counted_as_it_is(
    read: int, write: int, batch: int, unit: int
) -> None:
    held = LaneBudgets(read, write).held_nbytes(batch, unit)
    assert held == max(read, batch) + unit + max(write, unit)


@given(sizes, st.integers(0, 2**31), st.integers(1, 64), st.booleans())
def test_no_more_workers_are_started_than_have_something_to_work_with(
    allowed: int, reserved: int, wanted: int, processes: bool
) -> None:
    host = Budget(allowed, reserved)
    try:
        count = workers_that_fit(host, wanted, processes=processes)
    except UsageError:
        count = 0
    for tried in range(1, wanted + 1):
        free = share_of(host, tried, processes=processes).free_nbytes
        assert (tried <= count) == (free >= WORKING_NBYTES)


def test_where_not_one_worker_fits_the_refusal_says_what_would_do() -> None:
    with pytest.raises(UsageError, match=r"hold 1\.00 GiB .*, and 768 MiB are allowed.*1\.25 GiB"):
        workers_that_fit(Budget(3 * GIB // 4, GIB // 2), 2, processes=True)
    assert workers_that_fit(Budget(3 * GIB // 4, GIB // 2), 2, processes=False) == 1
