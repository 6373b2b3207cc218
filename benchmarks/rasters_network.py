"""The network of the raster benchmark: three convolutions over four bands of reflectance.

Untrained: what is measured is time. Its answer for a pixel depends on three pixels around it, and
every contender is given that halo. A recipe names it as ``rasters_network.py:BandNet``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from saccade.pipeline.models.base import ModelSpec

BANDS, HALO_PX, SCALE, SEED = 4, 3, 10_000.0, 2027
"""Of the input; context of an exact answer; samples per unit of reflectance; of the weights."""
SHARPNESS = 100.0
"""Factor on the logits: a trained network is sure, and seldom has two classes that tie."""
CLASSES = ("water", "soil", "grass", "forest", "built")


class BandNet(nn.Sequential):
    """``(N, 4, H, W)`` reflectances to ``(N, 5, H, W)`` logits."""

    saccade: ClassVar[ModelSpec] = ModelSpec(
        CLASSES, halo_px=HALO_PX, channels=BANDS, scale=SCALE, activation="softmax"
    )

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        super().__init__(
            nn.Conv2d(BANDS, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, len(CLASSES), 3, padding=1),
        )
        with torch.no_grad():
            for parameter in self[-1].parameters():
                parameter *= SHARPNESS
