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
    rows, whole_rows = _cells(fine_box.y0, fine_box.y1, ratio, coarse_box.y0, coarse_box.y1)
    columns, whole_columns = _cells(fine_box.x0, fine_box.x1, ratio, coarse_box.x0, coarse_box.x1)
    pooled = _gathered(
        _gathered(fine, 1, rows, coarse_box.height, how), 2, columns, coarse_box.width, how
    )
    whole = (whole_rows[:, None] & whole_columns[None, :]).to(fine.device)
    return pooled * whole, whole


def _cells(start: int, stop: int, ratio: float, first: int, end: int) -> tuple[Tensor, Tensor]:
    """Per fine position its cell counted from ``first`` (-1 outside), and which cells are whole."""
    centres = (torch.arange(start, stop, dtype=torch.float64) + 0.5) / ratio
    cells = centres.floor().long()
    inside = (cells >= first) & (cells < end)
    edges = [math.ceil(cell * ratio - 0.5) for cell in range(first, end + 1)]
    whole = [edges[i] >= start and edges[i + 1] <= stop for i in range(end - first)]
    return torch.where(inside, cells - first, -1), torch.tensor(whole, dtype=torch.bool)


def _gathered(
    fine: Tensor, axis: int, cells: Tensor, length: int, how: Literal["max", "mean"]
) -> Tensor:
    used = (cells >= 0).nonzero()[:, 0]
    index = cells[used].to(fine.device)
    part = fine.index_select(axis, used.to(fine.device))
    shape = list(fine.shape)
    shape[axis] = length
    out = fine.new_zeros(shape)
    if how == "max":
        return out.index_reduce_(axis, index, part, "amax")
    counts = torch.bincount(index, minlength=length).clamp(min=1).to(fine.dtype)
    total = out.index_add_(axis, index, part)
    return total / counts.view([-1 if i == axis else 1 for i in range(fine.ndim)])
