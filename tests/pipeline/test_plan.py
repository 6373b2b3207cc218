from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import PlanError
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.plan import (
    Unit,
    check_plan,
    group_by_shape,
    merge_tiles,
    plan_sweep,
    single_unit,
    unit_id,
)
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.sources.base import Identity
from saccade.pipeline.store_layout import arrays_of

fits = st.sampled_from([(1, 1, 0), (1, 8, 13), (4, 4, 20), (2, 6, 5), (16, 16, 0), (4, 32, 70)])


@st.composite
def layouts(draw: st.DrawFn, index: int | None = None) -> PassLayout:
    stride, multiple, halo = draw(fits)
    whole = math.lcm(stride, multiple)
    recipe: dict[str, Any] = {
        "name": "one",
        "resolution": {"level": 0},
        "model": "builtin:tissue",
        "tile": draw(st.sampled_from(["auto", whole, 3 * whole, 7 * whole])),
        "window": draw(st.sampled_from(["auto", 1, 64])),
        "batch": draw(st.sampled_from(["auto", 1, 3])),
        "blend": draw(st.sampled_from(["crop", "crop", "hann"])),
    }
    return lay_out(
        PassRecipe.model_validate(recipe),
        draw(st.sampled_from([0, 1])) if index is None else index,
        plane_spec(draw(st.integers(1, 211)), draw(st.integers(1, 211))),
        ModelSpec(("it",), halo, stride, multiple),
        Output(chunk=16, shard=draw(st.sampled_from([16, 64, 256]))),
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[PassLayout, np.ndarray, tuple[Unit, ...]]:
    layout = draw(layouts())
    shape = layout.tiles.rows, layout.tiles.columns
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    chosen = np.random.default_rng(draw(st.integers(0, 999))).random(shape) < share
    if layout.window_tiles == 0:
        chosen[...] = True
    return layout, chosen, plan_sweep("image", layout, chosen, everywhere=draw(st.booleans()))


def tiles_answered(layout: PassLayout, units: tuple[Unit, ...]) -> np.ndarray:
    """How often each pixel is answered: by windows' cores, inside their units' own regions."""
    answered = np.zeros(layout.plane.shape, np.int64)
    for unit in units:
        region = unit.region.scale(layout.stride).clip(layout.plane.shape)
        for window in unit.windows:
            answered[window.core.intersect(region).slices] += 1
    return answered


@given(plans())
def test_every_chosen_pixel_is_answered_once_and_no_other(
    planned: tuple[PassLayout, np.ndarray, tuple[Unit, ...]],
) -> None:
    layout, chosen, units = planned
    wanted = np.zeros(layout.plane.shape, np.int64)
    for index in np.flatnonzero(chosen.ravel()):
        wanted[layout.tiles.box(int(index)).slices] = 1
    np.testing.assert_array_equal(tiles_answered(layout, units), wanted)


@given(plans())
def test_every_shard_has_one_owner(
    planned: tuple[PassLayout, np.ndarray, tuple[Unit, ...]],
) -> None:
    layout, _, units = planned
    owners = np.zeros(layout.score_shape, np.int64)
    for unit in units:
        owners[unit.region.slices] += 1
        y, x = unit.region.y0, unit.region.x0
        assert y % layout.shard_px == x % layout.shard_px == 0
        assert unit.region.y1 % layout.shard_px == 0 or unit.region.y1 == layout.score_shape[0]
        assert unit.region.x1 % layout.shard_px == 0 or unit.region.x1 == layout.score_shape[1]
    assert owners.max(initial=0) <= 1
    assert len({unit.id for unit in units}) == len(units)


@given(plans())
def test_windows_lie_in_the_padded_plane_and_hold_core_and_halo_wherever_it_has_them(
    planned: tuple[PassLayout, np.ndarray, tuple[Unit, ...]],
) -> None:
    layout, _, units = planned
    plane = Box.of(layout.padded_shape)
    for unit in units:
        for window in unit.windows:
            assert plane.contains(window.read)
            halo = 0 if layout.window_tiles == 0 else layout.halo_px
            assert window.read.contains(window.core.grow(halo).clip(layout.padded_shape))
            assert all(edge % layout.multiple == 0 for edge in window.read.as_tuple())


@given(plans())
def test_a_batch_has_one_shape_and_at_most_the_planned_size(
    planned: tuple[PassLayout, np.ndarray, tuple[Unit, ...]],
) -> None:
    layout, _, units = planned
    for unit in units:
        for batch in unit.batches:
            assert 1 <= len(batch) <= layout.batch
            assert len({window.read.shape for window in batch}) == 1


@given(plans())
def test_units_survive_json(planned: tuple[PassLayout, np.ndarray, tuple[Unit, ...]]) -> None:
    for unit in planned[2]:
        assert Unit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit


@given(layouts(), st.booleans())
def test_a_last_pass_plans_every_shard_and_another_only_those_with_work(
    layout: PassLayout, everywhere: bool
) -> None:
    if layout.window_tiles == 0:
        return
    chosen = np.zeros((layout.tiles.rows, layout.tiles.columns), bool)
    assert len(plan_sweep("image", layout, chosen, everywhere=True)) == len(layout.shards)
    assert plan_sweep("image", layout, chosen) == ()
    chosen[-1, -1] = True
    units = plan_sweep("image", layout, chosen)
    last = layout.tiles.box(len(layout.tiles) - 1)
    # Blending needs the tile in every unit that it reaches; cropping in its own alone.
    assert (len(units) == 1) or layout.blend == "hann"
    assert any(w.core == last for unit in units for w in unit.windows)


@given(layouts(index=1))
def test_a_unit_of_the_last_pass_owns_whole_shards_of_every_level_it_writes(
    layout: PassLayout,
) -> None:
    plan = image_plan(layout)
    specs = arrays_of(plan)
    everything = np.ones((layout.tiles.rows, layout.tiles.columns), bool)
    seen: set[str] = set()
    for unit in plan_sweep("image", layout, everything, everywhere=True):
        region = unit.region
        for level in range(plan.levels_in_unit):
            keys = {key for key, _ in specs[str(level)].shards(region)}
            assert not keys & seen
            seen |= keys
            region = region.reduce(2)
        cells = plan.coverage_box(unit.region)
        tile_keys = {key for key, _ in specs["coverage"].shards(cells)}
        assert not tile_keys & seen
        seen |= tile_keys


def image_plan(layout: PassLayout) -> ImagePlan:
    layout = replace(layout, index=0)
    return ImagePlan(
        name="image",
        uri="image.tif",
        identity=Identity("image.tif", 1, 2, "3"),
        format="TIFF",
        level_shapes=(layout.plane.shape,),
        pixel_size=None,
        passes=(layout,),
        classes=("it",),
        fuse="finest",
        scores="uint8",
        keep=("one",),
        label_threshold=0.5,
    )


@given(layouts())
def test_an_image_s_plan_survives_json(layout: PassLayout) -> None:
    plan = image_plan(layout)
    assert ImagePlan.from_json(plan.to_json()) == plan


@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 5), st.integers(0, 999), st.data())
def test_merged_rectangles_partition_the_chosen_tiles_of_a_part(
    rows: int, columns: int, longest: int, seed: int, data: st.DataObject
) -> None:
    chosen = np.random.default_rng(seed).random((rows, columns)) < 0.6
    y, x = data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns))
    part = Box(y, x, rows, columns)
    found = np.zeros((rows, columns), np.int64)
    for rectangle in merge_tiles(chosen, part, longest):
        assert max(rectangle.shape) <= longest
        found[rectangle.slices] += 1
    expected = np.zeros((rows, columns), np.int64)
    expected[part.slices] = chosen[part.slices]
    np.testing.assert_array_equal(found, expected)


