"""Who hands features to whom, and what is refused before anything runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeSource, noise, plane_spec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from saccade.pipeline.errors import PlanError, RecipeError
from saccade.pipeline.feature_grid import FeatureFlow, FeatureGrid, flows_of
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Output, PassRecipe, Recipe
from saccade.pipeline.resolve import resolve_image
from saccade.pipeline.store_layout import feature_box, feature_shape


def recipe(*features: bool) -> Recipe:
    passes = [
        {"name": f"p{i}", "resolution": {"downsample": 1}, "model": "builtin:tissue", "features": f}
        for i, f in enumerate(features)
    ]
    return Recipe.model_validate({"passes": passes})


def spec(features: tuple[int, int] | None, takes: int = 0, **more: Any) -> ModelSpec:
    return ModelSpec(("it",), features=features, takes_features=takes, **more)


def test_a_pass_gives_what_the_next_takes_on_that_one_s_own_grid() -> None:
    specs = spec((7, 4)), spec((7, 8), 7), spec((7, 2), 7), spec((7, 2), 7)
    flows = flows_of(recipe(False, True, True, False), specs, "abcd")
    assert flows == (
        FeatureFlow(FeatureGrid(7, 4, "a"), None),
        FeatureFlow(FeatureGrid(7, 8, "b"), FeatureGrid(7, 8, "a")),
        FeatureFlow(None, FeatureGrid(7, 2, "b")),
        FeatureFlow(),
    )
    assert flows[1].facts == {"gives": (7, 8), "takes": (7, 8)}


def test_the_first_pass_has_no_features_to_take() -> None:
    with pytest.raises(ValidationError, match="first pass has no earlier pass"):
        recipe(True, False)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (spec((7, 4)), spec((7, 4)), r"'p1': features is on, but its model takes none; remove"),
        (spec(None), spec((7, 4), 7), r"'p1': takes the features of 'p0', whose model gives none"),
        (spec((5, 4)), spec((7, 4), 7), r"'p1': its model takes 7 channels .* 'p0' gives 5"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    first: ModelSpec, second: ModelSpec, words: str
) -> None:
    source = FakeSource(noise(64, 64))
    with pytest.raises(RecipeError, match=words):
        resolve_image("one", source, source.identity(), recipe(False, True), [first, second])


def layout_of(
    height: int, width: int, stride: int, multiple: int, gives: int, index: int, **details: Any
) -> PassLayout:
    one = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"} | details
    flow = FeatureFlow(FeatureGrid(3, gives, "a"))
    made = spec((3, gives), stride=stride, multiple=multiple)
    output = Output(chunk=16, shard=128)
    return lay_out(
        PassRecipe.model_validate(one), index, plane_spec(height, width), made, output, flow=flow
    )


@given(
    st.integers(1, 997), st.integers(1, 997), st.sampled_from([1, 2, 6, 16]),
    st.sampled_from([1, 8, 12]), st.sampled_from([1, 4, 8, 14]), st.sampled_from([0, 1]),
)  # fmt: skip
def test_units_own_whole_shards_of_features_and_together_all_of_them(
    height: int, width: int, stride: int, multiple: int, gives: int, index: int
) -> None:
    layout = layout_of(height, width, stride, multiple, gives, index)
    grid = layout.gives
    assert grid is not None
    assert layout.multiple == math.lcm(stride, multiple, gives)
    whole = Box.of(feature_shape(layout, grid))
    shards = [feature_box(layout, grid, region.scale(stride)) for region in layout.shards]
    assert sum(box.area for box in shards) == whole.area
    side = layout.region_px // gives
    for box in shards:
        assert box.y0 % side == box.x0 % side == 0
        assert box.y1 % side == 0 or box.y1 == whole.y1
        assert box.x1 % side == 0 or box.x1 == whole.x1
    for tile in layout.tiles:
        assert feature_box(layout, grid, tile).area > 0


def test_a_unit_is_no_larger_for_the_features_that_it_holds() -> None:
    lean = layout_of(40000, 40000, 1, 8, 8, 1)
    grid = FeatureGrid(4096, 8, "a")
    one = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
    )
    made = spec((4096, 8), multiple=8)
    rich = lay_out(
        one, 1, plane_spec(40000, 40000), made, Output(chunk=16, shard=4096), flow=FeatureFlow(grid)
    )
    assert rich.unit_nbytes(1) <= 128 * 2**20
    assert rich.shard_px**2 * 129 == rich.unit_nbytes(1)
    assert lean.unit_nbytes(1) == lean.shard_px**2 + math.ceil(lean.shard_px**2 * 6 / 64)


def test_windows_that_do_not_hold_whole_places_are_refused() -> None:
    with pytest.raises(PlanError, match="do not nest"):
        replace(layout_of(64, 64, 1, 8, 8, 1), gives=FeatureGrid(3, 5, "a"))
