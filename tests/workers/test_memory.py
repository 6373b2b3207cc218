from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.workers.memory import Account, Budget, MemoryKey, MemoryModel, Probe

KEY = MemoryKey("sha256:5f", "float32", "channels_last", "cpu")
MIB = 2**20

shapes = st.tuples(st.integers(1, 4099), st.integers(1, 4099))
batches = st.integers(1, 67)
probes = st.builds(Probe, batches, shapes, st.integers(0, 2**40))
models = st.builds(
    MemoryModel,
    st.just(KEY),
    st.integers(0, 2**36),
    st.floats(0, 5003),
    st.integers(0, 2**32),
    st.floats(0, 0.5),
    st.lists(probes, max_size=3).map(tuple),
)
budgets = st.builds(Budget, st.integers(0, 2**40), st.integers(0, 2**36))


def fit(*points: tuple[int, int]) -> MemoryModel:
    """A model fitted to pairs of pixels and bytes."""
    return MemoryModel.fit(KEY, [Probe(1, (1, pixels), nbytes) for pixels, nbytes in points])


def squares(model: MemoryModel | tuple[float, float], points: list[tuple[int, int]]) -> float:
    base, slope = (
        (model.base_nbytes, model.nbytes_per_px) if isinstance(model, MemoryModel) else model
    )
    return sum((base + slope * x - y) ** 2 for x, y in points)


# ----------------------------------------------------------------------------------- the line


@given(st.integers(0, 2**36), st.integers(0, 5003), st.lists(shapes, min_size=3, max_size=7))
def test_probes_on_a_line_give_that_line_to_the_byte(
    base: int, slope: int, sizes: list[tuple[int, int]]
) -> None:
    assume(len({h * w for h, w in sizes}) > 1)
    model = MemoryModel.fit(KEY, [Probe(3, (h, w), base + slope * 3 * h * w) for h, w in sizes])
    assert (model.base_nbytes, model.nbytes_per_px, model.residual_nbytes) == (base, slope, 0)


@given(
    st.lists(st.tuples(st.integers(1, 997), st.integers(0, 10007)), min_size=3, max_size=7),
    st.floats(0, 10007),
    st.floats(0, 97),
)
def test_no_line_without_negative_parts_is_closer_to_the_probes(
    points: list[tuple[int, int]], base: float, slope: float
) -> None:
    assume(len({x for x, _ in points}) > 1)
    model = fit(*points)
    slack = 1 + 2 * 10007 * len(points)  # the base is rounded up by less than a byte
    assert squares(model, points) <= squares((base, slope), points) + slack


def test_a_line_that_would_fall_is_flat_and_one_that_would_begin_below_zero_begins_at_zero() -> (
    None
):
    falling = fit((2, 13), (3, 11), (5, 6))
    assert (falling.base_nbytes, falling.nbytes_per_px) == (10, 0.0)
    steep = fit((2, 0), (3, 0), (5, 19))
    assert (steep.base_nbytes, steep.nbytes_per_px) == (0, 5 * 19 / (4 + 9 + 25))


@given(st.lists(probes, min_size=3, max_size=7))
def test_no_probe_is_further_from_the_line_than_the_residual_says(found: list[Probe]) -> None:
    assume(len({p.pixels for p in found}) > 1)
    model = MemoryModel.fit(KEY, found)
    assert model.residual_nbytes == max(
        abs(p.measured_nbytes - model.predict(p.batch, p.shape)) for p in found
    )
    assert all(p.measured_nbytes <= model.safe(p.batch, p.shape) for p in found)


def test_two_probes_or_three_of_one_size_are_too_few() -> None:
    with pytest.raises(ValueError, match="3 probes of at least two sizes"):
        fit((2, 3), (5, 7))
    with pytest.raises(ValueError, match="3 probes of at least two sizes"):
        fit((2, 3), (2, 5), (2, 7))


# ------------------------------------------------------------------------------- projections


@pytest.mark.parametrize(("device", "margin"), [("cpu", 0.5), ("cuda:NVIDIA A100", 0.1)])
def test_resident_memory_keeps_a_larger_margin_than_a_device_with_its_own_allocator(
    device: str, margin: float
) -> None:
    found = [Probe(1, (1, side), 7 * side) for side in (3, 5, 11)]
    key = replace(KEY, device=device)
    assert MemoryModel.fit(key, found).margin == margin
    assert MemoryModel.fit(key, found, margin=0.2).margin == 0.2


def test_the_projection_is_base_and_slope_and_the_margin_is_kept_apart() -> None:
    model = MemoryModel(KEY, 1009, 7.0, residual_nbytes=13, margin=0.5)
    projected = 1009 + 7 * 2 * 3 * 5
    assert model.predict(2, (3, 5)) == projected
    assert model.safe(2, (3, 5)) == projected + 610 + 13  # half of 1219, rounded up
    assert model.predict(2, (3, 5)) == replace(model, margin=0).predict(2, (3, 5))


