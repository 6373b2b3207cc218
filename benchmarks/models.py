"""Two networks for the benchmarks: a U-Net of a size people deploy, and one too small to matter.

Weights come from a fixed seed: what they answer is meaningless, what they cost is not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Sequential):
    """Two convolutions, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(*_layer(inputs, outputs), *_layer(outputs, outputs))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


class UNet(nn.Module):
    """Four resolutions, 0.5 million parameters, two classes, probabilities out."""

    def __init__(self, width: int = 16, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**depth for depth in range(4)]
        ascent = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(map(Block, [3, *widths[:-1]], widths))
        self.up = nn.ModuleList(Block(deep + skip, skip) for deep, skip in ascent)
        self.head = nn.Conv2d(width, classes, 1)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to ``(N, classes, H, W)``; sides are multiples of 8."""
        skips: list[Tensor] = []
        for depth, block in enumerate(self.down):
            x = block(self.pool(x) if depth else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(torch.cat([self.grow(x), skips.pop()], 1))
        answer: Tensor = self.head(x).softmax(1)
        return answer


class TinyCNN(nn.Sequential):
    """Three convolutions, three classes, probabilities out: reading and writing decide its pace."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        wide = [nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
        head = nn.Conv2d(width, classes, 1)
        super().__init__(wide[0], nn.ReLU(), wide[1], nn.ReLU(), head, nn.Softmax(1))


def unet() -> nn.Module:
    """The U-Net, seeded."""
    torch.manual_seed(0)
    return UNet()


def tiny() -> nn.Module:
    """The tiny network, seeded."""
    torch.manual_seed(0)
    return TinyCNN()