def test_neighbouring_tiles_share_a_window() -> None:
    chosen = np.ones((5, 7), bool)
    assert len(list(merge_tiles(chosen, Box(0, 0, 5, 7), 3))) == 6


def test_windows_of_other_shapes_do_not_break_a_batch_up() -> None:
    layout = one_layout()
    (unit,) = plan_sweep("image", layout, np.ones((2, 2), bool))
    windows = list(unit.windows)
    wide = replace(windows[0], read=windows[0].read.grow(1))
    mixed = [windows[0], wide, windows[1], wide, windows[2]]
    assert [len(batch) for batch in group_by_shape(mixed, 2)] == [2, 2, 1]


def one_layout() -> PassLayout:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
        | {"tile": 16, "window": 16, "batch": 3}
    )
    spec = ModelSpec(("it",), 4)
    return lay_out(recipe, 1, plane_spec(31, 29), spec, Output(chunk=32, shard=32))


def test_a_plan_in_which_a_shard_has_two_owners_is_refused() -> None:
    layout = one_layout()
    chosen = np.ones((2, 2), bool)
    (unit,) = plan_sweep("image", layout, chosen)
    with pytest.raises(PlanError, match="shard 0 has two owners"):
        check_plan(layout, chosen, [unit, replace(unit, id="another")])


def test_a_plan_that_leaves_a_chosen_tile_out_is_refused() -> None:
    layout = one_layout()
    chosen = np.array([[True, False], [True, True]])
    units = plan_sweep("image", layout, chosen)
    with pytest.raises(PlanError, match=r"tile \(0, 1\) is answered 0 times"):
        check_plan(layout, np.ones((2, 2), bool), units)


def test_a_plan_whose_unit_cuts_a_shard_is_refused() -> None:
    layout = one_layout()
    chosen = np.ones((2, 2), bool)
    (unit,) = plan_sweep("image", layout, chosen)
    with pytest.raises(PlanError, match="whole shards"):
        check_plan(layout, chosen, [replace(unit, region=Box(0, 0, 31, 28))])


def test_a_selection_of_another_grid_is_refused() -> None:
    with pytest.raises(PlanError, match="2 x 2 tiles expected"):
        plan_sweep("image", one_layout(), np.ones((3, 2), bool))


def test_a_unit_s_id_tells_image_kind_pass_resolution_and_region_apart() -> None:
    layout = one_layout()
    finer = replace(layout, plane=replace(layout.plane, level=1))
    region = Box(0, 0, 31, 29)
    ids = {
        unit_id("a", "sweep", layout, region),
        unit_id("b", "sweep", layout, region),
        unit_id("a", "select", layout, region),
        unit_id("a", "sweep", replace(layout, name="two"), region),
        unit_id("a", "sweep", finer, region),
        unit_id("a", "sweep", layout, Box(0, 0, 31, 28)),
        single_unit("a", "prepare", 0).id,
    }
    assert len(ids) == 7


def test_a_plan_depends_on_nothing_but_its_input() -> None:
    layout = one_layout()
    chosen = np.array([[True, False], [True, True]])
    assert plan_sweep("image", layout, chosen) == plan_sweep("image", layout, chosen.copy())
