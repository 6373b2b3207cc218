"""Which workers a run gets of a cluster, as far as that is settled before there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.jobs import workforce
from saccade.jobs.hardware import WorkerChoice
from saccade.jobs.options import RunOptions, WorkerSize
from saccade.jobs.placing import check_memory
from saccade.pipeline.errors import UsageError
from saccade.workers.room import RayPlace
from saccade.workers.tasks import WorkerSpec

CLUSTER = "10.0.0.1:6379"
SPEC = WorkerSpec(Path("run"), "{}", Path())


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(workforce, "gpu_count", lambda: 0)


def options(address: str | None = CLUSTER, device: str = "auto", **size: float) -> RunOptions:
    worker = WorkerSize(**size)  # type: ignore[arg-type]
    return RunOptions(address=address, device=device, worker=worker)


def test_gpus_of_a_cluster_are_out_of_sight_and_counted_on_where_asked_for() -> None:
    assert workforce.gpus_in_reach(options()) == 0
    assert workforce.gpus_in_reach(options(gpus=0.5)) == 1
    assert workforce.gpus_in_reach(options(device="cuda")) == 1
    assert workforce.gpus_in_reach(options(None, device="cuda")) == 0


def test_a_forward_pass_has_a_thread_per_processor_that_its_worker_takes() -> None:
    assert workforce.forward_threads(options(cpus=7)) == 7
    assert workforce.forward_threads(options(cpus=0.5)) == 1
    assert workforce.forward_threads(options(None, cpus=77)) < 77


def test_a_worker_takes_what_is_stated_else_a_processor_per_thread_and_a_gpu() -> None:
    stated = options(cpus=5, gpus=0.25, memory_nbytes=3)
    assert workforce.cluster_place(CLUSTER, "cuda", 2, stated) == RayPlace(CLUSTER, 5, 0.25, 3)
    assert workforce.cluster_place(CLUSTER, "cuda", 2, options()) == RayPlace(CLUSTER, 2, 1.0, 0)
    assert workforce.cluster_place(CLUSTER, "cpu", 2, options()) == RayPlace(CLUSTER, 2, 0.0, 0)


def test_workers_that_share_a_gpu_know_of_each_other() -> None:
    alone = workforce.elsewhere(SPEC, RayPlace(CLUSTER, cpus=8, gpus=1))
    assert (alone.sharing, alone.read_threads, alone.write_threads) == (1, 4, 2)
    assert workforce.elsewhere(SPEC, RayPlace(CLUSTER, gpus=0.25)).sharing == 4
    assert workforce.elsewhere(SPEC, RayPlace(CLUSTER)).read_threads == 1
    assert alone.own_process


def test_no_process_is_made_for_workers_of_this_process() -> None:
    assert workforce.empty_actors(WorkerChoice("local"), "cpu", 1, options(None)) is None


def test_workers_without_memory_to_work_with_are_refused() -> None:
    check_memory(WorkerSize())
    check_memory(WorkerSize(memory_nbytes=2**40))
    with pytest.raises(UsageError, match=r"--worker-memory: .* or more expected"):
        check_memory(WorkerSize(memory_nbytes=2**20))
