from __future__ import annotations

from typing import Any

import fake_models
import numpy as np
import pytest
import torch
from fakes import noise, plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import DeviceFull
from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import ModelSpec, PassModel, Views
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers.backing_off import LEAST_PX, TRIED_AGAIN_AFTER, PixelLimit, halves
from saccade.workers.device import Predictor
from saccade.workers.device_simulated import SimulatedMemory, SimulatedModel
from saccade.workers.memory_curve import MemoryCurve
from saccade.workers.reading import WindowPixels

sides = st.integers(1, 67).map(lambda n: 8 * n)


# ------------------------------------------------------------------------------------ two halves


@given(sides, sides, st.integers(0, 7).map(lambda n: 8 * n))
def test_halves_answer_for_a_window_exactly_once_and_see_their_halo(
    height: int, width: int, halo: int
) -> None:
    parts = halves((height, width), halo, 8)
    if parts is None:
        assert max(height, width) // 2 < max(LEAST_PX, halo + 8) + 8
        return
    answered = np.zeros((height, width), int)
    for part in parts:
        answered[part.core.slices] += 1
        seen = part.core.grow(halo).clip((height, width))
        assert part.read == seen
        assert part.read.area < height * width
        assert not any(edge % 8 for edge in (part.read.y0, part.read.x0, *part.read.shape))
    assert (answered == 1).all()


@pytest.mark.parametrize("shape", [(62, 62), (8, 8), (96, 40)])
def test_what_is_small_already_is_not_cut(shape: tuple[int, int]) -> None:
    assert halves(shape, 48, 1) is None


# ----------------------------------------------------------------------------------- the limit


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 97)), min_size=1))
def test_a_limit_only_falls_and_tells_of_every_lesson_once(found: list[tuple[int, int]]) -> None:
    told: list[int] = []
    limit = PixelLimit(None, lambda batch, shape: told.append(batch * shape[0] * shape[1]))
    for batch, side in found:
        limit.learn(batch, (side, side))
        assert not limit.allows(batch, (side, side))
    least = min(batch * side**2 for batch, side in found)
    assert told == sorted(set(told), reverse=True)
    assert told[-1] == least
    assert limit.allows(1, (1, least - 1))
    assert not limit.allows(1, (1, least))


def told_by(limit_told: list[int]) -> PixelLimit:
    return PixelLimit(None, lambda batch, shape: limit_told.append(batch * shape[0] * shape[1]))


def test_what_ran_out_once_is_tried_again_later_and_is_fine_once_it_fitted() -> None:
    told: list[int] = []
    limit = told_by(told)
    limit.ran_out(4, (8, 8))
    turns = [limit.allows(4, (8, 8)) for _ in range(2 * TRIED_AGAIN_AFTER)]
    assert turns == ([False] * (TRIED_AGAIN_AFTER - 1) + [True]) * 2
    assert limit.allows(3, (8, 8))
    limit.fitted(3, (8, 8))
    assert not limit.allows(4, (8, 8))
    limit.fitted(4, (8, 8))
    assert all(limit.allows(9, (8, 8)) for _ in range(3))
    assert not told


def test_a_device_that_is_full_for_any_size_teaches_nothing_of_sizes() -> None:
    told: list[int] = []
    limit = told_by(told)
    for batch in (8, 4, 2, 1, 1):
        limit.ran_out(batch, (8, 8))
    assert not told
    assert not limit.allows(1, (8, 8))


@pytest.mark.parametrize("again", [2, 4, 6])
def test_what_runs_out_again_although_less_fitted_is_learned(again: int) -> None:
    told: list[int] = []
    limit = told_by(told)
    limit.ran_out(4, (8, 8))
    limit.fitted(1, (8, 8))
    limit.ran_out(again, (8, 8))
    assert told == [max(4, again) * 64]
    assert not any(limit.allows(max(4, again), (8, 8)) for _ in range(2 * TRIED_AGAIN_AFTER))


# ------------------------------------------------------------------------------ on a device


def predictor(model: PassModel, limit: PixelLimit | None = None, **details: Any) -> Predictor:
    stated = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": 64}
    recipe = PassRecipe.model_validate(stated | details)
    layout = lay_out(recipe, 1, plane_spec(512, 512), model.spec, Output())
    return Predictor(model, layout, "cpu", limit or PixelLimit())


def unet() -> TorchModel:
    torch.manual_seed(2027)
    return TorchModel(fake_models.UNet().eval(), fake_models.UNet.saccade)


