"""A model whose saliency is taken from its confidence or its attention instead of its own.

A recipe says so (``saliency: confidence`` or ``attention`` on a model). Knows no pass, no selector
and no file.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.geometry import Shape
from saccade.pipeline.models.base import ModelSpec, PassModel, Prediction, SaliencyChoice, Views
from saccade.pipeline.models.rollout import attention_rollout, rollout_saliency


class SalientBy:
    """A model with another saliency."""

    def __init__(self, model: PassModel, source: SaliencyChoice) -> None:
        self.model, self.source = model, source
        self.spec: ModelSpec = model.spec.with_(saliency=True)

    def around(self, model: PassModel) -> SalientBy:
        """The same for another model."""
        return SalientBy(model, self.source)

    def __call__(self, views: Views) -> Prediction:
        """The model's own answer, but for the saliency.

        Raises:
            ModelContract: the model does not give what saliency is to be taken from.
        """
        answer = self.model(views)
        if self.source == "attention":
            return replace(answer, saliency=_by_attention(answer, views))
        if answer.confidence is None:
            raise ModelContract(
                "'saliency: confidence' needs a model that gives confidence; found none in its "
                "answer"
            )
        return replace(answer, saliency=1 - answer.confidence)


def salient_by(model: PassModel, source: SaliencyChoice | None) -> PassModel:
    """A model with the saliency that a recipe asks for.

    Args:
        model: as loaded.
        source: None leaves it as it is.

    Raises:
        ModelContract: the model declares nothing of the kind.
    """
    if source in ("own", "confidence") and not getattr(model.spec, _FIELDS[source]):
        raise ModelContract(
            f"'saliency: {source}' needs a model that declares '{_FIELDS[source]}: true'; this one "
            "does not: remove 'saliency', or declare it on the model"
        )
    return model if source in (None, "own") else SalientBy(model, source)


_FIELDS = {"own": "saliency", "confidence": "confidence"}


def _by_attention(answer: Prediction, views: Views) -> Tensor:
    """``(N, 1, h, w)``: attention that every place received, at the scores' places."""
    maps = answer.attention
    if maps is None:
        raise ModelContract(
            "'saliency: attention' needs a model that gives its attention, (N, heads, tokens, "
            "tokens) or (N, layers, heads, tokens, tokens); found none in its answer: switch it on "
            "in the model's options, or remove 'saliency'"
        )
    height, width = views.pixels.shape[-2:]
    rolled = attention_rollout(maps[:, None] if maps.ndim == 4 else maps)
    received = rollout_saliency(rolled, token_grid(maps.shape[-1], (height, width)))
    size = tuple(answer.scores.shape[-2:])
    return functional.interpolate(received, size=size, mode="nearest").clamp(0, 1)


def token_grid(tokens: int, window: Shape) -> Shape:
    """Rows and columns of tokens that cover a window evenly.

    Args:
        tokens: one per square cell of the window, and perhaps a few that stand for no place.
        window: height and width.

    Raises:
        ModelContract: no grid of square cells has so many.
    """
    height, width = window
    for beside in range(_TOKENS_BESIDE + 1):
        rows = round(math.sqrt((tokens - beside) * height / width))
        if rows and rows * rows * width == (tokens - beside) * height:
            return rows, (tokens - beside) // rows
    raise ModelContract(
        f"tokens of square cells that cover a window of {height} x {width} px expected in the "
        f"model's attention; found {tokens}"
    )


_TOKENS_BESIDE = 1
"""A class token may stand before those of places."""
