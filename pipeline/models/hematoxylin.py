"""Density of nuclei in H&E, without weights: how much hematoxylin there is around each pixel.

Stains are separated as in A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical
staining by color deconvolution", Analytical and Quantitative Cytology and Histology 23 (2001).
Knows no cell and no outline: it says where nuclei are dense, which is what a glance needs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.pipeline.models.base import ModelSpec, Prediction, Views
from saccade.pipeline.models.filters import box_mean, optical_density, ramp, usable

HEMATOXYLIN = (0.650, 0.704, 0.286)
"""Optical density of hematoxylin in red, green and blue (Ruifrok and Johnston, table 1)."""
EOSIN = (0.072, 0.990, 0.105)
"""Optical density of eosin in red, green and blue (same table)."""


class Hematoxylin:
    """Score of nuclear density: hematoxylin concentration, averaged, put on a smooth step."""

    def __init__(self, radius_px: int = 4, low: float = 0.12, high: float = 0.5) -> None:
        """Neighbourhood, and the concentrations between which the score rises.

        Args:
            radius_px: of each of two box means, together nearly a Gaussian of the same radius; the
                halo is twice as large. A nucleus has a radius of about 4 um.
            low: mean concentration that scores 0, in units of optical density; pale stroma of
                weakly and strongly stained slides lies between 0.1 and 0.2.
            high: mean concentration that scores 1; crowds of nuclei reach 0.3 on weakly and 0.8
                on strongly stained slides.
        """
        if radius_px < 0 or not 0 <= low < high:
            raise ValueError(
                f"radius_px >= 0 and 0 <= low < high expected; found {radius_px=}, {low=}, {high=}"
            )
        self.radius_px, self.low, self.high = radius_px, low, high
        self.unmix = unmixing_row(HEMATOXYLIN, EOSIN)
        self.spec = ModelSpec(("nuclei",), halo_px=2 * radius_px, channels=3)

    @torch.inference_mode()
    def __call__(self, views: Views) -> Prediction:
        """Scores and, equal to them, saliency: ``(N, 1, H, W)`` in [0, 1]."""
        pixels = views.pixels.float()
        here = usable(pixels, views.valid)
        stain = torch.where(here, self.concentration(pixels), 0)
        mean = box_mean(box_mean(stain, self.radius_px), self.radius_px)
        scores = ramp(mean, self.low, self.high).mul_(here)
        return Prediction(scores, saliency=scores)

    def concentration(self, pixels: Tensor) -> Tensor:
        """Amount of hematoxylin, ``(N, 1, H, W)``, 0 or more, from RGB in [0, 1]."""
        density = optical_density(pixels)
        red, green, blue = self.unmix
        mixed = density[:, 0:1] * red + density[:, 1:2] * green + density[:, 2:3] * blue
        return mixed.clamp_min_(0)


def unmixing_row(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Weights of red, green and blue density that give the amount of the first stain.

    Both stains are made unit vectors, the residual is their cross product, and the row of the
    inverse matrix that belongs to the first stain is returned.
    """
    stains = torch.tensor([first, second], dtype=torch.float64)
    stains = stains / stains.norm(dim=1, keepdim=True)
    residual = torch.linalg.cross(stains[0], stains[1])
    matrix = torch.stack([*stains, residual / residual.norm()])
    red, green, blue = torch.linalg.inv(matrix)[:, 0].tolist()
    return (red, green, blue)
