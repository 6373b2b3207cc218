"""A U-Net of a size people deploy (0.5 million parameters), untrained, with a fixed seed.

Untrained weights compute what trained ones do, in the same time and memory; only its answers are
worth nothing. Recipes name it as ``small_unet.py:build``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Sequential):
    """Two convolutions of 3 x 3, each normalised and rectified."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class SmallUNet(nn.Module):
    """Three times down, three times up; ``(N, 3, H, W)`` in [0, 1] to two classes' probabilities.

    Sides are multiples of 8.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sides = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(map(Block, [3, *sides], sides))
        joined = [a + b for a, b in zip(sides, sides[1:], strict=False)]
        self.up = nn.ModuleList(map(Block, reversed(joined), reversed(sides[:-1])))
        self.last = nn.Conv2d(width, 2, 1)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities of background and object, ``(N, 2, H, W)``."""
        seen = [self.down[0](pixels)]
        for block in self.down[1:]:
            seen.append(block(self.pool(seen[-1])))
        y = seen.pop()
        for block in self.up:
            y = block(torch.cat([self.grow(y), seen.pop()], 1))
        return self.last(y).softmax(1)


def build() -> SmallUNet:
    """The model, ready to answer."""
    torch.manual_seed(0)
    return SmallUNet().eval()
