from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import fake_models
import numpy as np
import pytest
import torch
from fakes import noise, plane_spec
from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.pipeline.errors import UnitTooLarge, UsageError
from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import PassModel, Views
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers.device import Predictor
from saccade.workers.device_meter import allowed_memory, budget_of, meter_for
from saccade.workers.device_simulated import SimulatedMemory, SimulatedModel, simulated_memory
from saccade.workers.memory import Budget, MemoryKey, MemoryModel
from saccade.workers.memory_curve import MemoryCurve
from saccade.workers.memory_limits import HostMemory, resident_nbytes
from saccade.workers.memory_probe import probe, probe_sizes
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.reading import WindowPixels

MIB = 2**20
KEY = MemoryKey("sha256:5f", "float32", "contiguous", "simulated")


def simulated(base: int, slope: float, limit: int, off: int = 0) -> SimulatedMemory:
    return SimulatedMemory(MemoryCurve(limit, base, slope, off))


def echo(base: int, slope: float, limit: int) -> SimulatedModel:
    return SimulatedModel(fake_models.echo(), simulated(base, slope, limit))


# ------------------------------------------------------------------------------- probing


@given(st.integers(0, 2**36), st.integers(0, 997), st.integers(3, 1009), st.integers(0, 10007))
def test_probes_of_a_device_predict_it_within_their_margin_whatever_the_noise(
    base: int, slope: int, side: int, off: int
) -> None:
    device = simulated(base, slope, 2**62, off)
    sizes = probe_sizes(side)
    model = MemoryModel.fit(KEY, probe(device.hold, device, sizes))
    assert all(device.curve.held_nbytes(*size) <= model.safe(*size) for size in sizes)
    if not off:
        assert (model.base_nbytes, model.nbytes_per_px) == (base, slope)


def test_small_probes_come_first_and_each_is_measured_again() -> None:
    device = simulated(7, 3, 2**40)
    found = probe(device.hold, device, [(2, (5, 7)), (1, (3, 5)), (1, (11, 13))])
    assert device.asked == [(1, (3, 5))] * 2 + [(2, (5, 7))] * 2 + [(1, (11, 13))] * 2
    assert [p.measured_nbytes for p in found] == [7 + 3 * 15, 7 + 3 * 70, 7 + 3 * 143]


def test_a_probe_that_runs_out_of_memory_says_so() -> None:
    device = simulated(7, 3, 7 + 3 * 70)
    with pytest.raises(torch.OutOfMemoryError, match="batch of 1 of 11 x 13 px"):
        probe(device.hold, device, [(1, (11, 13)), (1, (3, 5)), (2, (5, 7))])


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
    model = echo(11, 2.0, 11 + 2 * 3 * 5 * 7)
    pixels = torch.rand(3, 3, 5, 7)
    answers = []
    peak = model.memory.peak_nbytes(lambda: answers.append(model(Views(pixels)).scores))
    assert torch.equal(answers[0], pixels[:, :1])
    assert model.spec == model.model.spec
    assert peak == 11 + 2 * 3 * 5 * 7
    assert model.memory.peak_nbytes(lambda: None) == 0
    with pytest.raises(torch.OutOfMemoryError, match="of 4 of 5 x 7 px, where it has 221"):
        model(Views(torch.rand(4, 3, 5, 7)))
    assert model.memory.most_nbytes == peak
    assert model.memory.asked == [(3, (5, 7)), (4, (5, 7))]


@pytest.mark.parametrize(
    ("device", "curve"),
    [
        ("simulated:8GiB", MemoryCurve(8 * 2**30)),
        ("simulated:1000:17", MemoryCurve(1000, 17)),
        ("simulated:1000:17:2.5", MemoryCurve(1000, 17, 2.5)),
    ],
)
def test_a_simulated_device_is_named_by_its_curve(device: str, curve: MemoryCurve) -> None:
    assert MemoryCurve.parse(device) == curve
    assert simulated_memory(device) is simulated_memory(device)
    assert simulated_memory(device).curve == curve


@pytest.mark.parametrize(
    "device", ["simulated", "simulated:", "simulated:50%", "simulated:1:2:x", "simulated:1:2:3:4"]
)
def test_a_simulated_device_without_a_curve_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=r"expected.*; found"):
        MemoryCurve.parse(device)


def test_noise_depends_on_the_size_alone() -> None:
    one, other = simulated(7, 3, 2**40, 101), simulated(7, 3, 2**40, 101)
    held = [one.curve.held_nbytes(batch, (11, 13)) - 3 * 143 * batch for batch in range(1, 20)]
    assert held == [other.curve.held_nbytes(b, (11, 13)) - 3 * 143 * b for b in range(1, 20)]
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
    model = echo(11, 2.0, 11 + 2 * 2 * SIDE**2)
    answer = predictor(model)(windows)
    assert answer.splits > 0
    assert np.array_equal(answer.scores, predictor(fake_models.echo())(windows).scores)
    assert {batch for batch, _ in model.memory.asked if batch <= 2} == {1, 2}
    with pytest.raises(UnitTooLarge):
        predictor(echo(11, 2.0, 11))(windows)


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


def test_a_cpu_s_meter_counts_the_tensors_of_its_own_thread_to_the_byte() -> None:
    def run() -> None:
        first = torch.empty(1009, dtype=torch.uint8)
        second = torch.empty(2003, dtype=torch.uint8)
        del first
        third = torch.empty(503, dtype=torch.uint8)
        del second, third

    def other() -> None:
        while not over.is_set():
            torch.empty(10**7, dtype=torch.uint8)

    over = threading.Event()
    busy = threading.Thread(target=other)
    busy.start()
    try:
        assert meter_for("cpu").peak_nbytes(run) == 1009 + 2003
    finally:
        over.set()
        busy.join()


def test_a_cpu_s_meter_works_in_any_thread_and_after_a_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        torch.empty(7)
        raise ValueError("on purpose")

    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(ValueError, match="on purpose"):
            threads.submit(meter_for("cpu").peak_nbytes, fail).result()
        held = threads.map(meter_for("cpu").peak_nbytes, [lambda: torch.empty(11)] * 5)
        assert list(held) == [44] * 5
    assert capfd.readouterr().err == ""


# --------------------------------------------------------------------------------- a real network


def test_three_small_probes_predict_what_a_network_holds_on_a_cpu_within_a_twentieth() -> None:
    network = fake_models.UNet().eval()

    @torch.inference_mode()
    def run(batch: int, shape: tuple[int, int]) -> None:
        network(torch.zeros(batch, 3, *shape))

    meter = meter_for("cpu")
    model = MemoryModel.fit(KEY, probe(run, meter, probe_sizes(128, 8), repeats=1))
    for size in [(1, (320, 192)), (1, (256, 256)), (4, (128, 136))]:
        [measured] = probe(run, meter, [size], repeats=1)
        assert model.predict(*size) == pytest.approx(measured.measured_nbytes, rel=0.05)
