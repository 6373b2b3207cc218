"""S2: one frozen backbone looks at an image at several scales; a linear head reads all of them.

Shi et al., "When Do We Not Need Larger Vision Models?", ECCV 2024 (arXiv 2403.13043), section 2.
Knows no backbone but by what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.vision_transformers.answering import token_grid

BACKBONE = "saccade.pipeline.models.vision_transformers.plain:ViTFeatures"
"""The backbone where none is named."""


class ScaledFeatures(nn.Module):
    """Features of a backbone at several scales, side by side on the grid of the first.

    The image is interpolated to each scale and split into parts of the size that the backbone is
    made for; their features are put together again, averaged down to the grid of scale 1, and
    concatenated. The backbone is frozen and always in eval mode.

    Args:
        backbone: ``(N, C, base, base)`` to ``(N, F, base / stride, base / stride)``.
        scales: whole numbers, the first 1.
        base: side of a part, in pixels.
    """

    def __init__(self, backbone: nn.Module, *, scales: Sequence[int] = (1, 2), base: int = 64):
        super().__init__()
        if not scales or scales[0] != 1 or any(int(s) != s or s < 1 for s in scales):
            raise ValueError(f"scales are whole numbers that begin with 1; found {tuple(scales)}")
        self.backbone = backbone.eval().requires_grad_(False)
        self.scales, self.base = tuple(int(s) for s in scales), base

    def train(self, mode: bool = True) -> ScaledFeatures:
        """Training does not reach the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """``(N, F * scales, H / stride, W / stride)`` of images whose sides are whole bases."""
        return torch.cat([self._at(x, scale) for scale in self.scales], 1)

    def _at(self, x: Tensor, scale: int) -> Tensor:
        if scale == 1:
            return self._in_parts(x)
        larger = functional.interpolate(x, scale_factor=float(scale), mode="bicubic")
        return functional.avg_pool2d(self._in_parts(larger), scale)

    def _in_parts(self, x: Tensor) -> Tensor:
        """Features of every part of ``base`` pixels by itself, put together."""
        pieces = functional.unfold(x, self.base, stride=self.base).transpose(1, 2)
        features = self.backbone(pieces.reshape(-1, x.shape[1], self.base, self.base))
        side = features.shape[-1]
        columns = features.reshape(x.shape[0], pieces.shape[1], -1).transpose(1, 2)
        whole = tuple(length // self.base * side for length in x.shape[-2:])
        return functional.fold(columns, whole, side, stride=side)


class S2(nn.Module):
    """A linear answer per feature of a backbone seen at several scales.

    A pass gives it single tiles of whole ``base`` squares. Only the head is trained. Ours: where a
    tile is larger than the base, scale 1 is split, too, so that the size of a tile changes nothing
    but the rim where interpolation meets its edge. An archive exported from it takes windows of two
    bases or more along each side: its ``multiple`` has to say so.

    Args:
        classes: of the scores.
        scales: whole numbers, the first 1; each costs its square.
        base: side of what the backbone sees at once, in pixels.
        backbone: 'package.module:factory' of a module that gives ``(N, F, h, w)``, or the module.
        options: keyword arguments of that factory.
        channels: of the pixels.
        seed: of the head, and of a backbone that takes one, until weights are loaded.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        scales: Sequence[int] = (1, 2),
        base: int = 64,
        backbone: str | nn.Module = BACKBONE,
        options: Mapping[str, Any] | None = None,
        channels: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with seeded(seed):
            if isinstance(backbone, str):
                backbone = _built(backbone, options or {})
            self.features = ScaledFeatures(backbone, scales=scales, base=base)
            count, side = _shape_of(backbone, channels, base)
            self.head = nn.Conv2d(count * len(self.features.scales), len(classes), 1)
        stride = base // side
        self.saccade = token_grid(classes, stride, channels=channels) | {"multiple": base}

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes, H / stride, W / stride)``."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _built(source: str, options: Mapping[str, Any]) -> nn.Module:
    module, _, factory = source.partition(":")
    built = getattr(import_module(module), factory)(**options)
    if not isinstance(built, nn.Module):
        raise TypeError(f"{source}: a torch.nn.Module expected; found {type(built).__name__}")
    return built


def _shape_of(backbone: nn.Module, channels: int, base: int) -> tuple[int, int]:
    """How many features a backbone gives, and the side of their grid, by trying it."""
    with torch.inference_mode():
        features = backbone(torch.zeros(1, channels, base, base))
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 4 or shape[2] != shape[3] or base % shape[2]:
        raise ValueError(
            f"features (1, F, h, h) whose side divides {base} expected of the backbone for one "
            f"window of {base} px; found {shape or type(features).__name__}: wrap it so that it "
            "gives a map, without class token"
        )
    return shape[1], shape[2]
