"""Groups of a step as tensors: padded to one size, turned, their colours changed.

Crops are padded and scores computed in the image's own frame; *turned* is what a model sees. Every
crop of a group is turned and coloured alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.inputs import Inputs
from saccade.pipeline.sources.bands import Samples
from saccade.workers.device_inputs import as_given
from saccade.workers.training.groups import Crop, CropPlace, Draw, Group


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay a square down: mirrored along each axis, then transposed."""

    flip_y: bool = False
    """Whether rows are reversed."""
    flip_x: bool = False
    """Whether columns are reversed."""
    transpose: bool = False
    """Whether rows become columns, after the mirroring."""

    def there(self, x: Tensor) -> Tensor:
        """``(..., H, W)`` turned."""
        mirrored = x.flip(self._axes) if self._axes else x
        return mirrored.transpose(-1, -2) if self.transpose else mirrored

    def back(self, x: Tensor) -> Tensor:
        """The inverse of ``there``."""
        upright = x.transpose(-1, -2) if self.transpose else x
        return upright.flip(self._axes) if self._axes else upright

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, flip in ((-2, self.flip_y), (-1, self.flip_x)) if flip]


@dataclass(frozen=True, slots=True, eq=False)
class PassBatch:
    """The crops of one pass, turned."""

    places: tuple[CropPlace, ...]
    """Where each lies, in its image's own frame."""
    size: Shape
    """Height and width that all were padded to, before turning; below and right."""
    pixels: Tensor
    """``(N, C, H, W)`` float32, as ``Views`` holds them."""
    valid: Tensor | None
    """``(N, 1, H, W)`` bool; None when all is valid."""
    context: tuple[Tensor, ...]
    """Per factor, ``(N, C, H, W)``."""
    truth: Tensor
    """``(N, K, h, w)`` float32, 0 or 1."""
    counts: Tensor
    """``(N, 1, h, w)`` bool: scores that are compared with the truth."""
    teacher: Tensor | None
    """``(N, K, h, w)`` float32 in [0, 1]."""

    def box(self, index: int) -> Box:
        """A crop with its padding, in pixels of the pass."""
        box = self.places[index].box
        return Box(box.y0, box.x0, box.y0 + self.size[0], box.x0 + self.size[1])

    def score_box(self, index: int) -> Box:
        """The same in scores."""
        return self.box(index).reduce(self.places[index].stride)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The groups of one step."""

    draws: tuple[Draw, ...]
    """One per group."""
    turns: tuple[Turn, ...]
    """How each is turned."""
    passes: tuple[PassBatch, ...]
    """From coarse to fine."""

    def __len__(self) -> int:
        return len(self.draws)

    def there(self, parts: Sequence[Tensor]) -> Tensor:
        """``(K, h, w)`` per group, in the image's frame, as the turned batch."""
        return torch.stack([t.there(x) for t, x in zip(self.turns, parts, strict=True)])

    def back(self, index: int, x: Tensor) -> Tensor:
        """One group's part of a turned batch, in the image's frame."""
        return self.turns[index].back(x[index])


def collate(
    groups: Sequence[Group],
    scales: Sequence[float | None],
    transpose: bool,
    colour: float,
    device: str,
) -> Batch:
    """The groups of a step as tensors on a device.

    Args:
        groups: all with crops of the same passes.
        scales: per pass, the model's scale: what samples are divided by where nothing normalises
            them; None is the dtype's maximum, 1 of floats.
        transpose: whether rows become columns.
        colour: largest relative change of colours.
        device: as torch names it.
    """
    draws = tuple(group.draw for group in groups)
    turns = tuple(Turn(draw.flip_y, draw.flip_x, transpose) for draw in draws)
    passes = tuple(
        _pass_batch([g.crops[i] for g in groups], draws, turns, scales[i], colour, device)
        for i in range(len(groups[0].crops))
    )
    return Batch(draws, turns, passes)


def _pass_batch(
    crops: Sequence[Crop],
    draws: Sequence[Draw],
    turns: Sequence[Turn],
    scale: float | None,
    colour: float,
    device: str,
) -> PassBatch:
    size = (max(c.place.box.height for c in crops), max(c.place.box.width for c in crops))
    cells = (size[0] // crops[0].place.stride, size[1] // crops[0].place.stride)

    def stacked(parts: Sequence[Tensor]) -> Tensor:
        turned = [turn.there(part) for turn, part in zip(turns, parts, strict=True)]
        return torch.stack(turned).to(device)

    def pixels(views: Sequence[Samples]) -> Tensor:
        each = zip(views, crops, draws, strict=True)
        shown = [_shown(view, crop.inputs, draw, scale, colour) for view, crop, draw in each]
        return stacked([_widened(x, size) for x in shown])

    def on_scores(arrays: Sequence[np.ndarray]) -> Tensor:
        return stacked([_with_zeros(torch.from_numpy(a), cells) for a in arrays])

    whole = all(crop.valid is None for crop in crops)
    soft = [crop.teacher for crop in crops if crop.teacher is not None]
    return PassBatch(
        places=tuple(crop.place for crop in crops),
        size=size,
        pixels=pixels([crop.pixels for crop in crops]),
        valid=None if whole else stacked([_with_zeros(_valid(c), size) for c in crops]),
        context=tuple(
            pixels([crop.context[i] for crop in crops]) for i in range(len(crops[0].context))
        ),
        truth=on_scores([crop.truth for crop in crops]).float(),
        counts=on_scores([crop.counts[None] for crop in crops]),
        teacher=on_scores(soft) if soft else None,
    )


def _valid(crop: Crop) -> Tensor:
    held = np.ones(crop.place.box.shape, bool) if crop.valid is None else crop.valid
    return torch.from_numpy(held)[None]


def _shown(view: Samples, inputs: Inputs, draw: Draw, scale: float | None, colour: float) -> Tensor:
    """``(C, H, W)`` float32 of one view, the colours of what holds data changed as the draw says.

    What stands where there is no data is the same in every run, and so it is here.
    """
    pixels, valid = view
    samples = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    x = as_given(samples[None], pixels.dtype, inputs, scale)[0]
    if draw.colour_seed is None:
        return x
    bounded = inputs.clip if inputs.zero else pixels.dtype.kind in "iu"
    changed = _recoloured(x, *colour_change(draw.colour_seed, len(x), colour), bounded)
    if valid is None:
        return changed
    return torch.where(torch.from_numpy(valid).permute(2, 0, 1), changed, x)


def _recoloured(x: Tensor, gain: float, contrast: float, own: np.ndarray, bounded: bool) -> Tensor:
    """``(C, H, W)`` with other brightness, contrast and channels; within [0, 1] where it was."""
    middle = 0.5 if bounded else 0.0
    changed = ((x - middle) * contrast + middle) * (gain * torch.from_numpy(own)[:, None, None])
    return changed.clamp(0, 1) if bounded else changed


def colour_change(seed: int, channels: int, most: float) -> tuple[float, float, np.ndarray]:
    """Factors on brightness and contrast, and ``(channels,)`` float32 on every channel."""
    factors = 1 + np.random.default_rng(seed).uniform(-most, most, 2 + channels)
    return float(factors[0]), float(factors[1]), factors[2:].astype(np.float32)


def _widened(x: Tensor, size: Shape) -> Tensor:
    """``(C, H, W)`` extended below and to the right by its last row and column."""
    below, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if not (below or right):
        return x
    return functional.pad(x[None], (0, right, 0, below), mode="replicate")[0]


def _with_zeros(x: Tensor, size: Shape) -> Tensor:
    below, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return functional.pad(x, (0, right, 0, below)) if below or right else x
