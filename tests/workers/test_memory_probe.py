from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_models
import numpy as np
import pytest
import torch
from fakes import noise, plane_spec
from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.pipeline.errors import UnitTooLarge
from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import PassModel, Views
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers import memory_probe
from saccade.workers.device import Predictor
from saccade.workers.device_meter import allowed_memory, budget_of, meter_for
from saccade.workers.device_simulated import SimulatedDevice
from saccade.workers.memory import Budget, MemoryKey, MemoryModel
from saccade.workers.memory_limits import HostMemory, most_resident_nbytes, resident_nbytes
from saccade.workers.memory_probe import (
    ClearedPeak,
    HighWater,
    Meter,
    SampledPeak,
    host_meter,
    probe,
    probe_sizes,
)
from saccade.workers.memory_schedule import Work, back_off
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.reading import WindowPixels

MIB = 2**20
KEY = MemoryKey("sha256:5f", "float32", "contiguous", "simulated")


def simulated(base: int, slope: float, limit: int, off: int = 0) -> SimulatedDevice:
    return SimulatedDevice(fake_models.constant(), base, slope, limit, off)


# ------------------------------------------------------------------------------- probing


@given(st.integers(0, 2**36), st.integers(0, 997), st.integers(3, 1009), st.integers(0, 10007))
def test_probes_of_a_device_predict_it_within_their_margin_whatever_the_noise(
    base: int, slope: int, side: int, off: int
) -> None:
    device = simulated(base, slope, 2**62, off)
    sizes = probe_sizes(side)
    model = MemoryModel.fit(KEY, probe(device.allocate, device, sizes))
    assert all(device.held_nbytes(*size) <= model.safe(*size) for size in sizes)
    if not off:
        assert (model.base_nbytes, model.nbytes_per_px) == (base, slope)


def test_small_probes_come_first_and_each_is_measured_again() -> None:
    device = simulated(7, 3, 2**40)
    found = probe(device.allocate, device, [(2, (5, 7)), (1, (3, 5)), (1, (11, 13))])
    assert device.asked == [(1, (3, 5))] * 2 + [(2, (5, 7))] * 2 + [(1, (11, 13))] * 2
    assert [p.measured_nbytes for p in found] == [7 + 3 * 15, 7 + 3 * 70, 7 + 3 * 143]


def test_a_probe_that_runs_out_of_memory_says_so() -> None:
    device = simulated(7, 3, 7 + 3 * 70)
    with pytest.raises(torch.OutOfMemoryError, match="batch of 1 of 11 x 13 px"):
        probe(device.allocate, device, [(1, (11, 13)), (1, (3, 5)), (2, (5, 7))])


@given(st.integers(3, 5003), st.sampled_from([1, 8, 32]))
def test_three_sizes_are_probed_none_alike_and_the_largest_is_the_one_asked_for(
    side: int, multiple: int
) -> None:
    assume(side >= 3 * multiple)
    shapes = [shape for _, shape in probe_sizes(side, multiple)]
    assert len(set(shapes)) == 3
    assert all(height == width and height % multiple == 0 for height, width in shapes)
    assert 0 <= max(shapes)[0] - side < multiple


def test_a_side_too_small_to_probe_is_refused() -> None:
    with pytest.raises(ValueError, match="three times 8 px"):
        probe_sizes(16, 8)


# --------------------------------------------------------------------------- simulated device


def test_a_simulated_device_answers_as_its_model_does_until_memory_runs_out() -> None:
    device = SimulatedDevice(fake_models.echo(), 11, 2.0, 11 + 2 * 3 * 5 * 7)
    pixels = torch.rand(3, 3, 5, 7)
    assert torch.equal(device(Views(pixels)).scores, pixels[:, :1])
    assert device.spec == device.model.spec
    assert device.peak_nbytes() == 11 + 2 * 3 * 5 * 7
    device.reset()
    with pytest.raises(torch.OutOfMemoryError, match="of 4 of 5 x 7 px, where it has 221"):
        device(Views(torch.rand(4, 3, 5, 7)))
    assert device.peak_nbytes() == 0
    assert device.asked == [(3, (5, 7)), (4, (5, 7))]


