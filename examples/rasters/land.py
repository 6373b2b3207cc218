"""How much of a pixel is land, in a raster of land (255) and sea (0): a model without weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class LandShare(nn.Module):
    """``(N, 1, H, W)`` land in [0, 1] to ``(N, 2, H, W)``: the share of sea, the share of land."""

    saccade: ClassVar[dict[str, Any]] = {"classes": ("sea", "land"), "halo_px": 0, "channels": 1}

    def forward(self, x: Tensor) -> Tensor:
        """A pixel's own value is its answer."""
        return torch.cat([1 - x, x], 1)
