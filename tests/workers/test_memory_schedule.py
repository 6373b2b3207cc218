from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import PlanError, UnitTooLarge
from saccade.workers.memory import Budget, MemoryKey, MemoryModel
from saccade.workers.memory_schedule import (
    Work,
    back_off,
    check_each_fits,
    choose_batch,
    choose_window,
    largest_whole,
    side_by_side,
    useful_share,
    whole_candidates,
)

MODEL = MemoryModel(MemoryKey("sha256:5f", "float32", "contiguous", "cpu"), 1009, 7.0, margin=0)
"""1009 bytes and 7 for every pixel."""

models = st.builds(
    lambda base, slope, off: replace(
        MODEL, base_nbytes=base, nbytes_per_px=slope, residual_nbytes=off, margin=0.1
    ),
    st.integers(0, 10007),
    st.floats(0.5, 997),
    st.integers(0, 101),
)
budgets = st.builds(Budget, st.integers(0, 10**9), st.integers(0, 10**6))
speeds = st.floats(0.01, 1009)
by_size = st.dictionaries(st.integers(1, 521), speeds, min_size=1, max_size=7)
sides = st.integers(1, 521)


def room_for(pixels: int) -> Budget:
    """Just enough for so many pixels of MODEL."""
    return Budget(MODEL.predict(1, (1, pixels)) + 13, 13)


# ---------------------------------------------------------------------------------- resolution


@given(
    st.tuples(st.integers(1, 100_003), st.integers(1, 100_003)),
    st.floats(1, 97),
    st.floats(1, 97),
    st.sampled_from([1, 8, 12]),
)
def test_candidates_keep_to_what_the_recipe_permits_and_cover_the_image(
    shape: tuple[int, int], one: float, other: float, multiple: int
) -> None:
    finest, coarsest = sorted((one, other))
    found = whole_candidates(shape, finest, coarsest, multiple)
    assert {finest, coarsest} <= set(found)
    for downsample, padded in found.items():
        assert finest <= downsample <= coarsest
        for side, whole in zip(padded, shape, strict=True):
            assert side % multiple == 0
            assert 0 <= side - whole / downsample < multiple + 1
            assert side * downsample >= whole - 1e-6 * whole


def test_candidates_are_powers_of_two_two_to_an_octave_and_the_bounds() -> None:
    found = whole_candidates((1009, 2003), 3, 17, 8)
    assert list(found) == pytest.approx([3, 4, 4 * math.sqrt(2), 8, 8 * math.sqrt(2), 16, 17])
    assert found[4] == (256, 504)


def test_bounds_that_are_no_range_are_refused() -> None:
    with pytest.raises(ValueError, match="1 <= finest <= coarsest"):
        whole_candidates((1009, 2003), 5, 3)


@given(models, budgets, st.dictionaries(st.floats(1, 97), st.tuples(sides, sides), min_size=1))
def test_the_glance_is_the_finest_that_fits_or_refused(
    model: MemoryModel, budget: Budget, candidates: dict[float, tuple[int, int]]
) -> None:
    fitting = [d for d, shape in candidates.items() if model.fits(budget, 1, shape)]
    if fitting:
        assert largest_whole("glance", model, budget, candidates) == min(fitting)
    else:
        with pytest.raises(PlanError, match="the coarsest permitted"):
            largest_whole("glance", model, budget, candidates)


def test_one_byte_less_makes_the_glance_coarser() -> None:
    candidates = {2.0: (11, 13), 3.0: (7, 11), 5.0: (5, 7)}
    enough = room_for(7 * 11)
    short = replace(enough, allowed_nbytes=enough.allowed_nbytes - 1)
    assert largest_whole("glance", MODEL, enough, candidates) == 3.0
    assert largest_whole("glance", MODEL, short, candidates) == 5.0


def test_a_refused_glance_says_what_it_needs_what_is_free_and_what_to_do() -> None:
    with pytest.raises(PlanError) as refused:
        largest_whole("glance", MODEL, Budget(1024, 24), {2.0: (11, 13), 5.0: (5, 7)})
    for part in ("pass 'glance'", "5 x 7 px", "1.22 KiB", "1000 B are free", "allowed 1.00 KiB",
                 "reserved 24 B", "1/5", "'tile'", "more memory"):  # fmt: skip
        assert part in str(refused.value)


