from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from fakes import plane_spec
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.pipeline.capacity import WHOLE_PASS_PX
from saccade.pipeline.errors import PlanError
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import (
    REGION_PX,
    UNIT_BYTES,
    UNITS_PER_PASS,
    PassLayout,
    lay_out,
)
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.sources.base import PixelSize

sides = st.sampled_from([1, 2, 7, 97, 509, 2003, 4099, 30011, 100003, 1000003])
models = st.builds(
    lambda stride, multiple, halo, local, count: ModelSpec(
        tuple(f"class {i}" for i in range(count)), halo, stride, multiple, local=local
    ),
    st.sampled_from([1, 2, 4, 7, 14, 16, 32, 224]),
    st.sampled_from([1, 8, 14, 32, 224]),
    st.sampled_from([0, 1, 24, 37, 512]),
    st.booleans(),
    st.sampled_from([1, 3, 19]),
)
outputs = st.builds(
    lambda chunk, ratio, scores: Output(chunk=chunk, shard=chunk * ratio, scores=scores),
    st.sampled_from([16, 100, 256, 512]),
    st.sampled_from([1, 4, 8]),
    st.sampled_from(["uint8", "float32"]),
)


def one(**details: Any) -> PassRecipe:
    tree = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
    return PassRecipe.model_validate(tree | details)


passes = st.builds(
    one,
    tile=st.sampled_from(["auto", "auto", 64, 224, 257, 1024, 1536]),
    halo=st.sampled_from(["auto", 0, 5, 64]),
    window=st.sampled_from(["auto", 100, 2048]),
    blend=st.sampled_from(["crop", "hann"]),
    context=st.sampled_from([(), (4.0,)]),
)


@given(passes, st.sampled_from([0, 1]), sides, sides, models, outputs)
@example(one(), 1, 100003, 80021, ModelSpec(("it",), stride=224), Output())
@example(one(tile=100), 1, 503, 503, ModelSpec(("it",), stride=224), Output())
def test_a_layout_nests_or_is_refused_with_a_reason(
    recipe: PassRecipe, index: int, height: int, width: int, spec: ModelSpec, output: Output
) -> None:
    multiple = math.lcm(spec.stride, spec.multiple)
    plane = plane_spec(height, width)
    if recipe.tile != "auto" and recipe.tile % multiple:
        with pytest.raises(PlanError, match=f"tile must be .* {multiple} .*found {recipe.tile}"):
            lay_out(recipe, index, plane, spec, output)
        return
    layout = lay_out(recipe, index, plane, spec, output)
    assert layout.tile_px % multiple == layout.halo_px % multiple == 0
    assert layout.halo_px >= (spec.halo_px if recipe.halo == "auto" else recipe.halo)
    assert layout.shard_px % layout.chunk_px == 0
    assert layout.region_px % layout.tile_px == 0
    assert layout.batch >= 1


@given(passes.filter(lambda r: r.tile == "auto"), sides, sides, models, outputs)
def test_units_stay_small_where_their_chunks_and_tiles_allow(
    recipe: PassRecipe, height: int, width: int, spec: ModelSpec, output: Output
) -> None:
    layout = lay_out(recipe, 1, plane_spec(height, width), spec, output)
    smallest = max(layout.chunk_px, layout.tile_px // layout.stride)
    if layout.shard_px == smallest:
        # A chunk holds whole tiles, and at least 16 scores or nearly so: no smaller one nests.
        smallest_px = max(REGION_PX, layout.tile_px, 16 * layout.stride)
        assert layout.region_px <= smallest_px + layout.tile_px / 2
        return
    itemsize = 1 if output.scores == "uint8" else 4
    assert layout.shard_px <= output.shard
    assert layout.region_px <= REGION_PX
    assert layout.shard_px**2 * len(layout.classes) * itemsize <= UNIT_BYTES
    assert len(layout.shards) >= UNITS_PER_PASS


def test_a_slide_at_full_resolution_gets_the_shards_that_were_asked_for() -> None:
    layout = lay_out(one(), 1, plane_spec(90001, 70001), ModelSpec(("it",), 32, 1, 8), Output())
    assert (layout.chunk_px, layout.shard_px, layout.tile_px) == (512, 4096, 256)


def test_a_small_pass_is_cut_into_several_units() -> None:
    layout = lay_out(one(), 1, plane_spec(5003, 4001), ModelSpec(("it",)), Output())
    assert len(layout.shards) >= UNITS_PER_PASS


def test_a_classifier_of_tiles_does_not_collapse_a_slide_into_one_unit() -> None:
    spec = ModelSpec(("it",), stride=224, multiple=224)
    layout = lay_out(one(), 1, plane_spec(90001, 70001), spec, Output())
    assert layout.region_px <= REGION_PX
    assert len(layout.shards) > 100


@pytest.mark.parametrize(("height", "whole"), [(1999, True), (2003, False)])
def test_a_glance_goes_through_in_one_window_while_it_is_small_enough(
    height: int, whole: bool
) -> None:
    layout = lay_out(one(), 0, plane_spec(height, 2000), ModelSpec(("it",)), Output())
    assert (height * 2000 <= WHOLE_PASS_PX) == whole
    assert (layout.window_tiles == 0) == whole


@pytest.mark.parametrize(
    "details", [{"tile": 64}, {"window": 512}, {"blend": "hann"}, {"context": (2.0,)}]
)
def test_a_glance_is_tiled_when_the_recipe_asks_for_what_needs_tiles(
    details: dict[str, Any],
) -> None:
    layout = lay_out(one(**details), 0, plane_spec(503, 601), ModelSpec(("it",)), Output())
    assert layout.window_tiles > 0


@given(passes, sides, sides, models, outputs)
def test_a_layout_survives_json(
    recipe: PassRecipe, height: int, width: int, spec: ModelSpec, output: Output
) -> None:
    multiple = math.lcm(spec.stride, spec.multiple)
    recipe = recipe.model_copy(update={"tile": multiple})
    plane = replace(plane_spec(height, width, 2.5), pixel_size=PixelSize(0.25, 0.5, "um"))
    layout = lay_out(recipe, 0, plane, spec, output)
    assert PassLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_scores_of_a_box_are_cut_off_at_the_edge_of_the_scores() -> None:
    layout = lay_out(one(tile=32), 0, plane_spec(101, 67), ModelSpec(("it",), stride=8), Output())
    assert layout.score_shape == (13, 9)
    assert layout.padded_shape == (104, 72)
    assert layout.scores_of(Box(96, 64, 101, 67)) == Box(12, 8, 13, 9)
