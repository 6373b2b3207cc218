"""Attention rollout: which patches an answer goes back to, through all layers.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928),
section 3; used as saliency by RAMS-Trans (Hu et al., ACM Multimedia 2021, arXiv 2107.08192,
section 3.2), whose patch proposals are a selector. Knows maps, no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.pipeline.models.vision_transformers.answering import relative_map


def attention_rollout(layers: Tensor) -> Tensor:
    """How much every token of the last layer goes back to every token of the first.

    Heads are averaged; half of a token comes from itself, past the attention. Without a class
    token every row matters; where there is one, ``class_rollout`` costs far less.

    Args:
        layers: ``(N, layers, heads, T, T)``, the first layer first; rows sum to one.

    Returns:
        ``(N, T, T)`` float32; rows sum to one.
    """
    first, *later = (_with_shortcut(maps) for maps in layers.unbind(1))
    for maps in later:
        first = maps @ first
    return first


def class_rollout(layers: Sequence[Tensor]) -> Tensor:
    """The first row of ``attention_rollout``, without the others: ``(N, T)`` float32.

    Args:
        layers: ``(N, heads, T, T)`` of each layer, the first layer first.
    """
    row = _with_shortcut(layers[-1])[:, :1]
    for maps in reversed(layers[:-1]):
        row = row @ _with_shortcut(maps)
    return row[:, 0]


def rollout_saliency(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """A rollout as a map over the patches, ``(N, 1, rows, columns)``, 1 at the most salient.

    Args:
        attention: ``(N, T, T)`` of ``attention_rollout``. With a class token in front the map is
            what that token goes back to, else what all tokens go back to on average.
        grid: rows and columns of patches.

    Raises:
        ValueError: the tokens are not those of the grid, with or without a class token.
    """
    patches, tokens = grid[0] * grid[1], attention.shape[-1]
    if tokens == patches + 1:
        return relative_map(attention[:, 0, 1:], grid)
    if tokens == patches:
        return relative_map(attention.mean(1), grid)
    raise ValueError(
        f"{patches} tokens of a grid of {grid[0]} x {grid[1]} expected, or one more with a class "
        f"token; found {tokens}"
    )


def _with_shortcut(maps: Tensor) -> Tensor:
    """``(N, heads, T, T)`` as one map per image that takes the layer's residual path, too."""
    mean = maps.float().mean(1)
    both = mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return both / both.sum(-1, keepdim=True)
