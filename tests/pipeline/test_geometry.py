"""Boxes and grids against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.geometry import Box, Grid, fixed_size_window, round_up

SMALL = st.integers(-17, 17)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    y0, x0 = draw(SMALL), draw(SMALL)
    return Box(y0, x0, y0 + draw(st.integers(0, 13)), x0 + draw(st.integers(0, 13)))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(y, x) for y in range(box.y0, box.y1) for x in range(box.x0, box.x1)}


GRIDS = st.builds(Grid, st.tuples(st.integers(1, 41), st.integers(1, 41)), st.integers(1, 47))


@pytest.mark.parametrize("corners", [(3, 0, 2, 5), (0, 7, 5, 3)])
def test_a_box_that_ends_before_it_starts_is_refused(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="ends where it starts or later"):
        Box(*corners)


@given(boxes(), boxes())
def test_intersection_overlap_and_containment_are_those_of_sets_of_pixels(a: Box, b: Box) -> None:
    common = pixels(a) & pixels(b)
    assert pixels(a.intersect(b)) == common
    assert a.overlaps(b) == bool(common)
    if a.area and b.area:
        assert a.contains(b) == (pixels(b) <= pixels(a))


@given(boxes(), SMALL, SMALL)
def test_shifting_to_a_frame_and_back_changes_nothing(box: Box, dy: int, dx: int) -> None:
    outer = Box(dy, dx, dy + 5, dx + 7)
    assert box.relative_to(outer).shift(dy, dx) == box
    assert box.relative_to(outer).shape == box.shape


@given(boxes(), st.integers(1, 7))
def test_reduce_is_the_smallest_box_that_covers(box: Box, factor: int) -> None:
    reduced = box.reduce(factor)
    assert reduced.scale(factor).contains(box)
    touched = {(y // factor, x // factor) for y, x in pixels(box)}
    if touched:
        assert pixels(reduced) == touched


@given(boxes(), st.integers(1, 7))
def test_reduce_undoes_scale(box: Box, factor: int) -> None:
    assert box.scale(factor).reduce(factor) == box


@given(boxes(), st.integers(0, 5))
def test_grow_adds_the_margin_on_all_sides(box: Box, margin_px: int) -> None:
    grown = box.grow(margin_px)
    assert grown.shape == (box.height + 2 * margin_px, box.width + 2 * margin_px)
    assert grown.shift(margin_px, margin_px).as_tuple()[:2] == box.as_tuple()[:2]


@given(boxes())
def test_slices_index_exactly_the_box(box: Box) -> None:
    inside = box.clip((11, 13))
    canvas = np.zeros((2, 11, 13), int)
    canvas[(slice(None), *inside.slices)] = 1
    assert set(map(tuple, np.argwhere(canvas[1]))) == pixels(inside)
    assert canvas[0].sum() == inside.area


@given(GRIDS)
def test_a_grid_covers_every_pixel_exactly_once(grid: Grid) -> None:
    answered = np.zeros(grid.shape, int)
    for box in grid:
        answered[box.slices] += 1
        assert min(box.shape) > 0
        assert max(box.shape) <= grid.tile_px
    assert (answered == 1).all()
    assert len(list(grid)) == len(grid)


@given(GRIDS, st.data())
def test_numbers_and_cells_of_tiles_agree(grid: Grid, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(grid) - 1))
    assert grid.index(*grid.cell(index)) == index
    row, column = grid.cell(index)
    corner = grid.box(index)
    assert (corner.y0, corner.x0) == (row * grid.tile_px, column * grid.tile_px)


@pytest.mark.parametrize("index", [-1, 6])
def test_a_tile_outside_the_grid_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="of a grid of 6"):
        Grid((5, 7), 3).box(index)


@pytest.mark.parametrize(("shape", "tile_px"), [((0, 5), 3), ((5, 0), 3), ((5, 7), 0)])
def test_an_empty_grid_is_refused(shape: tuple[int, int], tile_px: int) -> None:
    with pytest.raises(ValueError, match="positive shape and tile"):
        Grid(shape, tile_px)


@given(GRIDS, boxes())
def test_cells_touching_a_box_are_those_that_share_a_pixel(grid: Grid, box: Box) -> None:
    touching = {i for i, tile in enumerate(grid) if tile.overlaps(box)}
    assert {grid.index(y, x) for y, x in pixels(grid.cells_touching(box))} == touching


@given(st.integers(0, 997), st.integers(1, 97))
def test_round_up_is_the_next_multiple(value: int, multiple: int) -> None:
    rounded = round_up(value, multiple)
    assert rounded % multiple == 0
    assert 0 <= rounded - value < multiple


@st.composite
def windows(draw: st.DrawFn) -> tuple[Grid, Box, int, tuple[int, int], tuple[int, int], int]:
    """A tile of a plane, with margin and multiple as a plan makes them."""
    multiple = draw(st.sampled_from([1, 2, 3, 5]))
    tile_px = multiple * draw(st.integers(1, 7))
    margin_px = multiple * draw(st.integers(0, 4))
    grid = Grid((draw(st.integers(1, 61)), draw(st.integers(1, 61))), tile_px)
    shape = round_up(grid.shape[0], multiple), round_up(grid.shape[1], multiple)
    core = grid.box(draw(st.integers(0, len(grid) - 1)))
    side = tile_px + 2 * margin_px
    return grid, core, margin_px, (side, side), shape, multiple


@given(windows())
def test_a_fixed_size_window_holds_core_and_margin_where_the_image_has_them(
    case: tuple[Grid, Box, int, tuple[int, int], tuple[int, int], int],
) -> None:
    _, core, margin_px, size, shape, multiple = case
    window = fixed_size_window(core, margin_px, size, shape, multiple)
    assert window.contains(core)
    assert window.contains(core.grow(margin_px).clip(shape))
    assert Box.of(shape).contains(window)


@given(windows())
def test_all_fixed_size_windows_of_a_plane_have_one_shape(
    case: tuple[Grid, Box, int, tuple[int, int], tuple[int, int], int],
) -> None:
    grid, _, margin_px, size, shape, multiple = case
    found = [fixed_size_window(core, margin_px, size, shape, multiple) for core in grid]
    assert {w.shape for w in found} == {(min(size[0], shape[0]), min(size[1], shape[1]))}


@given(windows(), st.integers(0, 7))
def test_a_fixed_size_window_begins_at_a_multiple_whatever_the_margin(
    case: tuple[Grid, Box, int, tuple[int, int], tuple[int, int], int], margin_px: int
) -> None:
    _, core, _, size, shape, multiple = case
    window = fixed_size_window(core, margin_px, size, shape, multiple)
    assert window.y0 % multiple == window.x0 % multiple == 0
    assert Box.of(shape).contains(window)
