"""From class tokens to answers, and what every one of these models declares.

Knows classes and grids; knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.pipeline.models.base import Activation


def declaration(classes: Sequence[str], **fields: Any) -> dict[str, Any]:
    """What a module states about itself: one class is a yes or no, several exclude each other.

    Args:
        classes: of the scores.
        fields: further fields of a ``ModelSpec``.
    """
    activation: Activation = "sigmoid" if len(classes) == 1 else "softmax"
    common = {"classes": tuple(classes), "activation": activation, "mean": (0.5,), "std": (0.5,)}
    return common | fields


def token_grid(classes: Sequence[str], side: int, **fields: Any) -> dict[str, Any]:
    """Declares one answer per token of ``side`` pixels, each dependent on the whole window.

    No halo makes such an answer exact: a pass gives it single tiles, of the size it states.
    """
    return declaration(classes, stride=side, multiple=side, halo_px=0, local=False, **fields)


def tile_classifier(classes: Sequence[str], tile: int, **fields: Any) -> dict[str, Any]:
    """Declares one answer per tile of ``tile`` pixels, which depends on that tile alone."""
    return declaration(classes, stride=tile, multiple=tile, halo_px=0, **fields)


def confidence(logits: Tensor) -> Tensor:
    """Probability of the most probable outcome, ``(N,)`` of ``(N, classes)``.

    As CF-ViT (arXiv 2203.03821, section 3.1) and TinyDrop (arXiv 2509.03379, section 2) ask
    before they compute more. A single class is weighed against its absence.
    """
    if logits.shape[1] == 1:
        return logits[:, 0].abs().float().sigmoid()
    return logits.float().softmax(1).amax(1)


def spread(answers: Tensor, grid: tuple[int, int]) -> Tensor:
    """One answer per window on every token of it: ``(N, K)`` to ``(N, K, rows, columns)``."""
    return answers[:, :, None, None].expand(-1, -1, *grid)


def relative_map(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Numbers per token as a map in units of the window's largest, ``(N, 1, rows, columns)``.

    Args:
        values: ``(N, T)``, 0 or more.
        grid: rows and columns of the ``T`` tokens.
    """
    largest = values.amax(1, keepdim=True).clamp_min(1e-12)
    return torch.unflatten(values / largest, 1, grid).unsqueeze(1)
