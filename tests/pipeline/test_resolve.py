from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, noise

from saccade.pipeline.errors import MissingPixelSize, PlanError, RecipeError, ResolutionUnavailable
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.resolve import resolve_image
from saccade.pipeline.sources.base import Level, PixelSize

SOURCE = FakeSource(noise(211, 307), pixel_size=PixelSize(0.25, 0.25, "um"))


def resolved(
    *passes: dict[str, Any],
    specs: tuple[ModelSpec, ...] | None = None,
    source: FakeSource = SOURCE,
    pixel_size: PixelSize | None = None,
    **details: Any,
) -> ImagePlan:
    named = [{"name": f"p{i}", "model": "builtin:tissue"} | p for i, p in enumerate(passes)]
    recipe = Recipe.model_validate({"passes": named, **details})
    specs = specs or tuple(ModelSpec(("it",)) for _ in passes)
    return resolve_image("image", source, source.identity(), recipe, specs, pixel_size)


def at(downsample: float, **details: Any) -> dict[str, Any]:
    return {"resolution": {"downsample": downsample}, **details}


def test_a_plan_says_what_the_image_is_and_how_passes_lie_over_it() -> None:
    plan = resolved({"resolution": {"mpp": 2}}, {"resolution": {"mpp": 0.5}})
    assert [layout.plane.downsample for layout in plan.passes] == [8, 2]
    assert plan.shape == (106, 154)
    assert plan.level_shapes == ((211, 307),)
    assert plan.keep == ("p0", "p1")


def test_a_stated_pixel_size_wins_over_the_file_s() -> None:
    plan = resolved({"resolution": {"mpp": 2}}, pixel_size=PixelSize(1, 1, "um"))
    assert plan.last.plane.downsample == 2
    assert plan.pixel_size == PixelSize(1, 1, "um")


def test_passes_that_get_coarser_are_refused() -> None:
    with pytest.raises(PlanError, match=r"'p1' .* is coarser than 'p0'"):
        resolved(at(2), at(4))


def test_a_pass_may_look_again_at_the_same_resolution() -> None:
    assert len(resolved(at(2), at(2)).passes) == 2


def test_physical_resolution_needs_a_pixel_size() -> None:
    with pytest.raises(MissingPixelSize, match="pixel size"):
        resolved({"resolution": {"mpp": 2}}, source=FakeSource(noise(59, 61)))


def test_an_image_is_never_magnified() -> None:
    with pytest.raises(ResolutionUnavailable, match="finer"):
        resolved({"resolution": {"mpp": 0.1}})


def test_a_model_of_other_channels_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"'p0'.*takes 4 channels.*has\s+3 \(red, green, blue\)"):
        resolved(at(1), specs=(ModelSpec(("it",), channels=4),))


def test_a_model_of_any_channels_takes_what_there_is() -> None:
    assert resolved(at(1), specs=(ModelSpec(("it",), channels=None),)).classes == ("it",)


def test_guidance_for_a_model_that_takes_none_is_refused() -> None:
    with pytest.raises(RecipeError, match="takes none"):
        resolved(at(4), at(1, guidance=True))


def test_more_classes_than_labels_are_refused_before_anything_runs() -> None:
    many = ModelSpec(tuple(map(str, range(256))))
    with pytest.raises(RecipeError, match=r"at most 254 classes.*256.*output\.classes"):
        resolved(at(1), specs=(many,))
    assert len(resolved(at(1), specs=(many,), output={"classes": ["3", "5"]}).classes) == 2


def test_more_tiles_than_plans_hold_are_refused_with_their_number() -> None:
    huge = FakeSource(np.zeros((8, 8, 3), np.uint8))
    huge.levels = (replace(huge.levels[0], shape=(2**31 - 1, 2**31 - 1)),)
    with pytest.raises(PlanError, match=r"134217728 tiles in a pass expected; 'p0' has \d{11},"):
        resolved(at(64, tile=256), source=huge)


class Claiming(FakeSource):
    """Says that it is larger than anything there is."""

    def __init__(self, side_px: int) -> None:
        super().__init__(noise(2, 2))
        self.levels = (Level((side_px, side_px), 1.0),)


@pytest.mark.parametrize(
    ("side_px", "passes", "told"),
    [
        (2**40, [at(4, tile=16), at(1, tile=64)], r"\d+ tiles in a pass expected; 'p0' has \d+"),
        (2**62, [at(2**30)], r"\d+ tiles in a pass expected; 'p0' has \d+"),
        (2**40, [at(2**30)], r"\d+ bytes of the image under a pixel .* 'p0' has \d+"),
    ],
)
def test_an_image_that_claims_more_pixels_than_can_be_is_refused_for_good(
    side_px: int, passes: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        resolved(*passes, source=Claiming(side_px))


def test_a_tile_that_does_not_fit_the_model_names_those_that_do() -> None:
    with pytest.raises(PlanError, match=r"multiple of 24.*found 100, near are 96 and 120"):
        resolved(at(1, tile=100), specs=(ModelSpec(("it",), stride=8, multiple=12),))
