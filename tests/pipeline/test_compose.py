from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from saccade.pipeline.compose import LastAnswer, compose_region
from saccade.pipeline.fusion import dequantise, fuse, label, map_classes, quantise, upsample
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.recipe import Fuse
from saccade.pipeline.store import ImageStore
from saccade.pipeline.uniform import is_uniform

MIXED = (0, 1, 1, 2, 255)
Make = Callable[[ImagePlan], ImageStore]


def answered_scores(layout: PassLayout, status: np.ndarray) -> np.ndarray:
    """``(h, w)`` bool: scores that lie in an answered tile; tile by tile."""
    known = np.zeros(layout.score_shape, bool)
    for index, tile in enumerate(layout.tiles):
        known[layout.scores_of(tile).slices] = status[layout.tiles.cell(index)] in (1, 2)
    return known


def whole_image(
    plan: ImagePlan, answers: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The fused result in one go over whole arrays, straight from fusion's functions."""
    fused = np.full((len(plan.classes), *plan.shape), np.nan, np.float32)
    for layout, (stored, status) in zip(plan.passes, answers, strict=True):
        known = answered_scores(layout, status)
        scores = map_classes(dequantise(stored), layout.classes, plan.classes)
        scores = np.where(known, scores, np.float32(np.nan))
        ratio = layout.score_downsample / plan.last.score_downsample
        whole = Box.of(plan.shape)
        fine = upsample(scores, (0, 0), ratio, whole, layout.score_shape)
        flags = known[None].astype(np.float32)
        where = upsample(flags, (0, 0), ratio, whole, layout.score_shape, "nearest")[0] > 0
        fused = fuse(plan.fuse, fused, fine, where)
    labels = label(quantise(fused, plan.scores), plan.label_threshold)
    labels[np.isnan(fused).any(axis=0)] = LABEL_UNKNOWN
    return quantise(fused, plan.scores), labels


def stored(
    make_store: Make, plan: ImagePlan, answers: list[tuple[np.ndarray, np.ndarray]]
) -> ImageStore:
    store = make_store(plan)
    for layout, (scores, status) in zip(plan.passes, answers, strict=True):
        store.write(f"passes/{layout.name}/scores", Box.of(layout.score_shape), scores)
        cells = Box(0, 0, *status.shape)
        store.write(f"passes/{layout.name}/status", cells, status)
    return store


@pytest.mark.parametrize("scores", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("name", get_args(Fuse))
def test_regions_are_parts_of_the_whole_image_composed_at_once(
    make_store: Make, three_passes: ImagePlan, results: Any, name: Fuse, scores: Any
) -> None:
    plan = replace(three_passes, fuse=name, scores=scores)
    answers = results.random_answers(plan, 17, MIXED)
    store = stored(make_store, plan, answers)
    expected, labels = whole_image(plan, answers)
    for region in [Box.of(plan.shape), Box(3, 5, 4, 6), Box(31, 32, 77, 101), *plan.last.shards]:
        fused = compose_region(store, plan, region)
        np.testing.assert_array_equal(fused.scores, expected[(slice(None), *region.slices)])
        np.testing.assert_array_equal(fused.labels, labels[region.slices])


@pytest.mark.parametrize("sides_px", [(7, 3), (32, 16), (64, 32)])
@pytest.mark.parametrize("states", [MIXED, (0,), (1,), (0, 1)])
def test_the_size_of_blocks_changes_no_value(
    make_store: Make,
    three_passes: ImagePlan,
    results: Any,
    monkeypatch: pytest.MonkeyPatch,
    sides_px: tuple[int, int],
    states: tuple[int, ...],
) -> None:
    monkeypatch.setattr("saccade.pipeline.compose.BLOCK_PX", sides_px[0])
    monkeypatch.setattr("saccade.pipeline.compose.MIXED_BLOCK_PX", sides_px[1])
    answers = results.random_answers(three_passes, 31, MIXED)
    answers[-1] = results.random_answers(three_passes, 37, states)[-1]
    fused = compose_region(
        stored(make_store, three_passes, answers), three_passes, Box.of(three_passes.shape)
    )
    expected, labels = whole_image(three_passes, answers)
    np.testing.assert_array_equal(fused.scores, expected)
    np.testing.assert_array_equal(fused.labels, labels)


def test_ground_that_no_pass_tells_apart_holds_one_pixel(
    make_store: Make, three_passes: ImagePlan, results: Any
) -> None:
    glance, look, stare = three_passes.passes
    strangers = (replace(glance, classes=("x",)), replace(look, classes=("x",)), stare)
    plan = replace(three_passes, passes=strangers)
    answers = results.random_answers(plan, 41)
    answers[2] = np.zeros_like(answers[2][0]), np.zeros_like(answers[2][1])
    fused = compose_region(stored(make_store, plan, answers), plan, Box.of(plan.shape))
    assert is_uniform(fused.scores)
    expected, labels = whole_image(plan, answers)
    np.testing.assert_array_equal(fused.scores, expected)
    np.testing.assert_array_equal(fused.labels, labels)


def test_what_the_writer_holds_counts_as_if_it_were_stored(
    make_store: Make, three_passes: ImagePlan, results: Any
) -> None:
    plan = three_passes
    answers = results.random_answers(plan, 19, MIXED)
    whole = stored(make_store, plan, answers)
    scores, status = answers[-1]
    region = Box(32, 64, 64, 96)
    expected = compose_region(whole, plan, region)
    whole.drop("passes/stare")
    part, state = scores[(slice(None), *region.slices)], status[plan.coverage_box(region).slices]
    found = compose_region(whole, plan, region, LastAnswer(part, state))
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_classes_are_matched_by_name_and_an_unknown_background_is_the_rest(
    make_store: Make, three_passes: ImagePlan, results: Any
) -> None:
    glance, look, stare = three_passes.passes
    passes = (glance, replace(look, classes=("b", "c")), stare)
    plan = replace(three_passes, passes=passes, classes=("background", "b", "a"))
    answers = results.random_answers(plan, 23, MIXED)
    fused = compose_region(stored(make_store, plan, answers), plan, Box.of(plan.shape))
    expected, labels = whole_image(plan, answers)
    np.testing.assert_array_equal(fused.scores, expected)
    np.testing.assert_array_equal(fused.labels, labels)


def test_scores_that_nobody_gave_do_not_darken_their_neighbours(
    make_store: Make, results: Any
) -> None:
    image = (64, 64)
    plan = results.plan_of(
        (
            results.layout("glance", 0, image, 4, tile=8, chunk=8, shard=8),
            results.layout("stare", 1, image, 1, tile=16, chunk=16, shard=16),
        )
    )
    glance = plan.passes[0]
    scores = np.full((2, *glance.score_shape), 211, np.uint8)
    status = np.ones((2, 2), np.uint8)
    status[0, 1], scores[:, :8, 8:] = 255, 0
    nothing = np.zeros((2, 64, 64), np.uint8), np.zeros((4, 4), np.uint8)
    fused = compose_region(
        stored(make_store, plan, [(scores, status), nothing]), plan, Box.of(image)
    )
    assert (fused.scores[:, :, :32] == 211).all()
    assert (fused.scores[:, 32:, :] == 211).all()
    assert (fused.labels[:32, 32:] == LABEL_UNKNOWN).all()
    assert not fused.scores[:, :32, 32:].any()


@pytest.mark.parametrize("value", [0, 151])
def test_a_flat_region_comes_out_as_any_other(
    make_store: Make, three_passes: ImagePlan, results: Any, value: int
) -> None:
    plan = three_passes
    answers = [
        (np.full_like(scores, value), np.ones_like(status))
        for scores, status in results.random_answers(plan, 1)
    ]
    answers[2] = np.zeros_like(answers[2][0]), np.zeros_like(answers[2][1])
    fused = compose_region(stored(make_store, plan, answers), plan, Box.of(plan.shape))
    expected, labels = whole_image(plan, answers)
    np.testing.assert_array_equal(fused.scores, expected)
    np.testing.assert_array_equal(fused.labels, labels)
    assert (fused.scores == value).all()


def with_holes(
    plan: ImagePlan, answers: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[ImagePlan, list[np.ndarray]]:
    """A plan whose image may lack data, and random holes in what its passes stored."""
    plan = replace(plan, passes=tuple(replace(one, holes=True) for one in plan.passes))
    random, holes = np.random.default_rng(59), []
    for layout, (scores, status) in zip(plan.passes, answers, strict=True):
        nodata = random.random(layout.score_shape) < 0.1
        nodata[: layout.score_shape[0] // 3] |= True
        nodata &= answered_scores(layout, status)
        scores[:, nodata | (tiles_as_scores(layout, status) == LABEL_NODATA)] = (
            0 if scores.dtype == np.uint8 else np.nan
        )
        holes.append(nodata)
    return plan, holes


def tiles_as_scores(layout: PassLayout, values: np.ndarray) -> np.ndarray:
    """``(h, w)``: of every score the value of its tile."""
    spread = np.zeros(layout.score_shape, values.dtype)
    for index, tile in enumerate(layout.tiles):
        spread[layout.scores_of(tile).slices] = values[layout.tiles.cell(index)]
    return spread


def whole_image_with_holes(
    plan: ImagePlan, answers: list[tuple[np.ndarray, np.ndarray]], holes: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """As ``whole_image``: no data is what the finest pass that looked says it is."""
    fused = np.full((len(plan.classes), *plan.shape), np.nan, np.float32)
    lacking, whole = np.zeros(plan.shape, bool), Box.of(plan.shape)
    for layout, (stored, status), nodata in zip(plan.passes, answers, holes, strict=True):
        ratio = layout.score_downsample / plan.last.score_downsample

        def nearest(flags: np.ndarray, ratio: float = ratio, one: PassLayout = layout) -> Any:
            plane = flags[None].astype(np.float32)
            return upsample(plane, (0, 0), ratio, whole, one.score_shape, "nearest")[0] > 0

        answered = answered_scores(layout, status)
        empty = tiles_as_scores(layout, status) == LABEL_NODATA
        scores = map_classes(dequantise(stored), layout.classes, plan.classes)
        scores = np.where(answered & ~nodata, scores, np.float32(np.nan))
        fine = upsample(scores, (0, 0), ratio, whole, layout.score_shape)
        fused = fuse(plan.fuse, fused, fine, nearest(answered))
        lacking = np.where(nearest(answered | empty), nearest(nodata | empty), lacking)
    fused[:, lacking] = np.nan
    labels = label(quantise(fused, plan.scores), plan.label_threshold)
    labels[np.isnan(fused).any(axis=0)] = LABEL_UNKNOWN
    labels[lacking] = LABEL_NODATA
    return quantise(fused, plan.scores), labels


@pytest.mark.parametrize("states", [(0, 1, 2, 254, 255), (1, 254), (1,), (0, 254)])
@pytest.mark.parametrize("scores", ["uint8", "float32"])
@pytest.mark.parametrize("name", get_args(Fuse))
def test_no_data_is_what_the_finest_pass_that_looked_says(
    make_store: Make,
    three_passes: ImagePlan,
    results: Any,
    name: Fuse,
    scores: Any,
    states: tuple[int, ...],
) -> None:
    plan = replace(three_passes, fuse=name, scores=scores)
    answers = results.random_answers(plan, 17, states)
    plan, holes = with_holes(plan, answers)
    store = stored(make_store, plan, answers)
    for layout, nodata in zip(plan.passes, holes, strict=True):
        whole = Box.of(layout.score_shape)
        store.write(f"passes/{layout.name}/nodata", whole, nodata.astype(np.uint8))
    expected, labels = whole_image_with_holes(plan, answers, holes)
    for region in [Box.of(plan.shape), Box(31, 32, 77, 101), *list(plan.last.shards)[::7]]:
        fused = compose_region(store, plan, region)
        np.testing.assert_array_equal(fused.scores, expected[(slice(None), *region.slices)])
        np.testing.assert_array_equal(fused.labels, labels[region.slices])
