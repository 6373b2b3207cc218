"""Clouds and their shadows by band arithmetic: a model without weights, for reflectances."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

BLUE, NEAR_INFRARED = 0, 3
"""Positions among six bands: blue, green, red, near infrared, two of short-wave infrared."""
CLOUD_ABOVE, SHADOW_BELOW = 0.22, 0.24
"""Reflectance: clouds are bright in blue, shadows (and water) dark in near infrared."""
SOFTNESS = 0.02
"""Reflectance over which an answer goes from unlikely to likely."""


class Clouds(nn.Module):
    """``(N, 6, H, W)`` reflectances to ``(N, 3, H, W)`` probabilities that add up to 1."""

    saccade: ClassVar[dict[str, Any]] = {
        "classes": ("clear", "cloud", "shadow"),
        "halo_px": 0,
        "channels": 6,
    }

    def forward(self, x: Tensor) -> Tensor:
        """What is bright is cloud, whatever it is in near infrared."""
        cloud = torch.sigmoid((x[:, BLUE : BLUE + 1] - CLOUD_ABOVE) / SOFTNESS)
        dark = SHADOW_BELOW - x[:, NEAR_INFRARED : NEAR_INFRARED + 1]
        shadow = torch.sigmoid(dark / SOFTNESS) * (1 - cloud)
        return torch.cat([1 - cloud - shadow, cloud, shadow], 1)
