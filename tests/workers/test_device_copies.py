"""Copies that arrive late, as a GPU's do: nobody looks before they are there."""

from __future__ import annotations

from collections.abc import Callable

import fake_models
import numpy as np
import pytest
import torch
from fakes import noise, plane_spec
from torch import Tensor

from saccade.pipeline.layout import lay_out
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers.device import Predictor
from saccade.workers.device_copies import NoCopies
from saccade.workers.reading import WindowPixels


class LateCopies(NoCopies):
    """Downloads hold nothing before they are waited for; uploads are memory of their own."""

    def __init__(self) -> None:
        self._coming: list[tuple[Tensor, Tensor]] = []

    def upload(self, host: Tensor) -> Tensor:
        return host.clone()

    def download(self, given: Tensor) -> Tensor:
        place = torch.full_like(given, float("nan"))
        self._coming.append((place, given.clone()))
        return place

    def arrival(self) -> Callable[[], None]:  # type: ignore[override]
        coming, self._coming = self._coming, []

        def wait() -> None:
            for place, given in coming:
                place.numpy()[...] = given.numpy()

        return wait


def predictor() -> Predictor:
    model = fake_models.with_saliency()
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": 7}
    )
    return Predictor(model, lay_out(recipe, 1, plane_spec(97, 89), model.spec, Output()), "cpu")


def windows(count: int) -> list[WindowPixels]:
    return [WindowPixels(noise(7, 7 + i)[:, :7]) for i in range(count)]


def test_on_a_cpu_an_answer_is_there_when_it_was_asked_for() -> None:
    assert predictor().launch(windows(2)).settled


def test_answers_asked_for_one_after_the_other_arrive_each_in_its_own_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [predictor()(windows(count)) for count in (3, 2)]
    late = LateCopies()
    monkeypatch.setattr("saccade.workers.device.copies_for", lambda device: late)
    begun = [predictor().launch(windows(count)) for count in (3, 2)]
    assert not any(one.settled for one in begun)
    assert all(np.isnan(one.place.scores).all() for one in begun)
    for one, whole in zip(begun, expected, strict=True):
        answer = one.result()
        np.testing.assert_array_equal(answer.scores, whole.scores)
        np.testing.assert_array_equal(answer.planes["saliency"], whole.planes["saliency"])
