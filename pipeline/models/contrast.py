"""Local contrast, without learning: how much a pixel stands out from its neighbourhood.

It is the control that a learned glance has to beat: whoever looks where there is contrast finds
much of what there is to find. Knows nothing of what stands out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.pipeline.models.base import ModelSpec, Prediction, Views
from saccade.pipeline.models.field import DARK, lit
from saccade.pipeline.models.filters import box_mean

FLOOR = 0.02
"""Keeps the ratio finite on dark ground; five steps of an 8-bit sample."""
EDGE_PX = 2
"""Pixels this near to ground without an image are half of it after averaging: they don't count."""


class Contrast:
    """Weber contrast of the channels' mean to that of the neighbourhood: ``|x - m| / m``.

    Ground without an image (dark, no data) neither counts nor has any contrast.
    """

    def __init__(self, radius_px: int = 8, full: float = 0.5, dark: float = DARK) -> None:
        """Neighbourhood, and the contrast that scores 1.

        Args:
            radius_px: of the neighbourhood, which should be wider than what is looked for.
            full: contrast that scores 1; below it the score is proportional.
            dark: pixels whose brightest sample is not above this show no image.
        """
        if radius_px < 1 or full <= 0:
            raise ValueError(
                f"radius_px of 1 or more and full above 0 expected; found {radius_px=}, {full=}"
            )
        self.radius_px, self.full, self.dark = radius_px, full, dark
        halo_px = max(radius_px, EDGE_PX)
        self.spec = ModelSpec(("contrast",), halo_px=halo_px, channels=None)

    @torch.inference_mode()
    def __call__(self, views: Views) -> Prediction:
        """Scores and, equal to them, saliency: ``(N, 1, H, W)`` in [0, 1]."""
        pixels = views.pixels.float()
        here = lit(pixels, views.valid, self.dark)
        x = torch.where(here, pixels, 0).mean(1, keepdim=True)
        mean = _mean_where(x, here, self.radius_px)
        contrast = (x - mean).abs() / (mean.abs() + FLOOR)
        inside = box_mean(here.float(), EDGE_PX) > 1 - 1e-4
        scores = (contrast / self.full).clamp_(0, 1) * inside
        return Prediction(scores, saliency=scores)


def _mean_where(x: Tensor, here: Tensor, radius_px: int) -> Tensor:
    """Mean over the neighbourhood's pixels that show an image; ``x`` is 0 elsewhere."""
    share = box_mean(here.float(), radius_px)
    return box_mean(x, radius_px) / share.clamp_min(1e-6)
