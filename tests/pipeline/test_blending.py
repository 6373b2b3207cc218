"""Weights that add up, and windows that agree giving their common value back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.blending import Blend, hann_weights
from saccade.pipeline.geometry import Box, Grid, fixed_size_window


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Grid, int]:
    """Tiles that are at least as large as their flanks, and the margin."""
    margin_px = draw(st.integers(0, 5))
    tile_px = draw(st.integers(max(1, 2 * margin_px), 13))
    shape = draw(st.integers(1, 41)), draw(st.integers(1, 41))
    return Grid(shape, tile_px), margin_px


def window(grid: Grid, core: Box, margin_px: int) -> Box:
    side = grid.tile_px + 2 * margin_px
    return fixed_size_window(core, margin_px, (side, side), grid.shape, 1)


@given(tilings())
def test_every_weight_is_above_0_and_at_most_1(case: tuple[Grid, int]) -> None:
    grid, margin_px = case
    for core in grid:
        weights = hann_weights(core, window(grid, core, margin_px), margin_px, grid.shape)
        assert weights.dtype == np.float32
        assert weights.min() > 0
        assert weights.max() <= 1


@given(st.integers(0, 5), st.integers(0, 7), st.integers(1, 5), st.integers(1, 5))
def test_the_weights_of_neighbours_add_up_to_one(
    margin_px: int, more_px: int, rows: int, columns: int
) -> None:
    tile_px = 2 * margin_px + more_px + 1
    grid = Grid((rows * tile_px, columns * tile_px), tile_px)
    total = np.zeros(grid.shape)
    for core in grid:
        read = core.grow(margin_px).clip(grid.shape)
        total[read.slices] += hann_weights(core, read, margin_px, grid.shape)
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_without_a_margin_only_the_core_counts() -> None:
    weights = hann_weights(Box(3, 5, 5, 7), Box(2, 4, 6, 8), 0, (11, 13))
    assert (weights[1:3, 1:3] == 1).all()
    assert weights.sum() == pytest.approx(4, abs=1e-3)


def blended(grid: Grid, margin_px: int, region: Box, scores: np.ndarray) -> np.ndarray:
    blend = Blend(len(scores), region)
    for core in grid:
        read = window(grid, core, margin_px)
        if read.overlaps(region):
            weights = hann_weights(core, read, margin_px, grid.shape)
            blend.add(read, scores[(slice(None), *read.slices)], weights)
    return blend.result()


@given(tilings(), st.floats(0, 1, width=32))
def test_windows_that_agree_give_a_constant_back_bit_for_bit(
    case: tuple[Grid, int], value: float
) -> None:
    grid, margin_px = case
    scores = np.full((2, *grid.shape), value, np.float32)
    found = blended(grid, margin_px, Box.of(grid.shape), scores)
    assert found.dtype == np.float32
    assert (found == scores).all()


@given(tilings(), st.integers(0, 997))
def test_windows_that_agree_give_any_map_back_bit_for_bit(
    case: tuple[Grid, int], seed: int
) -> None:
    grid, margin_px = case
    scores = np.random.default_rng(seed).random((2, *grid.shape), np.float32)
    assert (blended(grid, margin_px, Box.of(grid.shape), scores) == scores).all()


@given(tilings(), st.data())
def test_a_region_holds_what_the_whole_holds_there(
    case: tuple[Grid, int], data: st.DataObject
) -> None:
    grid, margin_px = case
    region = grid.box(data.draw(st.integers(0, len(grid) - 1)))
    generator = np.random.default_rng(3)
    answers = {core: generator.random((1, 41, 41), np.float32) for core in grid}

    def blend(region: Box) -> np.ndarray:
        found = Blend(1, region)
        for core, answer in answers.items():
            read = window(grid, core, margin_px)
            weights = hann_weights(core, read, margin_px, grid.shape)
            if read.overlaps(region):
                found.add(read, answer[:, : read.height, : read.width], weights)
        return found.result()

    whole = blend(Box.of(grid.shape))
    assert (blend(region) == whole[(slice(None), *region.slices)]).all()


def test_two_windows_that_differ_are_averaged_by_weight() -> None:
    blend = Blend(1, Box(0, 0, 1, 1))
    blend.add(Box(0, 0, 1, 1), np.full((1, 1, 1), 0.2, np.float32), np.full((1, 1), 0.75))
    blend.add(Box(0, 0, 1, 1), np.full((1, 1, 1), 0.6, np.float32), np.full((1, 1), 0.25))
    assert blend.result()[0, 0, 0] == pytest.approx(0.3)


def test_where_no_window_answers_there_is_nothing() -> None:
    blend = Blend(2, Box(5, 7, 8, 9))
    blend.add(Box(4, 6, 6, 8), np.ones((2, 2, 2), np.float32), np.ones((2, 2), np.float32))
    found = blend.result()
    assert (found[:, 0, 0] == 1).all()
    assert np.isnan(found).sum() == 2 * 5
