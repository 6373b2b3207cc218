"""Saliency from where a recipe says: the model's own, its confidence, or its attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_models import Answering

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelForm, ModelSpec, Prediction, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.rollout import attention_rollout, rollout_saliency
from saccade.pipeline.models.salient import SalientBy, salient_by, token_grid

VIEWS = Views(torch.rand((2, 3, 8, 16), generator=torch.Generator().manual_seed(1)))


def model(**spec: Any) -> Answering:
    """Stride 2; its own saliency is red, its confidence green, its attention on token 5."""

    def answer(views: Views) -> Prediction:
        small = views.pixels[..., ::2, ::2]
        attention = torch.full((len(small), 3, 8, 8), 0.05)
        attention[..., 5] = 0.65
        return Prediction(small[:, :1], small[:, :1], small[:, 1:2], None, attention)

    return Answering(ModelSpec(("it",), stride=2, **spec), answer)


def test_a_model_s_own_saliency_is_left_alone() -> None:
    given = model(saliency=True)
    assert salient_by(given, None) is given
    assert salient_by(given, "own") is given


def test_where_confidence_is_low_there_is_something_to_see() -> None:
    found = salient_by(model(confidence=True), "confidence")
    assert found.spec.saliency
    saliency = found(VIEWS).saliency
    assert saliency is not None
    torch.testing.assert_close(saliency, 1 - VIEWS.pixels[:, 1:2, ::2, ::2])


def test_attention_becomes_saliency_at_the_scores_places() -> None:
    found = salient_by(model(), "attention")(VIEWS)
    assert found.saliency is not None
    assert found.saliency.shape == found.scores.shape
    most = found.saliency.amax((2, 3), keepdim=True)
    expected = torch.zeros(2, 1, 4, 8, dtype=torch.bool)
    expected[..., 2:4, 2:4] = True  # token 5 of 2 x 4, each of 2 x 2 scores
    assert torch.equal(found.saliency == most, expected)
    assert (most == 1).all()


@pytest.mark.parametrize("choice", ["own", "confidence"])
def test_what_a_model_does_not_declare_can_not_be_asked_for(choice: Any) -> None:
    with pytest.raises(ModelContract, match=rf"'saliency: {choice}' needs a model that declares"):
        salient_by(model(), choice)


def test_a_model_without_attention_says_what_it_lacks() -> None:
    bare = Answering(ModelSpec(("it",)), lambda views: Prediction(views.pixels[:, :1]))
    with pytest.raises(ModelContract, match=r"needs a model that gives its attention.*found none"):
        salient_by(bare, "attention")(VIEWS)


def test_in_another_form_the_model_is_converted_and_its_saliency_stays() -> None:
    found = in_form(salient_by(model(confidence=True), "confidence"), ModelForm("bfloat16"))
    assert isinstance(found, SalientBy)
    assert found(VIEWS).saliency is not None


@pytest.mark.parametrize(
    ("tokens", "window", "grid"),
    [(8, (8, 16), (2, 4)), (9, (8, 16), (2, 4)), (49, (224, 224), (7, 7)), (50, (64, 64), (7, 7))],
)
def test_tokens_are_laid_over_the_window_as_square_cells(
    tokens: int, window: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert token_grid(tokens, window) == grid


def test_tokens_that_cover_no_window_are_refused() -> None:
    with pytest.raises(ModelContract, match="found 13"):
        token_grid(13, (64, 64))


# ---------------------------------------------------------------------------------------- rollout


def attention(layers: int = 3, tokens: int = 7) -> torch.Tensor:
    maps = torch.rand((2, layers, 4, tokens, tokens), generator=torch.Generator().manual_seed(5))
    return maps / maps.sum(-1, keepdim=True)


def test_rows_of_a_rollout_sum_to_one() -> None:
    rolled = attention_rollout(attention())
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 7))


def test_a_rollout_is_the_product_of_layers_with_their_shortcuts() -> None:
    maps = attention(2)
    first, second = (0.5 * maps[:, i].mean(1) + 0.5 * torch.eye(7) for i in (0, 1))
    torch.testing.assert_close(attention_rollout(maps), second @ first)


def test_a_class_token_s_own_row_is_what_counts() -> None:
    rolled = attention_rollout(attention())
    row = rolled[:, 0, 1:]
    torch.testing.assert_close(
        rollout_saliency(rolled, (2, 3)).flatten(1), row / row.amax(1, keepdim=True)
    )
    with pytest.raises(ValueError, match="12 tokens"):
        rollout_saliency(rolled, (3, 4))
