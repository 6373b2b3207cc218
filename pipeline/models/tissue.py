"""Tissue against glass, without weights; or texture against flat ground where there is no colour.

Every threshold is a constant with a physical reason: nothing is measured on the image as a whole,
so tiles agree with the whole. Knows nothing of what the tissue is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.pipeline.models.base import ModelSpec, Prediction, Views
from saccade.pipeline.models.filters import box_mean, box_std, optical_density, ramp, usable

LOW, HIGH = 0.4, 1.6
"""Evidence where the score leaves 0 and reaches 1; one unit of evidence scores 0.5."""
ENOUGH = 2.0
"""Evidence of one pixel counts up to here, so that half a neighbourhood of tissue scores 0.5."""
RELATIVE_FLOOR = 0.02
"""Keeps ratios finite on black ground; five steps of an 8-bit sample."""


class Tissue:
    """Probability that a pixel belongs to the specimen.

    Three channels are read as bright-field RGB: stains add colour, everything dense adds darkness,
    and structure adds texture; glass has none of the three. Each is divided by the amount that is
    convincing alone, and the sum is averaged over a small neighbourhood. Any other number of
    channels is judged by relative texture and by contrast to the wider neighbourhood.

    Pixels without data and black scanner padding score 0.
    """

    def __init__(
        self,
        radius_px: int = 3,
        colour: float = 0.12,
        density: float = 0.12,
        texture: float = 0.08,
        relative: float = 0.15,
        rgb: bool | None = None,
    ) -> None:
        """Thresholds at which one kind of evidence is convincing alone.

        Args:
            radius_px: of the neighbourhood; the halo is twice as large.
            colour: largest minus smallest channel. Glass stays below 0.03 (white balance, JPEG
                chroma noise); pale eosin starts near 0.08.
            density: optical density of the channels' mean. Glass stays below 0.02.
            texture: standard deviation of that density. Sensor noise on glass stays below 0.01.
            relative: of generic images, standard deviation over mean, plus contrast over mean.
            rgb: whether pixels are bright-field RGB; None takes three channels as such.
        """
        if radius_px < 1 or min(colour, density, texture, relative) <= 0:
            raise ValueError(
                f"radius_px of 1 or more and positive thresholds expected; found {radius_px=}, "
                f"{colour=}, {density=}, {texture=}, {relative=}"
            )
        self.radius_px, self.rgb = radius_px, rgb
        self.colour, self.density, self.texture = colour, density, texture
        self.relative = relative
        self.spec = ModelSpec(("tissue",), halo_px=2 * radius_px, channels=3 if rgb else None)

    @torch.inference_mode()
    def __call__(self, views: Views) -> Prediction:
        """Scores and, equal to them, saliency: ``(N, 1, H, W)`` in [0, 1]."""
        pixels = views.pixels.float()
        rgb = pixels.shape[1] == 3 if self.rgb is None else self.rgb
        here = usable(pixels, views.valid) if rgb else _known(pixels, views.valid)
        evidence = self._stain(pixels, here) if rgb else self._structure(pixels, here)
        scores = ramp(evidence, LOW, HIGH).mul_(here)
        return Prediction(scores, saliency=scores)

    def _stain(self, pixels: Tensor, here: Tensor) -> Tensor:
        low, high = torch.aminmax(pixels, dim=1, keepdim=True)
        colour = torch.where(here, high - low, 0)
        density = optical_density(pixels.mean(1, keepdim=True))
        density = torch.where(here, density, 0)
        local = colour / self.colour + density / self.density
        local += box_std(density, self.radius_px // 2) / self.texture
        return box_mean(local.clamp_max_(ENOUGH), self.radius_px)

    def _structure(self, pixels: Tensor, here: Tensor) -> Tensor:
        x = torch.where(here, pixels, 0)
        near, wide = box_mean(x, self.radius_px), box_mean(x, 2 * self.radius_px)
        level = wide.abs() + RELATIVE_FLOOR
        change = box_std(x, self.radius_px) + (near - wide).abs()
        return (change / level).mean(1, keepdim=True) / self.relative


def _known(pixels: Tensor, valid: Tensor | None) -> Tensor:
    finite = torch.isfinite(pixels).all(1, keepdim=True)
    return finite if valid is None else finite & valid
