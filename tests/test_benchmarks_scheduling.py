"""The simulation of scheduling keeps its promises, small, and plays every image through once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scheduling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scheduling as module

    yield module
    for name in ("scheduling", "scheduling_batches", "scheduling_world", "common"):
        sys.modules.pop(name, None)


@pytest.fixture
def case(scheduling: Any) -> Any:
    return scheduling.Case(images=211, workers=8, slow=0.01)


def test_affinity_opens_images_less_often_and_costs_no_time(scheduling: Any, case: Any) -> None:
    kept = scheduling.outcome(case)
    spread = scheduling.outcome(replace(case, affinity=False))
    assert kept.opens < spread.opens / 2
    assert kept.makespan < 1.02 * spread.makespan


def test_backups_shorten_a_run_with_stragglers(scheduling: Any) -> None:
    case = scheduling.Case(images=300, slow=0.01)
    assert (
        scheduling.outcome(case).makespan < scheduling.outcome(replace(case, backup=False)).makespan
    )


def test_the_same_case_gives_the_same_outcome(scheduling: Any, case: Any) -> None:
    assert scheduling.outcome(case) == scheduling.outcome(case)


def test_devices_are_idle_for_less_than_3_percent_of_a_long_run(scheduling: Any) -> None:
    played = scheduling.outcome(scheduling.Case(images=499, workers=4))
    assert played.idle < 0.03
    assert played.tail < 0.02


@pytest.mark.parametrize(("images", "workers"), [(1, 8), (1, 64), (4, 64)])
def test_help_shortens_a_run_over_few_images_and_beats_no_bound(
    scheduling: Any, images: int, workers: int
) -> None:
    case = scheduling.Case(images=images, workers=workers, least_units=16)
    alone, helped = (
        scheduling.Batches(replace(case, help=rule)).run()
        for rule in (scheduling.NO_HELP, scheduling.HELP_RULE)
    )
    assert helped.least_seconds < helped.now < alone.now
    assert alone.helped == 0 < helped.helped
