"""Exits: who leaves, what stays out, and how two passes are compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.change import read_change, shared_classes
from saccade.pipeline.compose import compose_region
from saccade.pipeline.exit_rules import (
    AllExits,
    AnyExit,
    ConfidenceExit,
    ConvergenceExit,
    ExitRule,
)
from saccade.pipeline.exits import (
    CHANGE,
    ExitRecord,
    exit_columns,
    from_runs,
    leave,
    left_before,
    to_runs,
)
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import tiles_touching
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.saliency import Column, TileTable
from saccade.pipeline.store import ImageStore

SHAPE = (5, 7)
CONFIDENT = ConfidenceExit(at_least=0.9)
CONVERGED = ConvergenceExit(within=0.02)
IMAGE = {"scope": "image", "share": 0.7}

values = st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, float("nan")])
columns = st.lists(values, min_size=35, max_size=35).map(lambda v: np.array(v, np.float32))
masks = st.lists(st.booleans(), min_size=35, max_size=35).map(
    lambda flags: np.array(flags).reshape(SHAPE)
)


def table(doubt: np.ndarray, change: np.ndarray) -> TileTable:
    return TileTable({Column("doubt", "top"): doubt, Column(CHANGE, "mean"): change})


@given(columns, columns, masks)
def test_a_tile_leaves_when_it_was_asked_and_its_own_number_says_so(
    doubt: np.ndarray, change: np.ndarray, asked: np.ndarray
) -> None:
    sure = leave(CONFIDENT, table(doubt, change), asked).left
    assert (sure == (asked & (doubt.reshape(SHAPE) <= np.float32(0.1)))).all()
    same = leave(CONVERGED, table(doubt, change), asked).left
    assert (same == (asked & (change.reshape(SHAPE) <= np.float32(0.02)))).all()


@given(columns, columns, masks, st.sampled_from([0.1, 0.5, 1.0]))
def test_an_image_leaves_as_a_whole_when_its_share_is_reached(
    doubt: np.ndarray, change: np.ndarray, asked: np.ndarray, share: float
) -> None:
    rule = ConfidenceExit(at_least=0.9, scope="image", share=share)
    alone = leave(CONFIDENT, table(doubt, change), asked).left
    found = leave(rule, table(doubt, change), asked)
    reached = asked.any() and alone.sum() >= share * asked.sum()
    assert (found.left == (asked & reached)).all()
    assert list(found.agreed.values()) == [alone.sum()]


@given(columns, columns, masks)
def test_any_and_all_are_the_union_and_the_intersection(
    doubt: np.ndarray, change: np.ndarray, asked: np.ndarray
) -> None:
    parts: tuple[ExitRule, ...] = (CONFIDENT, ConvergenceExit(within=0.05, **IMAGE))
    alone = [leave(part, table(doubt, change), asked).left for part in parts]
    either = leave(AnyExit(of=parts), table(doubt, change), asked)
    both = leave(AllExits(of=parts), table(doubt, change), asked)
    assert (either.left == (alone[0] | alone[1])).all()
    assert (both.left == (alone[0] & alone[1])).all()
    assert either.agreed == both.agreed
    assert json.loads(json.dumps(either.to_dict()))["of"] == asked.sum()


@given(columns, columns, masks, masks)
def test_whoever_was_not_asked_never_leaves(
    doubt: np.ndarray, change: np.ndarray, asked: np.ndarray, fewer: np.ndarray
) -> None:
    tree = AnyExit(of=(AllExits(of=(CONFIDENT, CONVERGED)), ConvergenceExit(within=0.5, **IMAGE)))
    assert not (leave(tree, table(doubt, change), asked & fewer).left & ~(asked & fewer)).any()


@given(columns, columns, masks, st.floats(0.5, 1), st.floats(0.5, 1))
def test_asking_for_more_confidence_lets_fewer_go(
    doubt: np.ndarray, change: np.ndarray, asked: np.ndarray, a: float, b: float
) -> None:
    low, high = (
        leave(ConfidenceExit(at_least=c), table(doubt, change), asked).left for c in sorted((a, b))
    )
    assert not (high & ~low).any()


def test_a_rule_needs_each_column_once() -> None:
    tree = AnyExit(of=(CONFIDENT, AllExits(of=(CONVERGED, CONFIDENT))))
    assert exit_columns(tree) == (Column("doubt", "top"), Column(CHANGE, "mean"))


@given(masks)
def test_the_record_keeps_who_left_in_runs(flags: np.ndarray) -> None:
    assert (from_runs(to_runs(flags), SHAPE) == flags).all()
    tree = json.loads(json.dumps(ExitRecord(flags, None).to_dict()))
    assert (from_runs(tree["left_runs"], SHAPE) == flags).all()


# From pass to pass


def marks(layout: PassLayout, seed: int, density: float) -> np.ndarray:
    grid = layout.tiles
    found: np.ndarray = np.random.default_rng(seed).random((grid.rows, grid.columns)) < density
    return found


DENSITIES = st.sampled_from([0.0, 0.3, 0.8, 0.97, 1.0])


@given(seed=st.integers(0, 997), density=DENSITIES)
def test_a_tile_is_left_out_only_where_all_of_its_ground_left(
    results: Any, seed: int, density: float
) -> None:
    sizes = ((7, 17), (4, 24), (1, 32))  # tiles that do not nest
    first, second, third = (
        results.layout(str(i), i, (211, 307), downsample, tile=tile, chunk=tile, shard=tile)
        for i, (downsample, tile) in enumerate(sizes)
    )
    gone = marks(first, seed, density)
    in_third = left_before(second, third, left_before(first, second, gone))
    assert not (in_third & tiles_touching(first, third, ~gone)).any()
    more = gone | marks(first, seed + 1, 0.5)
    later = left_before(second, third, left_before(first, second, more))
    assert not (in_third & ~later).any()


@given(seed=st.integers(0, 997), density=DENSITIES)
def test_what_left_stays_out_of_every_later_pass_that_nests(
    results: Any, seed: int, density: float
) -> None:
    sizes = ((8, 8), (4, 8), (1, 16))
    first, second, third = (
        results.layout(str(i), i, (211, 307), downsample, tile=tile)
        for i, (downsample, tile) in enumerate(sizes)
    )
    gone = marks(first, seed, density)
    in_third = left_before(second, third, left_before(first, second, gone))
    assert (in_third == left_before(first, third, gone)).all()


# Comparing two passes


def two_passes(results: Any) -> ImagePlan:
    image = (97, 131)
    coarse = results.layout("glance", 0, image, 7, tile=17, chunk=17, shard=17, window_tiles=0)
    fine = results.layout("look", 1, image, 2, tile=24, chunk=12, shard=24)
    plan: ImagePlan = results.plan_of((coarse, fine), scores="float32")
    return plan


@pytest.mark.parametrize("box", [Box(0, 0, 49, 66), Box(5, 11, 24, 13), Box(48, 65, 49, 66)])
def test_the_change_is_what_a_pass_changed_in_the_fused_result(
    results: Any, make_store: Callable[[ImagePlan], ImageStore], box: Box
) -> None:
    plan = two_passes(results)
    store = make_store(plan)
    answers = results.random_answers(plan, 7)
    results.write_pass(store, 0, answers[0])
    before = compose_region(store, plan, Box.of(plan.shape)).scores
    results.write_pass(store, 1, answers[1])
    after = compose_region(store, plan, Box.of(plan.shape)).scores
    expected = np.abs(after - before).mean(axis=0)[box.slices]
    found = read_change(store, *plan.passes, box)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_where_a_pass_gave_no_answer_there_is_no_change(
    results: Any, make_store: Callable[[ImagePlan], ImageStore]
) -> None:
    plan = two_passes(results)
    store = make_store(plan)
    scores, status = results.random_answers(plan, 7)[1]
    status[0, 1] = 0
    results.write_pass(store, 0, results.random_answers(plan, 7)[0])
    results.write_pass(store, 1, (scores, status))
    found = read_change(store, *plan.passes, Box.of(plan.shape))
    unanswered = np.zeros(plan.shape, bool)
    unanswered[:24, 24:48] = True
    assert (np.isnan(found) == unanswered).all()


def test_passes_are_compared_by_the_classes_that_both_have(results: Any) -> None:
    one = results.layout("one", 0, (64, 64), 2, classes=("a", "b", "c"))
    two = results.layout("two", 1, (64, 64), 1, classes=("d", "c", "a"))
    assert shared_classes(one, two) == ("c", "a")


# In a recipe


def recipe(*exits: dict[str, Any] | None) -> Recipe:
    passes = [
        {"name": f"p{i}", "resolution": {"level": 0}, "model": "builtin:tissue", "exit": rule}
        for i, rule in enumerate(exits)
    ]
    return Recipe.model_validate({"passes": passes})


def test_an_exit_that_can_decide_nothing_is_refused() -> None:
    confident = {"by": "confidence", "at_least": 0.9}
    converged = {"by": "any", "of": [{"by": "convergence", "within": 0.1}]}
    assert recipe(confident, converged, None).passes[1].exit is not None
    with pytest.raises(ValueError, match="none follows the last pass"):
        recipe(None, confident)
    with pytest.raises(ValueError, match="the first pass has no earlier answer"):
        recipe(converged, None)
    with pytest.raises(ValueError, match="share goes with 'scope: image'"):
        recipe(confident | {"share": 0.5}, None)
