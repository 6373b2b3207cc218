"""Measuring what an undeclared model's input sizes and origins must be multiples of.

Pooling and striding see a grid: moved by less than its period, the same pixels get other answers,
and a window that is not whole periods may be refused (skip connections no longer fit). Knows no
module internals: it only calls.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.geometry import round_up

SIDES_PX = (128, 256, 512)
"""Windows tried, smallest first; the answer at their centre must not feel their edges."""
LARGEST = 64
"""Largest multiple that is looked for."""
TOLERANCE = 1e-5
"""Relative to the largest raw score; rounding stays below, a moved pooling grid far above."""


def measure_multiple(
    model_fn: Callable[[Tensor], Tensor],
    stride: int,
    channels: int | None,
    *,
    device: str = "cpu",
) -> int:
    """Smallest power of two, times ``stride``, by which moved input gives moved output.

    Args:
        model_fn: pixels ``(N, C, H, W)`` to raw scores ``(N, K, H / stride, W / stride)``.
        stride: input pixels per output pixel.
        channels: input channels; None tries three.
        device: where the model is.

    Raises:
        ModelContract: none up to ``LARGEST`` does: the model sees its whole window, or has another
            period.
    """
    for side in SIDES_PX:
        found = _period(model_fn, round_up(side, LARGEST * stride), stride, channels or 3, device)
        if found is not None:
            return found
    raise ModelContract(
        "what the input's sizes and origins are multiples of could not be measured: state "
        f"'multiple' (and 'halo') of the model; moves of up to {LARGEST * stride} px all change "
        "its answer, as global attention or pooling does"
    )


def _period(
    model_fn: Callable[[Tensor], Tensor], side_px: int, stride: int, channels: int, device: str
) -> int | None:
    shape = (1, channels, side_px * 5 // 4, side_px * 5 // 4)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(2027)).to(device)
    base = model_fn(noise[..., :side_px, :side_px])
    moves = [2**k for k in range(LARGEST.bit_length()) if 2**k * stride <= side_px // 4]
    return next(
        (
            m * stride
            for m in moves
            if _takes_side(model_fn, noise, side_px + m * stride, stride)
            and _moves_along(model_fn, noise, base, m, stride)
        ),
        None,
    )


def _takes_side(
    model_fn: Callable[[Tensor], Tensor], noise: Tensor, side_px: int, stride: int
) -> bool:
    """Whether a window of this side is answered, in full."""
    try:
        answer = model_fn(noise[..., :side_px, :side_px])
    except RuntimeError:  # torch's word for shapes that do not fit
        return False
    return answer.shape[-1] == side_px // stride


def _moves_along(
    model_fn: Callable[[Tensor], Tensor], noise: Tensor, base: Tensor, cells: int, stride: int
) -> bool:
    """Whether input moved by ``cells * stride`` pixels gives output moved by ``cells``."""
    move, side = cells * stride, base.shape[-1]
    window = slice(move, move + side * stride)
    moved = model_fn(noise[..., window, window])
    centre = slice(side // 2, side // 2 + max(1, side // 8))
    before = slice(centre.start - cells, centre.stop - cells)
    gap = (moved[..., before, before] - base[..., centre, centre]).abs().max()
    return bool(gap <= TOLERANCE * base.abs().max())
