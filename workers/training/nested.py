"""Between the scores of a crop and those of the finer crop inside it, on tensors.

``upsample`` is ``pipeline.resampling.upsample`` on a device; ``pool`` is the way back.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from saccade.pipeline.geometry import Box, Shape


def upsample(
    coarse: Tensor, coarse_box: Box, ratio: float, fine_box: Box, coarse_shape: Shape
) -> Tensor:
    """Coarse scores at the centres of fine pixels, as a run upsamples them.

    Args:
        coarse: ``(K, h, w)`` float of ``coarse_box``.
        coarse_box: in scores of the coarser pass.
        ratio: fine pixels per coarse score, not necessarily whole.
        fine_box: the fine pixels wanted; what the coarse box lacks is held at its edge.
        coarse_shape: height and width of all scores of the coarser pass.

    Returns:
        ``(K, height, width)`` float.
    """
    y0, y1, y = _between(
        fine_box.y0, fine_box.y1, ratio, coarse_box.y0, coarse_box.y1, coarse_shape[0]
    )
    x0, x1, x = _between(
        fine_box.x0, fine_box.x1, ratio, coarse_box.x0, coarse_box.x1, coarse_shape[1]
    )
    device = coarse.device
    left, right = coarse[:, :, x0.to(device)], coarse[:, :, x1.to(device)]
    wide = left + x.to(device) * (right - left)
    above, below = wide[:, y0.to(device)], wide[:, y1.to(device)]
    mixed: Tensor = above + y.to(device)[:, None] * (below - above)
    return mixed


def _between(
    start: int, stop: int, ratio: float, first: int, end: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbour, in the coarse box, and the upper one's weight."""
    centred = (torch.arange(start, stop, dtype=torch.float64) + 0.5) / ratio - 0.5
    below = centred.floor()
    weight = (centred - below).to(torch.float32)
    last = max(first, min(end, length) - 1)
    lower = below.long().clamp(0, length - 1).clamp(first, last) - first
    upper = (below.long() + 1).clamp(0, length - 1).clamp(first, last) - first
    return lower, upper, weight


def pool(
    fine: Tensor, fine_box: Box, ratio: float, coarse_box: Box, how: Literal["max", "mean"]
) -> tuple[Tensor, Tensor]:
    """Fine scores on a coarser grid: the highest, or the mean, of those centred in a coarse pixel.

    Args:
        fine: ``(K, h, w)`` float, not negative where ``how`` is 'max'.
        fine_box: in fine pixels.
        ratio: fine pixels per coarse pixel, not necessarily whole; at least 1.
        coarse_box: the coarse pixels wanted.
        how: of the fine pixels of a coarse one.

    Returns:
        ``(K, H, W)``, and ``(H, W)`` bool: coarse pixels all of whose fine ones are in the box;
        what is not whole is 0.
    """
    rows = _cells(fine_box.y0, fine_box.y1, ratio, coarse_box.y0, coarse_box.y1)
    columns = _cells(fine_box.x0, fine_box.x1, ratio, coarse_box.x0, coarse_box.x1)
    pooled = _gathered(_gathered(fine, 1, *rows[:2], how), 2, *columns[:2], how)
    whole = (rows[2][:, None] & columns[2][None, :]).to(fine.device)
    return pooled * whole, whole


def _cells(
    start: int, stop: int, ratio: float, first: int, end: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Per coarse pixel its first fine one and one past its last, counted from ``start``.

    Both are held inside the fine box; the third says where nothing had to be.
    """
    edges = torch.tensor([math.ceil(cell * ratio - 0.5) for cell in range(first, end + 1)])
    whole = (edges[:-1] >= start) & (edges[1:] <= stop)
    begin = (edges[:-1] - start).clamp(0, stop - start - 1)
    return begin, torch.maximum((edges[1:] - start).clamp(max=stop - start), begin + 1), whole


def _gathered(
    fine: Tensor, axis: int, begin: Tensor, end: Tensor, how: Literal["max", "mean"]
) -> Tensor:
    """The highest or the mean of ``begin`` to ``end`` along an axis."""
    shape = [-1 if i == axis else 1 for i in range(fine.ndim)]
    out = fine.index_select(axis, begin.to(fine.device))
    for tap in range(1, int((end - begin).max())):
        more = fine.index_select(axis, torch.minimum(begin + tap, end - 1).to(fine.device))
        if how == "max":
            out = torch.maximum(out, more)
        else:
            out = out + more * (begin + tap < end).view(shape).to(more)
    return out if how == "max" else out / (end - begin).view(shape).to(out)
