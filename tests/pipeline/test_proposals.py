"""Regions against a flood fill, proposals against RAMS-Trans' rule, and the selector of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.proposals import propose
from saccade.pipeline.regions import regions_of
from saccade.pipeline.saliency import cell_grid, cells_per_tile, needed_columns, score_tiles
from saccade.pipeline.selection import Selection, select
from saccade.pipeline.selectors import Proposals, Threshold, TopFraction

TILE = 64
CELLS = 2
RATIO = 8.0
GRID = Grid((11 * TILE, 13 * TILE - 17), TILE)


def flooded(mask: np.ndarray) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Area and box of every region, found cell by cell."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        stack, region = [min(left)], []
        left.discard(stack[0])
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            around = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= around
            stack.extend(around)
        ys, xs = zip(*region, strict=True)
        found.append((len(region), (min(ys), min(xs), max(ys) + 1, max(xs) + 1)))
    return found


@given(st.integers(0, 9973), st.integers(1, 23), st.integers(1, 29), st.floats(0, 1))
def test_regions_are_those_of_a_flood_fill(
    seed: int, height: int, width: int, density: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    found = regions_of(mask)
    boxes = [tuple(box) for box in found.boxes.tolist()]
    assert sorted(zip(found.areas.tolist(), boxes, strict=True)) == sorted(flooded(mask))


def test_a_region_that_winds_back_and_forth_is_one() -> None:
    mask = np.zeros((41, 37), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert regions_of(mask).areas.tolist() == [int(mask.sum())]


@given(st.integers(0, 997), st.floats(0.2, 3), st.floats(0, 5), st.integers(1, 4))
def test_every_region_above_the_floor_is_proposed_in_a_box_that_holds_it(
    seed: int, alpha: float, min_area: float, cells: int
) -> None:
    values = np.random.default_rng(seed).gamma(0.3, size=(7 * cells, 11 * cells))
    values = values.astype(np.float32)
    found = propose(values, cells, alpha, min_area)
    assert found.threshold == pytest.approx(alpha * values.mean(), rel=1e-5)
    expected = [
        (area, (y0 // cells, x0 // cells, -(-y1 // cells), -(-x1 // cells)))
        for area, (y0, x0, y1, x1) in flooded(values > np.float32(found.threshold))
        if area / cells**2 >= min_area
    ]
    areas = [round(area * cells**2) for area in found.areas.tolist()]
    boxes = [tuple(box) for box in found.boxes.tolist()]
    assert sorted(zip(areas, boxes, strict=True)) == sorted(expected)
    assert areas == sorted(areas, reverse=True)


def attention(*regions: tuple[Box, float]) -> np.ndarray:
    """A map at an eighth of the grid's resolution, faint but for some boxes."""
    shape = -(-GRID.shape[0] // 8), -(-GRID.shape[1] // 8)
    values = np.full(shape, 0.02, np.float32)
    for box, value in regions:
        values[box.slices] = value
    return values


# 2 by 3 tiles, less a pixel on each side; and a single cell, a quarter of a tile, far away.
LARGE = Box(9, 17, 23, 39)
SMALL = Box(64, 72, 68, 76)
TWO = attention((LARGE, 0.9), (SMALL, 0.7))


def choose(
    selector: Any, values: np.ndarray, candidates: np.ndarray | None = None, **changes: Any
) -> Selection:
    table = score_tiles(
        needed_columns(selector),
        GRID,
        RATIO,
        (values.shape[0], values.shape[1]),
        lambda box: (values[box.slices][None], values[box.slices]),
        ("it",),
        **changes,
    )
    n = len(GRID)
    pool = np.ones(n, bool) if candidates is None else candidates
    facts = {"cost_px": np.full(n, TILE**2), "forced": np.zeros(n, bool)}
    return select(selector, table, grid=GRID, candidates=pool, **facts)


def tiles_of(box: Box) -> set[int]:
    return set(GRID.indices(GRID.cells_touching(box.scale(8))))


def test_two_regions_of_an_attention_map_are_both_found() -> None:
    found = choose(Proposals(alpha=2, min_area=0.25), TWO)
    assert set(found.tiles) == tiles_of(LARGE) | tiles_of(SMALL)
    assert len(tiles_of(SMALL)) == 1
    assert found.thresholds == {"proposals": pytest.approx(2 * TWO.mean(), rel=0.02)}
    why = dict(zip(found.tiles, (found.reasons[i] for i in found.reason_of), strict=True))
    assert {why[tile].split(":")[0] for tile in tiles_of(LARGE)} == {"proposal 1"}
    assert {why[tile].split(":")[0] for tile in tiles_of(SMALL)} == {"proposal 2"}


def test_a_region_below_the_floor_is_left_out() -> None:
    found = choose(Proposals(alpha=2, min_area=0.5), TWO)
    assert set(found.tiles) == tiles_of(LARGE)


def test_every_tile_of_a_box_is_chosen_also_where_the_region_leaves_it_empty() -> None:
    corner = attention((Box(8, 16, 12, 64), 0.9), (Box(8, 16, 56, 20), 0.9))
    found = choose(Proposals(alpha=2), corner)
    assert set(found.tiles) == tiles_of(Box(8, 16, 56, 64))


def test_regions_that_touch_at_a_corner_are_one() -> None:
    corners = attention((Box(8, 8, 16, 16), 0.9), (Box(16, 16, 24, 24), 0.9))
    found = choose(Proposals(alpha=2), corners)
    assert set(found.tiles) == tiles_of(Box(8, 8, 24, 24))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_map_that_is_the_same_all_over_proposes_nothing(value: float) -> None:
    found = choose(Proposals(), np.full_like(TWO, value))
    assert found.tiles == ()
    assert found.thresholds == {}


def test_the_mean_is_that_of_the_candidates_and_only_candidates_are_chosen() -> None:
    everywhere = choose(Proposals(alpha=1), TWO)
    around_small = np.zeros(len(GRID), bool)
    around_small[list(tiles_of(SMALL))] = True
    found = choose(Proposals(alpha=1, min_area=0), TWO, candidates=around_small)
    assert set(found.tiles) == tiles_of(SMALL)
    assert found.thresholds["proposals"] > everywhere.thresholds["proposals"]


def test_proposals_stand_in_the_tree_of_selectors() -> None:
    within = Proposals(alpha=2, within=Threshold(at_least=0.8, statistic="max"))
    assert set(choose(within, TWO).tiles) <= tiles_of(LARGE)
    best = TopFraction(fraction=0.5, within=Proposals(alpha=2, min_area=0))
    assert len(choose(best, TWO).tiles) == 4  # of 7


@given(st.integers(1, 4001))
def test_reading_in_strips_changes_no_proposal(strip_px: int) -> None:
    selector = Proposals(alpha=2, min_area=0, cells=4)
    assert choose(selector, TWO, strip_px=strip_px) == choose(selector, TWO)


def test_more_regions_than_have_names_share_a_reason() -> None:
    grid = Grid((64 * 4, 64 * 4), 4)
    values = np.zeros((64, 64), np.float32)
    values[::3, ::3] = 1
    selector = Proposals(alpha=2, min_area=0, cells=1)
    table = score_tiles(
        needed_columns(selector),
        grid,
        4.0,
        (64, 64),
        lambda box: (values[box.slices][None], values[box.slices]),
        ("it",),
    )
    n = len(grid)
    facts = {"cost_px": np.ones(n, int), "forced": np.zeros(n, bool)}
    found = select(selector, table, grid=grid, candidates=np.ones(n, bool), **facts)
    assert len(found.tiles) == 22 * 22
    assert len(found.reasons) == 65
    assert found.counts()[found.reasons[-1]] == 22 * 22 - 64
    assert "after the 64 largest" in found.reasons[-1]


@pytest.mark.parametrize(
    ("tile", "wanted", "cells"), [(64, 3, 2), (64, 4, 4), (7, 4, 1), (15, 16, 15)]
)
def test_cells_divide_their_tile(tile: int, wanted: int, cells: int) -> None:
    grid = Grid((211, 307), tile)
    assert cells_per_tile(grid, wanted) == cells
    finer = cell_grid(grid, cells)
    assert -(-finer.rows // cells) == grid.rows
    assert -(-finer.columns // cells) == grid.columns
