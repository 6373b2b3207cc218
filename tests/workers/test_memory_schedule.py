from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import PlanError, UnitTooLarge
from saccade.workers.memory import Budget, MemoryKey, MemoryModel
from saccade.workers.memory_schedule import (
    Work,
    check_each_fits,
    largest_whole,
    side_by_side,
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


# --------------------------------------------------------------------------------- several at once


def work(batch: int, *shape: int, model: MemoryModel = MODEL, name: str = "look") -> Work:
    height, width = shape
    return Work(name, model, batch, (height, width))


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


@given(st.dictionaries(st.integers(1, 521), sides, min_size=1, max_size=7))
def test_the_order_of_candidates_does_not_matter(found: dict[int, int]) -> None:
    candidates = {float(k): (side, side) for k, side in found.items()}
    backwards = dict(reversed(candidates.items()))
    budget = Budget(10**12)
    chosen = largest_whole("glance", MODEL, budget, candidates)
    assert chosen == largest_whole("glance", MODEL, budget, backwards)
