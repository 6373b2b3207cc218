"""Runs, regions and objects, against a search that walks from pixel to pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saccade.pipeline.quality.image import add_per_tile
from saccade.pipeline.quality.objects import ObjectFinder, Objects
from saccade.pipeline.quality.runs import highest_under
from saccade.pipeline.regions import Runs, regions

MASKS = st.tuples(st.integers(1, 14), st.integers(1, 17)).flatmap(lambda s: arrays(bool, s))


def drawn(runs: Runs, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each run's number plus 1 at its pixels."""
    image = np.zeros(shape, np.int64)
    for row, start, stop, number in zip(runs.row, runs.start, runs.stop, numbers, strict=True):
        image[row, start:stop] = number + 1
    return image


def regions_by_hand(mask: np.ndarray) -> np.ndarray:
    """Flood fill over eight neighbours, in reading order."""
    image, count = np.zeros(mask.shape, np.int64), 0
    for y, x in zip(*np.nonzero(mask), strict=True):
        if image[y, x]:
            continue
        count += 1
        todo = [(y, x)]
        while todo:
            at = todo.pop()
            image[at] = count
            near = [(at[0] + i, at[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            inside = [n for n in near if 0 <= n[0] < mask.shape[0] and 0 <= n[1] < mask.shape[1]]
            todo += [n for n in inside if mask[n] and not image[n]]
    return image


def spiral(side: int) -> np.ndarray:
    """One long thin region, the hardest for merging."""
    mask = np.zeros((side, side), bool)
    for ring in range(0, side // 2, 2):
        mask[ring, ring : side - ring] = mask[side - 1 - ring, ring : side - ring] = True
        mask[ring : side - ring, ring] = mask[ring : side - ring, side - 1 - ring] = True
        mask[ring + 1, ring] = False
        if ring + 2 < side // 2:
            mask[ring + 2, ring + 1] = True
    return mask


@settings(max_examples=200)
@given(mask=MASKS)
def test_regions_are_those_of_a_flood_fill(mask: np.ndarray) -> None:
    runs = Runs.of(mask)
    np.testing.assert_array_equal(drawn(runs, np.zeros(len(runs), int), mask.shape) > 0, mask)
    np.testing.assert_array_equal(drawn(runs, regions(runs), mask.shape), regions_by_hand(mask))


@pytest.mark.parametrize("side", [9, 41, 97])
def test_a_region_of_many_turns_is_one(side: int) -> None:
    mask = spiral(side)
    runs = Runs.of(mask)
    np.testing.assert_array_equal(drawn(runs, regions(runs), mask.shape), regions_by_hand(mask))


@settings(max_examples=100)
@given(
    mask=MASKS,
    downsample=st.sampled_from([1.0, 2.0, 3.3, 40.0]),
    kind=st.sampled_from(["uint8", "bool", "float32"]),
)
def test_the_highest_score_under_a_run_is_that_of_its_pixels_centres(
    mask: np.ndarray, downsample: float, kind: str
) -> None:
    height, width = (int(np.ceil(side / downsample)) for side in mask.shape)
    values = (np.random.default_rng(5).random((height, width)) * 2).astype(kind)
    runs = Runs.of(mask)
    found = highest_under(runs, values, downsample)
    assert found.dtype == values.dtype
    for row, start, stop, value in zip(runs.row, runs.start, runs.stop, found, strict=True):
        y = min(math.floor((row + 0.5) / downsample), height - 1)
        x = np.minimum(np.floor((np.arange(start, stop) + 0.5) / downsample).astype(int), width - 1)
        assert value == values[y, x].max()


def objects_of(mask: np.ndarray, scores: np.ndarray, seen: np.ndarray, cut: int) -> Objects:
    finder = ObjectFinder()
    for top, bottom in ((0, cut), (cut, len(mask))):
        runs = Runs.of(mask[top:bottom], top)
        finder.add(runs, highest_under(runs, scores, 1), highest_under(runs, seen, 1))
    return finder.objects()


@given(mask=MASKS, cut=st.integers(0, 14))
def test_objects_do_not_depend_on_where_strips_are_cut(mask: np.ndarray, cut: int) -> None:
    rng = np.random.default_rng(7)
    scores, seen = rng.random(mask.shape).astype(np.float32), rng.random(mask.shape) < 0.3
    found = objects_of(mask, scores, seen, min(cut, len(mask)))
    by_hand = regions_by_hand(mask)
    each = [by_hand == number for number in range(1, by_hand.max() + 1)]
    assert found.area.tolist() == [one.sum() for one in each]
    assert found.score.tolist() == [scores[one].max() for one in each]
    assert found.seen.tolist() == [seen[one].any() for one in each]


def test_recall_is_the_share_of_objects_with_a_predicted_pixel_and_sizes_part_them() -> None:
    few = Objects(
        np.array([5, 99, 100, 7000]), np.array([0.2, 0.5, 0.7, 0.9]), np.array([0, 1, 1, 1]) > 0
    )
    assert few.recall(0.5) == 3 / 4
    assert few.seen_share == 3 / 4
    sizes = few.by_size((0, 100, 1000))
    assert {name: len(some) for name, some in sizes.items()} == {
        "0-99": 2,
        "100-999": 1,
        "1000+": 1,
    }
    assert sizes["0-99"].recall(0.5) == 1 / 2
    assert few.at_least(99).recall(0.6) == 2 / 3
    assert np.isnan(Objects.joined([]).recall(0.5))
    assert len(Objects.joined([few, few])) == 8


@given(
    tile_px=st.sampled_from([1.0, 3.0, 4.7, 11.0, 50.0]),
    cut=st.integers(0, 23),
    seed=st.integers(0, 9),
)
def test_every_truth_pixel_counts_for_the_tile_that_holds_its_centre(
    tile_px: float, cut: int, seed: int
) -> None:
    masks = np.random.default_rng(seed).random((2, 23, 31)) < 0.3
    tiles = tuple(int(np.ceil(side / tile_px)) for side in (23, 31))
    totals, expected = np.zeros((2, 2, *tiles), np.int64)
    for top, bottom in ((0, cut), (cut, 23)):
        add_per_tile(totals, masks[:, top:bottom], top, tile_px)
    for k, y, x in np.argwhere(masks):
        expected[k, math.floor((y + 0.5) / tile_px), math.floor((x + 0.5) / tile_px)] += 1
    np.testing.assert_array_equal(totals, expected)
