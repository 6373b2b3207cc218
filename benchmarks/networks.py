"""Networks that benchmarks compute: a U-Net, a tiny CNN and a small vision transformer, seeded.

Untrained: what is measured is time and how far arithmetics differ, never how good the answers are.
A recipe names them as ``networks.py:UNet``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.base import ModelSpec

SEED = 2027
CLASSES = ("background", "foreground")


def _block(before: int, after: int) -> nn.Sequential:
    """Twice: convolution, normalisation, activation."""

    def half(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(*half(before), *half(after))


class UNet(nn.Module):
    """Three poolings, skips, batch normalisation; 0.5 million parameters, a size people deploy."""

    saccade: ClassVar[ModelSpec] = ModelSpec(CLASSES, halo_px=48, multiple=8, activation="softmax")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        widths = (16, 32, 64, 128)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((3, *widths), widths, strict=False))
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(_block(2 * b, b) for _, b in steps)
        self.head = nn.Conv2d(widths[0], len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to logits ``(N, 2, H, W)``."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = skips.pop()
        for widen, block in zip(self.widen, self.up, strict=True):
            x = block(torch.cat([skips.pop(), widen(x)], 1))
        return self.head(x)


class TinyCNN(nn.Sequential):
    """Three convolutions of few channels: what reading and writing cost shows beside it."""

    saccade: ClassVar[ModelSpec] = ModelSpec(CLASSES, halo_px=3, activation="softmax")

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, len(CLASSES), 3, padding=1),
        )


class Transformer(nn.Module):
    """Patches of 16 pixels, four layers of global attention of 192 channels, one answer a patch."""

    saccade: ClassVar[ModelSpec] = ModelSpec(
        CLASSES, stride=16, multiple=16, activation="softmax", local=False
    )

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        width = 192
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        layers = [
            nn.TransformerEncoderLayer(
                width, 3, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(4)
        ]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to logits ``(N, 2, H / 16, W / 16)``."""
        patches = self.patches(x)
        tokens = self.layers(patches.flatten(2).transpose(1, 2))
        return self.head(tokens).transpose(1, 2).reshape(len(x), -1, *patches.shape[-2:])


NETWORKS: dict[str, type[nn.Module]] = {
    "U-Net": UNet,
    "tiny CNN": TinyCNN,
    "transformer": Transformer,
}
"""By the name that tables give them."""


def ready(name: str) -> nn.Module:
    """A network as a run holds it: in eval mode, without gradients."""
    return NETWORKS[name]().eval().requires_grad_(False)
