"""Workers and threads that suit a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.hardware import (
    LANE_NBYTES,
    MOST_CPU_WORKERS,
    WorkerChoice,
    lane_threads,
    threads_per_worker,
    worker_count,
)

AMPLE = 2**50
ANY = WorkerChoice("local")


def lanes(processors: int, memory_nbytes: int = AMPLE) -> tuple[int, int]:
    threads = threads_per_worker(processors, memory_nbytes)
    return worker_count(ANY, 0, processors, threads), threads


@pytest.mark.parametrize(
    ("processors", "expected"), [(1, (1, 1)), (2, (2, 1)), (8, (8, 1)), (16, (8, 2)), (64, (8, 8))]
)
def test_lanes_come_before_threads_up_to_a_number(
    processors: int, expected: tuple[int, int]
) -> None:
    assert lanes(processors) == expected
    assert expected[0] <= MOST_CPU_WORKERS


@pytest.mark.parametrize(
    ("processors", "fitting", "expected"),
    [(2, 1, (1, 2)), (8, 3, (2, 3)), (8, 1, (1, 8)), (8, 0, (1, 8)), (64, 4, (4, 16))],
)
def test_where_memory_carries_fewer_lanes_each_has_more_threads(
    processors: int, fitting: int, expected: tuple[int, int]
) -> None:
    assert lanes(processors, fitting * LANE_NBYTES) == expected


@given(st.integers(1, 512), st.integers(0, 64))
def test_no_more_lanes_than_fit_and_no_more_threads_than_processors(
    processors: int, fitting: int
) -> None:
    count, threads = lanes(processors, fitting * LANE_NBYTES)
    assert count <= max(1, fitting)
    assert count * threads <= processors


def test_a_stated_number_of_workers_is_kept() -> None:
    assert worker_count(WorkerChoice("ray", 5), 0, 2, 1) == 5
    assert worker_count(ANY, 3, 64, 1) == 3


def test_beside_a_gpu_the_processors_read_and_write_and_else_they_compute() -> None:
    assert lane_threads(0, 64, 8) == (2, 1)
    assert lane_threads(1, 16, 1) == (8, 4)
    assert lane_threads(4, 64, 8) == (4, 2)
    assert lane_threads(1, 1, 3) == (2, 1)