def test_noise_depends_on_the_size_alone() -> None:
    one, other = simulated(7, 3, 2**40, 101), simulated(7, 3, 2**40, 101)
    held = [one.held_nbytes(batch, (11, 13)) - 3 * 143 * batch for batch in range(1, 20)]
    assert held == [other.held_nbytes(b, (11, 13)) - 3 * 143 * b for b in range(1, 20)]
    assert len(set(held)) > 10
    assert all(7 <= nbytes <= 7 + 101 for nbytes in held)


SIDE = 7


def predictor(model: PassModel) -> Predictor:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": SIDE}
    )
    return Predictor(model, lay_out(recipe, 1, plane_spec(97, 89), model.spec, Output()), "cpu")


def test_the_predictor_halves_its_batch_on_a_simulated_device_and_answers_the_same() -> None:
    windows = [WindowPixels(noise(SIDE, SIDE + i)[:, :SIDE]) for i in range(7)]
    device = SimulatedDevice(fake_models.echo(), 11, 2.0, 11 + 2 * 2 * SIDE**2)
    answer = predictor(device)(windows)
    assert answer.splits > 0
    assert np.array_equal(answer.scores, predictor(fake_models.echo())(windows).scores)
    assert {batch for batch, _ in device.asked if batch <= 2} == {1, 2}
    with pytest.raises(UnitTooLarge):
        predictor(SimulatedDevice(fake_models.echo(), 11, 2.0, 11))(windows)


@given(st.integers(1, 67), st.integers(0, 10**6), st.integers(0, 10**7))
def test_a_model_taught_by_a_simulated_device_finds_what_fits_it(
    batch: int, base: int, limit: int
) -> None:
    """The device is worse than its model believes, as after a change of library."""
    device = simulated(base, 97, limit)
    budget = Budget(10**7)
    work = Work("look", MemoryModel(KEY, 0, 2.0), batch, (64, 64))
    try:
        settled = settle(device, work, budget)
    except UnitTooLarge:
        assert device.asked[-1] == (1, (16, 16))
        assert device.held_nbytes(1, (16, 16)) > limit
    else:
        assert device.held_nbytes(settled.batch, settled.shape) <= limit
    assert len(device.asked) <= 7 + 2 + 1
    assert len(set(device.asked)) == len(device.asked)


def settle(device: SimulatedDevice, work: Work, budget: Budget) -> Work:
    while True:
        try:
            device.allocate(work.batch, work.shape)
        except torch.OutOfMemoryError:
            model = work.model.taught_by(budget, work.batch, work.shape)
        else:
            return work
        smaller = back_off(Work(work.name, model, work.batch, work.shape), budget, 16)
        work = Work(work.name, model, *smaller)


# -------------------------------------------------------------------------------------- budgets


def test_without_a_limit_nine_tenths_of_what_is_available_are_allowed() -> None:
    assert budget_of(HostMemory(1009, 700), 101, None) == Budget(101 + 630, 101)


@pytest.mark.parametrize(
    ("limit", "allowed"), [("500", 500), ("50%", 504), ("900", 801), ("50", 50)]
)
def test_a_limit_is_kept_unless_there_is_less(limit: str, allowed: int) -> None:
    made = budget_of(HostMemory(1009, 700), 101, MemoryLimit.parse(limit))
    assert made == Budget(allowed, 101)


def test_a_cpu_is_allowed_what_its_host_is() -> None:
    budget = allowed_memory("cpu", MemoryLimit(nbytes=3 * 2**30))
    assert budget.allowed_nbytes <= 3 * 2**30
    assert abs(budget.reserved_nbytes - resident_nbytes()) < 64 * MIB
    assert allowed_memory("cpu").free_nbytes > 0


# --------------------------------------------------------------------------------------- meters


def test_the_meter_of_a_cpu_is_its_hosts() -> None:
    assert type(meter_for("cpu")) is type(host_meter())


def may_clear_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@pytest.fixture(params=[ClearedPeak, SampledPeak, HighWater])
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    kind: Callable[[], Meter] = request.param
    if kind is ClearedPeak and not may_clear_peak():
        pytest.skip("this system does not let a process forget its peak")
    made = kind()
    yield made
    made.peak_nbytes()


