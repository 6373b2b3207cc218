"""Which tokens are kept: the most important first, equal ones by their place in the grid.

Knows numbers per token, not what they mean.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor


def share_of(share: float, count: int) -> int:
    """``share`` of ``count`` tokens, rounded up; the share is the decimal number as written."""
    exact = Fraction(repr(float(share)))
    return (count * exact.numerator + exact.denominator - 1) // exact.denominator


def checked_share(share: float, name: str = "keep") -> float:
    """A share of the tokens, as it came.

    Raises:
        ValueError: it is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"{name} is a share of the tokens, above 0 and at most 1; found {share}")
    return share


def best_first(importance: Tensor) -> Tensor:
    """Places of tokens ``(N, T)``, highest importance first, equal ones by place."""
    return torch.sort(importance, dim=1, descending=True, stable=True).indices


def parted(importance: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Places of the most important tokens ``(N, k)`` and of the others, each in their old order.

    Args:
        importance: ``(N, T)``.
        share: of the tokens that are among the first; all of them leaves the order as it was.
    """
    order = best_first(importance)
    count = share_of(share, order.shape[1])
    return order[:, :count].sort(1).values, order[:, count:].sort(1).values


def pick(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at these places: ``(N, T, width)`` and ``(N, k)`` give ``(N, k, width)``."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def quarters(depth: int) -> tuple[int, ...]:
    """After a quarter, a half and three quarters of the blocks, counted from 0.

    Layers 4, 7 and 10 of 12, as EViT and most who came after reduce tokens (arXiv 2202.07800,
    section 4).
    """
    return tuple(sorted({depth // 4, depth // 2, 3 * depth // 4}))
