"""Small local filters on tensors, exact at the image's edge; knows no stain, class or threshold.

Every filter here gives a pixel the same value in any window that holds its neighbourhood: sums are
taken directly (no running sums), and what lies outside the array is left out of a mean instead of
being invented.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

RGB_WHITE = 0.95
"""Bright-field glass: scanners set their white point so that empty glass reads about 243 of 255."""
OD_FLOOR = 1 / 255
"""Darkest transmission that is told apart: one step of an 8-bit sample."""


def box_mean(x: Tensor, radius_px: int) -> Tensor:
    """Mean over a square of side ``2 * radius_px + 1``, cut off at the array's edge.

    Args:
        x: ``(N, C, H, W)`` float.
        radius_px: 0 gives ``x`` back.
    """
    if radius_px == 0:
        return x
    side, pad = 2 * radius_px + 1, radius_px
    rows = avg_pool2d(x, (side, 1), stride=1, padding=(pad, 0), count_include_pad=False)
    return avg_pool2d(rows, (1, side), stride=1, padding=(0, pad), count_include_pad=False)


def box_std(x: Tensor, radius_px: int) -> Tensor:
    """Standard deviation over the same square as ``box_mean``; never negative, never NaN."""
    mean = box_mean(x, radius_px)
    return (box_mean(x * x, radius_px) - mean * mean).clamp_min_(0).sqrt_()


def optical_density(x: Tensor) -> Tensor:
    """``-log10(x / white)``, the quantity that stains add up in (Beer and Lambert).

    Args:
        x: transmitted light in [0, 1], any shape; brighter than glass gives 0.

    Returns:
        Densities of the same shape, 0 for glass to about 2.4 for black.
    """
    return (x / RGB_WHITE).clamp_(OD_FLOOR, 1.0).log10_().neg_()


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """Smooth step from exactly 0 at ``low`` to exactly 1 at ``high``; 0.5 half way.

    Exact zeros matter: stored arrays do not spend space on them.
    """
    t = ((x - low) / (high - low)).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def usable(pixels: Tensor, valid: Tensor | None) -> Tensor:
    """Where there is an image: valid, finite, and not the pure black that scanners pad with.

    Returns:
        ``(N, 1, H, W)`` bool.
    """
    brightest = pixels.amax(1, keepdim=True)
    lit = torch.isfinite(pixels).all(1, keepdim=True) & (brightest > OD_FLOOR * 2)
    return lit if valid is None else lit & valid
