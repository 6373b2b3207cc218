"""Reading a module's answer: whatever it returned, as one ``Answer`` of raw tensors.

Modules return tensors, tuples, dictionaries or predictions; this is the only place that knows so.
Knows no activation, class or stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import Prediction

SCORE_KEYS = ("scores", "logits", "out")
"""Keys under which a dictionary may hold its scores, in order of preference."""
EXTRA_KEYS = ("saliency", "confidence", "features", "attention")


@dataclass(frozen=True, slots=True)
class Answer:
    """A module's raw answer for ``N`` windows."""

    scores: Tensor
    """``(N, classes, h, w)`` or, of a tile classifier, ``(N, classes)``; before activation."""
    extras: Mapping[str, Tensor]
    """Saliency, confidence, features and attention, where the module gives them."""
    final: bool = False
    """Whether the scores are probabilities already, because the module returned a Prediction."""

    @property
    def per_tile(self) -> bool:
        """Whether the module gives one answer per window: a tile classifier."""
        return self.scores.ndim == 2


def read_answer(output: Any) -> Answer:
    """What a module returned, whichever of the accepted forms it has.

    Args:
        output: a tensor; a ``Prediction``; a mapping with one of 'scores', 'logits', 'out' and
            perhaps 'saliency', 'confidence', 'features', 'attention'; or a tuple or list of which
            the first item is the scores.

    Raises:
        ModelContract: anything else.
    """
    if isinstance(output, Prediction):
        return Answer(output.scores, _extras(output), final=True)
    if isinstance(output, Mapping):
        return Answer(_tensor(output[_score_key(output)]), _extras(output))
    if isinstance(output, tuple | list) and output:
        return Answer(_tensor(output[0]), {})
    return Answer(_tensor(output), {})


def _score_key(output: Mapping[str, Any]) -> str:
    for key in SCORE_KEYS:
        if key in output:
            return key
    raise ModelContract(
        f"the model returned a dictionary with keys {sorted(map(str, output))}; "
        f"its scores are expected under one of {list(SCORE_KEYS)}"
    )


def _extras(output: Prediction | Mapping[str, Any]) -> dict[str, Tensor]:
    stated = {
        key: output.get(key) if isinstance(output, Mapping) else getattr(output, key)
        for key in EXTRA_KEYS
    }
    return {key: value for key, value in stated.items() if isinstance(value, Tensor)}


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.ndim in (2, 4) and torch.is_floating_point(value):
        return value
    found = type(value).__name__
    if isinstance(value, Tensor):
        found = f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    raise ModelContract(
        "a float tensor of shape (N, classes, h, w), or (N, classes) of a tile classifier, is "
        f"expected as the model's scores; found {found}"
    )