def touch(nbytes: int) -> None:
    """Hold so much memory, really, until the call returns."""
    held = np.empty(nbytes, np.uint8)
    held[:: 4096 // 2] = 1


def test_a_meter_sees_what_was_held_and_let_go(meter: Meter) -> None:
    # more than this process ever held besides, because one of the meters can't forget
    nbytes = 67 * MIB
    if isinstance(meter, HighWater):
        nbytes += most_resident_nbytes() - resident_nbytes()
    meter.reset()
    if isinstance(meter, SampledPeak):
        held = np.ones(nbytes, np.uint8)  # still held when the meter takes its last look
        measured = meter.peak_nbytes()
        del held
    else:
        touch(nbytes)
        measured = meter.peak_nbytes()
    assert measured == pytest.approx(67 * MIB, abs=8 * MIB)


def test_a_peak_that_was_forgotten_does_not_come_back() -> None:
    if not may_clear_peak():
        pytest.skip("this system does not let a process forget its peak")
    meter = ClearedPeak()
    touch(131 * MIB)
    meter.reset()
    touch(17 * MIB)
    assert meter.peak_nbytes() == pytest.approx(17 * MIB, abs=8 * MIB)


def test_the_best_meter_that_the_system_allows_is_taken(tmp_path: Path) -> None:
    assert isinstance(host_meter(tmp_path), HighWater)
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("VmHWM: 17 kB\nVmRSS: 11 kB\n")
    assert isinstance(host_meter(tmp_path), ClearedPeak)
    status.with_name("clear_refs").unlink()
    status.with_name("clear_refs").mkdir()  # can't be written to
    assert isinstance(host_meter(tmp_path), SampledPeak)


def test_the_sampling_meter_follows_what_rises_and_falls(tmp_path: Path) -> None:
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("VmRSS: 11 kB\n")
    meter = SampledPeak(tmp_path, seconds=1009)  # looks at the beginning and the end alone
    meter.reset()
    status.write_text("VmRSS: 29 kB\n")
    assert meter.peak_nbytes() == 18 * 1024
    status.write_text("VmRSS: 13 kB\n")
    meter.reset()
    assert meter.peak_nbytes() == 2 * 1024


def test_a_c_library_that_can_not_give_memory_back_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def library(_: Any) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    memory_probe.give_back()


# --------------------------------------------------------------------------------- a real network

NETWORK = """
import json, torch
from fake_models import UNet
from saccade.workers.memory import MemoryKey, MemoryModel
from saccade.workers.memory_probe import ClearedPeak, probe, probe_sizes

torch.set_num_threads(1)
network = UNet().eval()

@torch.inference_mode()
def run(batch, shape):
    network(torch.zeros(batch, 3, *shape))

run(1, (64, 64))
meter = ClearedPeak()
key = MemoryKey("sha256:5f", "float32", "contiguous", "cpu")
model = MemoryModel.fit(key, probe(run, meter, probe_sizes(1024, 8)))
sizes = [(1, (896, 640)), (1, (1024, 1024)), (4, (512, 512)), (2, (768, 1024))]
print(json.dumps([
    (model.predict(*size), model.safe(*size), probe(run, meter, [size])[0].measured_nbytes)
    for size in sizes
]))
"""
"""In a process of its own: what a heap keeps depends on all that ran before."""


def projected_safe_and_measured(**environment: str) -> list[tuple[int, int, int]]:
    if not may_clear_peak():
        pytest.skip("this system does not let a process forget its peak")
    told = subprocess.run(
        [sys.executable, "-c", NETWORK],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [(a, b, c) for a, b, c in json.loads(told.stdout)]


def test_three_probes_predict_what_a_network_holds_on_a_cpu_within_a_tenth() -> None:
    """With a heap that keeps nothing back (glibc), so that tensors alone are measured."""
    found = projected_safe_and_measured(MALLOC_MMAP_THRESHOLD_=str(2**16))
    for projected, _, measured in found:
        assert projected == pytest.approx(measured, rel=0.1)


def test_what_a_heap_keeps_besides_is_within_the_margin_of_a_cpu() -> None:
    for _, safe, measured in projected_safe_and_measured():
        assert measured <= safe
