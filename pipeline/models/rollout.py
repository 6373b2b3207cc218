"""Attention rollout: how much of a transformer's answer goes back to each of its tokens.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020, arXiv 2005.00928),
section 3; as saliency of image regions in RAMS-Trans (Hu et al., ACM Multimedia 2021, arXiv
2107.08192), section 3.2. Knows maps of attention; no model and no pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_rollout(layers: Tensor) -> Tensor:
    """Attention of the last layer's tokens to those of the first, through all layers.

    Heads are averaged, and every layer passes half of a token on as it is, past its attention.

    Args:
        layers: ``(N, layers, heads, T, T)``, the first layer first; rows sum to one.

    Returns:
        ``(N, T, T)`` float32; rows sum to one.
    """
    identity = torch.eye(layers.shape[-1], dtype=torch.float32, device=layers.device)
    steps = (layers.float().mean(2) + identity) / 2
    rolled = steps[:, 0]
    for step in steps[:, 1:].unbind(1):
        rolled = step @ rolled
    return rolled


def class_rollout(layers: Sequence[Tensor]) -> Tensor:
    """The first row of ``attention_rollout``, without computing the others.

    Args:
        layers: ``(N, heads, T, T)`` of each layer, the first layer first; rows sum to one.

    Returns:
        ``(N, T)`` float32; sums to one.
    """
    steps = [maps.float().mean(1) for maps in layers]
    n, _, tokens = steps[0].shape
    row = torch.eye(1, tokens, device=steps[0].device).expand(n, 1, tokens)
    for step in reversed(steps):
        row = (row @ step + row) / 2
    return row[:, 0]


def rollout_saliency(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """What a rollout says of every place, 1 at the most salient of each image.

    Args:
        attention: ``(N, T, T)`` of ``attention_rollout``. With a class token in front, what that
            one goes back to; else the mean over all tokens.
        grid: rows and columns of tokens.

    Returns:
        ``(N, 1, rows, columns)`` float32 in [0, 1].

    Raises:
        ValueError: the tokens are not those of the grid, with or without a class token.
    """
    places, tokens = grid[0] * grid[1], attention.shape[-1]
    if tokens not in (places, places + 1):
        raise ValueError(
            f"{places} tokens for {grid[0]} x {grid[1]} places expected, or one more with a class "
            f"token; found {tokens}"
        )
    received = attention.mean(1) if tokens == places else attention[:, 0, 1:]
    most = received.amax(1, keepdim=True).clamp_min(torch.finfo(received.dtype).tiny)
    return (received / most).reshape(-1, 1, *grid)