@given(models, batches, shapes, batches, shapes)
def test_more_pixels_never_need_less(
    model: MemoryModel,
    batch: int,
    shape: tuple[int, int],
    more: int,
    grown: tuple[int, int],
) -> None:
    larger = (batch + more, (shape[0] + grown[0], shape[1] + grown[1]))
    assert model.predict(batch, shape) <= model.predict(*larger)
    assert model.safe(batch, shape) <= model.safe(*larger)
    assert model.predict(batch, shape) <= model.safe(batch, shape)


@given(models, budgets, batches, shapes)
def test_what_fits_is_within_what_is_allowed_with_its_margin(
    model: MemoryModel, budget: Budget, batch: int, shape: tuple[int, int]
) -> None:
    needed = budget.reserved_nbytes + model.safe(batch, shape)
    assert model.fits(budget, batch, shape) == (needed <= budget.allowed_nbytes)


@given(models, budgets)
def test_the_largest_forward_pass_that_fits_is_the_largest(
    model: MemoryModel, budget: Budget
) -> None:
    most = model.most_px(budget)
    if most:
        assert model.fits(budget, 1, (1, most))
    if most < sys.maxsize:
        # but for the last bits of a product of floats
        assert not model.fits(budget, 1, (1, most + 2 + most // 2**40))


# ---------------------------------------------------------------------------------- learning


@given(models, budgets, batches, shapes, batches, shapes)
def test_what_ran_out_of_memory_no_longer_fits_and_nothing_is_projected_lower(
    model: MemoryModel,
    budget: Budget,
    batch: int,
    shape: tuple[int, int],
    other_batch: int,
    other_shape: tuple[int, int],
) -> None:
    taught = model.taught_by(budget, batch, shape)
    assert not taught.fits(budget, batch, shape)
    assert taught.predict(other_batch, other_shape) >= model.predict(other_batch, other_shape)


def test_a_lesson_that_was_known_changes_nothing() -> None:
    model = MemoryModel(KEY, 1009, 7.0)
    assert model.taught_by(Budget(1013), 11, (3, 5)) == model


# -------------------------------------------------------------------------------- written down


@given(models)
def test_a_model_is_the_same_after_json(model: MemoryModel) -> None:
    assert MemoryModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@pytest.mark.parametrize("schema", [0, 2, None])
def test_a_model_of_another_schema_is_refused(schema: Any) -> None:
    tree = MemoryModel(KEY, 2, 3.0).to_dict() | {"schema": schema}
    with pytest.raises(ValueError, match="schema 1 expected"):
        MemoryModel.from_dict(tree)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MemoryModel(KEY, -1, 3.0),
        lambda: MemoryModel(KEY, 1, -3.0),
        lambda: MemoryModel(KEY, 1, float("nan")),
        lambda: MemoryModel(KEY, 1, 3.0, margin=-0.1),
        lambda: Probe(0, (3, 5), 7),
        lambda: Probe(1, (3, 0), 7),
        lambda: Probe(1, (3, 5), -7),
        lambda: Budget(-1),
        lambda: Budget(2, -1),
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="found"):
        wrong()


# ------------------------------------------------------------------------------------ budgets


def test_what_is_free_is_allowed_less_reserved_and_never_negative() -> None:
    assert Budget(13, 5).free_nbytes == 8
    assert Budget(13, 5).reserving(3).free_nbytes == 5
    assert Budget(5, 13).free_nbytes == 0


@given(st.integers(0, 2**40), st.integers(0, 2**30), st.integers(1, 17))
def test_workers_that_share_a_budget_stay_within_it_together(
    allowed: int, reserved: int, workers: int
) -> None:
    each = Budget(allowed, reserved).shared_by(workers)
    assert each.reserved_nbytes == reserved
    assert each.allowed_nbytes * workers <= allowed < (each.allowed_nbytes + 1) * workers


def test_an_account_says_the_four_words_and_how_far_off_the_projection_was() -> None:
    before = Account.of(Budget(101 * MIB, 11 * MIB), 7 * MIB)
    assert str(before) == "allowed 101 MiB, reserved 11.0 MiB, projected 7.00 MiB"
    assert before.error is None
    after = replace(before, measured_nbytes=5 * MIB)
    assert str(after).endswith("projected 7.00 MiB, measured 5.00 MiB")
    assert after.error == pytest.approx(0.4)
    assert after.to_dict() == {
        "allowed_nbytes": 101 * MIB,
        "reserved_nbytes": 11 * MIB,
        "projected_nbytes": 7 * MIB,
        "measured_nbytes": 5 * MIB,
    }