# ----------------------------------------------------------------------------- batch and window


@given(by_size, models, budgets, st.tuples(sides, sides))
def test_the_batch_fits_is_fast_enough_and_none_smaller_is(
    throughputs: dict[int, float], model: MemoryModel, budget: Budget, shape: tuple[int, int]
) -> None:
    fitting = {b: s for b, s in throughputs.items() if model.fits(budget, b, shape)}
    if not fitting:
        with pytest.raises(UnitTooLarge, match=f"batch of {min(throughputs)} "):
            choose_batch(throughputs, model, budget, shape)
        return
    chosen = choose_batch(throughputs, model, budget, shape)
    enough = 0.95 * max(fitting.values())
    assert fitting[chosen] >= enough
    assert all(fitting[b] < enough for b in fitting if b < chosen)


def test_the_fastest_batch_is_not_taken_where_a_smaller_one_is_nearly_as_fast() -> None:
    measured = {1: 70.0, 2: 95.0, 4: 100.0, 8: 103.0}
    shape = (3, 5)
    assert choose_batch({**measured, 8: 100.0}, MODEL, room_for(8 * 15), shape) == 2
    assert choose_batch(measured, MODEL, room_for(8 * 15), shape) == 4
    assert choose_batch(measured, MODEL, room_for(8 * 15 - 1), shape) == 2
    assert choose_batch(measured, MODEL, room_for(8 * 15), shape, tolerance=0) == 8
    assert choose_batch(measured, MODEL, room_for(2 * 15 - 1), shape) == 1


@given(by_size, models, budgets, st.integers(0, 67), st.integers(1, 5))
def test_the_window_fits_with_its_halo_and_none_smaller_gives_as_many_useful_pixels(
    throughputs: dict[int, float], model: MemoryModel, budget: Budget, halo: int, batch: int
) -> None:
    useful = {
        side: speed * side**2 / (side + 2 * halo) ** 2
        for side, speed in throughputs.items()
        if model.fits(budget, batch, (side + 2 * halo, side + 2 * halo))
    }
    if not useful:
        with pytest.raises(UnitTooLarge, match="a batch of"):
            choose_window(throughputs, model, budget, halo, batch=batch)
        return
    chosen = choose_window(throughputs, model, budget, halo, batch=batch)
    assert useful[chosen] >= 0.95 * max(useful.values()) * (1 - 1e-12)
    smaller = [useful[side] for side in useful if side < chosen]
    assert all(speed < 0.95 * max(useful.values()) * (1 + 1e-12) for speed in smaller)


def test_a_halo_makes_the_larger_window_win_although_it_computes_no_faster() -> None:
    same = {128: 7.0, 256: 7.0, 512: 7.0}
    plenty = Budget(10**9)
    assert choose_window(same, MODEL, plenty, halo_px=0) == 128
    assert choose_window(same, MODEL, plenty, halo_px=32) == 512
    assert useful_share(128, 32) == (128 / 192) ** 2


# -------------------------------------------------------------------------------- out of memory


def work(batch: int, *shape: int, model: MemoryModel = MODEL, name: str = "look") -> Work:
    height, width = shape
    return Work(name, model, batch, (height, width))


def tries(first: Work, smallest_px: int, multiple: int) -> Iterator[Work]:
    """All that is tried while nothing is learned and all runs out of memory, then the refusal."""
    now = first
    while True:
        yield now
        batch, shape = back_off(now, Budget(10**12), smallest_px, multiple)
        now = replace(now, batch=batch, shape=shape)


def test_the_batch_is_halved_before_the_window_and_then_the_unit_is_too_large() -> None:
    tried: list[tuple[int, int, int]] = []
    with pytest.raises(UnitTooLarge, match="smallest tile alone"):
        tried.extend((now.batch, *now.shape) for now in tries(work(7, 48, 40), 16, 8))
    assert tried == [(7, 48, 40), (3, 48, 40), (1, 48, 40), (1, 24, 24), (1, 16, 16)]


