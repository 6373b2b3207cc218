"""Workers on the GPUs of one machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fakes import Lab, one_pass
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.recipe import Recipe
from saccade.workers.local import LocalWorkers
from saccade.workers.placement import device_of
from saccade.workers.tasks import WorkerSpec


@given(st.integers(1, 40), st.integers(1, 9))
def test_workers_spread_evenly_over_all_gpus(workers: int, gpus: int) -> None:
    carried = Counter(device_of("cuda", index, gpus) for index in range(workers))
    assert max(carried.values()) == -(-workers // gpus)
    assert max(carried.values()) - min(carried.values()) <= 1
    assert len(carried) == min(workers, gpus)


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_device_that_was_named_is_everybody_s(device: str) -> None:
    assert {device_of(device, index, 4) for index in range(5)} == {device}


def test_local_workers_of_a_run_on_any_gpu_get_one_each_in_turn(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Standing:
        def __init__(self, spec: WorkerSpec, log: object) -> None:
            asked.append(spec.device)

    monkeypatch.setattr("saccade.workers.local.Engine", Standing)
    monkeypatch.setattr("saccade.workers.local.gpu_count", lambda: 2)
    text = Recipe.model_validate(one_pass("echo")).canonical_json()
    for device in ("cuda", "cpu"):
        LocalWorkers(WorkerSpec(Path(lab.folder), text, lab.models, device=device), 3).start()
    assert asked == ["cuda:0", "cuda:1", "cuda:0", "cpu", "cpu", "cpu"]
