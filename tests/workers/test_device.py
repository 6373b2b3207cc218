from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import fake_models
import numpy as np
import pytest
import torch
from fakes import noise, plane_spec

from saccade.pipeline.errors import ModelContract, UnitTooLarge
from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import ModelForm, ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers.device import Predictor, one_thread
from saccade.workers.reading import WindowPixels

SIDE = 7


def predictor(model: PassModel) -> Predictor:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": SIDE}
    )
    made = lay_out(recipe, 1, plane_spec(97, 89), model.spec, Output())
    return Predictor(model, made, "cpu")


def windows(count: int, dtype: str = "uint8", channels: int = 3) -> list[WindowPixels]:
    return [WindowPixels(noise(SIDE, SIDE + i, channels, dtype)[:, :SIDE]) for i in range(count)]


def recording(seen: list[int], fits: int, error: Callable[[], Exception]) -> PassModel:
    def answer(views: Views) -> Prediction:
        seen.append(len(views.pixels))
        if len(views.pixels) > fits:
            raise error()
        return Prediction(views.pixels[:, :1], saliency=views.pixels[:, 1:2])

    spec = ModelSpec(("it",), channels=None, saliency=True)
    return fake_models.Answering(spec, answer)


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: out of memory"),
        lambda: MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_until_it_fits_and_is_counted(
    error: Callable[[], Exception],
) -> None:
    seen: list[int] = []
    batch = windows(7)
    answer = predictor(recording(seen, 2, error))(batch)
    assert seen == [7, 3, 1, 2, 2, 2]
    assert answer.splits == 3
    whole = predictor(recording([], 7, error))(batch)
    assert whole.splits == 0
    np.testing.assert_array_equal(answer.scores, whole.scores)
    np.testing.assert_array_equal(answer.planes["saliency"], whole.planes["saliency"])


def test_a_single_window_that_does_not_fit_says_what_to_make_smaller() -> None:
    model = recording([], 0, lambda: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(UnitTooLarge, match=r"'one'.*7 x 7 px.*cpu.*smaller 'window' or 'tile'"):
        predictor(model)(windows(3))


def test_the_error_of_the_first_try_does_not_keep_its_tensors_alive() -> None:
    alive: list[Any] = []

    def answer(views: Views) -> Prediction:
        if len(views.pixels) > 1:
            alive.append(weakref.ref(views.pixels))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert all(reference() is None for reference in alive)
        return Prediction(views.pixels[:, :1])

    predictor(fake_models.Answering(ModelSpec(("it",)), answer))(windows(2))
    assert len(alive) == 1


def test_another_error_of_the_model_is_not_taken_for_lack_of_memory() -> None:
    seen: list[int] = []
    model = recording(seen, 0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        predictor(model)(windows(3))
    assert seen == [3]


@pytest.mark.parametrize(
    ("dtype", "scale"), [("uint8", 255), ("uint16", 65535), ("int16", 32767), ("float32", 1)]
)
def test_samples_are_divided_by_the_range_of_their_type(dtype: str, scale: int) -> None:
    batch = windows(2, dtype)
    answer = predictor(fake_models.echo())(batch)
    pixels = np.stack([w.pixels[..., 0] for w in batch]).astype(np.float32)
    np.testing.assert_array_equal(answer.scores[:, 0], pixels / np.float32(scale))


def test_a_declared_scale_wins_over_the_type_s() -> None:
    batch = windows(1, "uint16")
    answer = predictor(fake_models.echo(scale=4095.0))(batch)
    expected = batch[0].pixels[..., 0].astype(np.float32) / np.float32(4095)
    np.testing.assert_array_equal(answer.scores[0, 0], expected)


def test_a_batch_of_which_one_window_lacks_data_has_a_mask_for_all() -> None:
    mask = np.ones((SIDE, SIDE), bool)
    mask[2, 3] = False
    whole, holed = windows(2)
    batch = [whole, WindowPixels(holed.pixels, valid=mask)]
    answer = predictor(fake_models.echo_valid())(batch)
    np.testing.assert_array_equal(answer.scores[:, 0], np.stack([np.ones_like(mask), mask]))


def test_mixed_precision_reaches_the_model_and_scores_come_back_as_float32() -> None:
    seen: list[torch.dtype] = []

    def answer(views: Views) -> Prediction:
        weight = torch.ones(1, 3, 1, 1)
        raw = torch.nn.functional.conv2d(views.pixels, weight)
        seen.append(raw.dtype)
        return Prediction(raw.sigmoid())

    model = fake_models.Answering(ModelSpec(("it",)), answer)
    converted = in_form(model, ModelForm("bfloat16"))
    assert predictor(converted)(windows(1)).scores.dtype == np.float32
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("name", ["saliency", "confidence"])
def test_a_declared_part_that_a_model_does_not_answer_is_named(name: str) -> None:
    spec = ModelSpec(("it",)).with_(**{name: True})
    model = fake_models.Answering(spec, lambda views: Prediction(views.pixels[:, :1]))
    with pytest.raises(ModelContract, match=rf"'one': its model declares '{name}' and answered"):
        predictor(model)(windows(1))


def test_one_thread_holds_for_a_while_and_no_longer() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