def test_a_window_that_does_not_fit_is_answered_in_parts_that_do_and_alike() -> None:
    window = WindowPixels(noise(256, 192))
    whole = predictor(unet())([window])
    memory = SimulatedMemory(MemoryCurve(256 * 192 // 2, 0, 1.0))
    answer = predictor(SimulatedModel(unet(), memory))([window])
    assert answer.splits >= 3
    # a part's own edge is seen by nobody but the halo, so only the arithmetic's last bits differ
    inner = np.s_[..., 32:-32, 32:-32]
    np.testing.assert_allclose(answer.scores[inner], whole.scores[inner], atol=1e-6)
    np.testing.assert_allclose(answer.scores, whole.scores, atol=1e-6)


def test_guidance_and_masks_are_cut_with_their_window() -> None:
    guidance = np.random.default_rng(7).random((1, 128, 64), np.float32)
    window = WindowPixels(noise(128, 64), guidance=guidance)
    memory = SimulatedMemory(MemoryCurve(128 * 64 - 1, 0, 1.0))
    model = SimulatedModel(fake_models.echo_guidance(), memory)
    np.testing.assert_array_equal(predictor(model, guidance=True)([window]).scores[0], guidance)
    valid = noise(128, 64)[..., 0] > 127
    model = SimulatedModel(fake_models.echo_valid(), memory)
    scores = predictor(model)([WindowPixels(noise(128, 64), valid=valid)]).scores
    np.testing.assert_array_equal(scores[0, 0], valid)


@pytest.mark.parametrize(
    "model", [fake_models.window_mean(), fake_models.echo_context()], ids=["global", "context"]
)
def test_a_model_whose_answer_depends_on_its_window_is_never_given_half_of_it(
    model: PassModel,
) -> None:
    memory = SimulatedMemory(MemoryCurve(128 * 128 - 1, 0, 1.0))
    pixels = noise(128, 128)
    window = WindowPixels(pixels, context=(pixels,) * len(model.spec.context))
    with pytest.raises(DeviceFull, match="one window of 128 x 128 px"):
        predictor(SimulatedModel(model, memory))([window])
    assert memory.asked == [(1, (128, 128))]


def test_what_ran_out_of_memory_once_is_not_tried_again() -> None:
    memory = SimulatedMemory(MemoryCurve(3 * 64 * 64, 0, 1.0))
    limit = PixelLimit()
    look = predictor(SimulatedModel(fake_models.echo(), memory), limit)
    windows = [WindowPixels(noise(64, 64))] * 8
    assert look(windows).splits == 7 - 4
    memory.asked.clear()
    assert look(windows).splits == 7 - 4
    assert memory.asked == [(2, (64, 64))] * 4


def test_the_least_that_there_is_to_try_is_tried_again_once_others_give_memory_back() -> None:
    limit, window = PixelLimit(), WindowPixels(noise(32, 32))
    with pytest.raises(DeviceFull):
        predictor(SimulatedModel(fake_models.echo(), SimulatedMemory(MemoryCurve(9, 0, 1))), limit)(
            [window]
        )
    roomy = SimulatedMemory(MemoryCurve(32 * 32, 0, 1.0))
    assert predictor(SimulatedModel(fake_models.echo(), roomy), limit)([window]).splits == 0


def test_batches_are_whole_again_once_others_give_memory_back() -> None:
    told: list[int] = []
    limit, windows = told_by(told), [WindowPixels(noise(64, 64))] * 4
    tight = SimulatedMemory(MemoryCurve(2 * 64 * 64, 0, 1.0))
    assert predictor(SimulatedModel(fake_models.echo(), tight), limit)(windows).splits == 1
    look = predictor(fake_models.echo(), limit)
    splits = [look(windows).splits for _ in range(2 * TRIED_AGAIN_AFTER)]
    assert splits == [1] * (TRIED_AGAIN_AFTER - 1) + [0] * (TRIED_AGAIN_AFTER + 1)
    assert not told


def test_the_views_of_a_part_are_those_of_its_pixels() -> None:
    seen: list[tuple[int, ...]] = []

    def answer(views: Views) -> Any:
        seen.append(tuple(views.pixels.shape[-2:]))
        return fake_models.echo()(views)

    model = fake_models.Answering(ModelSpec(("it",), halo_px=8, multiple=8, channels=None), answer)
    memory = SimulatedMemory(MemoryCurve(128 * 128 - 1, 0, 1.0))
    predictor(SimulatedModel(model, memory))([WindowPixels(noise(128, 128))])
    assert seen == [(72, 128), (72, 128)]