@given(models, st.integers(1, 67), sides, sides, st.integers(0, 10**9), st.integers(1, 8))
def test_learning_from_out_of_memory_ends_at_what_fits_or_at_the_smallest_tile(
    model: MemoryModel, batch: int, height: int, width: int, has_nbytes: int, multiple: int
) -> None:
    budget, smallest_px = Budget(10**9), 2 * multiple
    truth = replace(MODEL, nbytes_per_px=499.0)
    now = work(batch, height, width, model=model)
    for _ in range(2 + batch.bit_length() + 2 * max(height, width).bit_length()):
        if truth.predict(now.batch, now.shape) <= has_nbytes:
            return
        now = replace(now, model=now.model.taught_by(budget, now.batch, now.shape))
        if now.batch == 1 and max(now.shape) <= smallest_px:
            with pytest.raises(UnitTooLarge):
                back_off(now, budget, smallest_px, multiple)
            return
        known = now.model.predict(now.batch, now.shape)
        batch, shape = back_off(now, budget, smallest_px, multiple)
        now = replace(now, batch=batch, shape=shape)
        assert now.model.predict(batch, shape) <= known
    pytest.fail(f"still at {now.batch} x {now.shape}")


def test_at_batch_one_and_the_smallest_tile_the_refusal_says_what_to_do() -> None:
    with pytest.raises(UnitTooLarge) as refused:
        back_off(work(1, 16, 16), Budget(101), 16, 8)
    for part in ("pass 'look'", "batch of 1 of 16 x 16 px", "101 B are free", "smallest tile",
                 "--gpu-memory"):  # fmt: skip
        assert part in str(refused.value)


def test_sizes_that_a_taught_model_rules_out_are_passed_over() -> None:
    taught = MODEL.taught_by(Budget(100_000), 8, (32, 32))
    assert back_off(work(8, 32, 32, model=taught), Budget(100_000), 8) == (4, (32, 32))
    assert back_off(work(8, 32, 32, model=taught), Budget(20_000), 8) == (1, (32, 32))
    assert back_off(work(8, 32, 32, model=taught), Budget(5_000), 8) == (1, (16, 16))


def test_one_smallest_tile_is_tried_even_where_it_is_not_expected_to_fit() -> None:
    assert back_off(work(8, 32, 32), Budget(0), 8) == (1, (8, 8))


# --------------------------------------------------------------------------------- several at once


@given(st.lists(st.builds(work, st.integers(1, 7), sides, sides), min_size=1), budgets)
def test_any_so_many_works_fit_together(works: list[Work], budget: Budget) -> None:
    needs = sorted(w.safe_nbytes for w in works)
    if needs[-1] > budget.free_nbytes:
        with pytest.raises(UnitTooLarge):
            side_by_side(works, budget)
        return
    count = side_by_side(works, budget)
    assert 1 <= count <= len(works)
    assert sum(needs[-count:]) <= budget.free_nbytes
    if count < len(works):
        assert sum(needs[-count - 1 :]) > budget.free_nbytes


def test_the_worst_offender_is_named() -> None:
    works = [work(2, 3, 5, name="glance"), work(3, 7, 11, name="look"), work(1, 5, 7, name="last")]
    with pytest.raises(UnitTooLarge, match=r"^pass 'look': a batch of 3 of 7 x 11 px needs"):
        check_each_fits(works, Budget(1024))
    check_each_fits(works, room_for(3 * 7 * 11))
    check_each_fits([], Budget(0))


@pytest.mark.parametrize(
    "choose",
    [
        lambda t, b: choose_batch(t, MODEL, b, (3, 5)),
        lambda t, b: choose_window(t, MODEL, b, 3),
        lambda t, b: largest_whole("glance", MODEL, b, {float(k): (k, k) for k in t}),
    ],
)
@given(throughputs=by_size)
def test_the_order_of_candidates_does_not_matter(
    choose: Callable[[Any, Budget], float], throughputs: dict[int, float]
) -> None:
    backwards = dict(reversed(throughputs.items()))
    plenty = Budget(10**12)
    assert choose(throughputs, plenty) == choose(backwards, plenty)
