"""The field of view: where there is an image at all, without weights. Knows not what it shows.

For images that are round in a black rectangle (fundus photographs, endoscopy, eyepieces) and for
scans in a frame of one colour. ``tissue`` is no fit there: it takes three channels for bright-field
RGB, in which dark is dense and so tissue, and the black of a JPEG is not quite black.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.pipeline.models.base import ModelSpec, Prediction, Views
from saccade.pipeline.models.filters import box_mean, box_std, ramp

DARK = 0.1
"""Brightest sample of the black around a field, 25 of 255: JPEG and stray light leave 2 to 22
there, and all but the darkest half per cent of a retina lies above 58."""
FLAT = 0.25 / 255
"""Standard deviation below which a neighbourhood is of one colour. Rounding gives one colour up to
a third of this; a retina averaged to 1/4 and coarser stays above twice this."""
LOW, HIGH = 0.25, 0.75
"""Share of a neighbourhood that shows something, where the score leaves 0 and reaches 1."""


class Field:
    """Probability that a pixel belongs to the field of view.

    A pixel shows something when it is neither dark nor amid one single colour. The score follows
    the share of its neighbourhood that does, so that specks outside don't count and dark spots
    inside do.
    """

    def __init__(self, radius_px: int = 3, dark: float = DARK, flat: float = FLAT) -> None:
        """Thresholds, in samples of [0, 1].

        Args:
            radius_px: of the neighbourhood; the halo is twice as large.
            dark: pixels whose brightest sample is not above this show nothing.
            flat: neighbourhoods whose standard deviation is below this are of one colour; 0 takes
                every lit pixel.
        """
        if radius_px < 1 or flat < 0:
            raise ValueError(
                f"radius_px of 1 or more and flat of 0 or more expected; found {radius_px=}, "
                f"{flat=}"
            )
        self.radius_px, self.dark, self.flat = radius_px, dark, flat
        self.spec = ModelSpec(("field",), halo_px=2 * radius_px, channels=None)

    @torch.inference_mode()
    def __call__(self, views: Views) -> Prediction:
        """Scores and, equal to them, saliency: ``(N, 1, H, W)`` in [0, 1]."""
        pixels = views.pixels.float()
        here = lit(pixels, views.valid, self.dark)
        x = torch.where(here, pixels, 0).mean(1, keepdim=True)
        shows = here & (box_std(x, self.radius_px) >= self.flat)
        share = box_mean(shows.float(), self.radius_px)
        known = lit(pixels, views.valid, -torch.inf)
        scores = ramp(share, LOW, HIGH) * known
        return Prediction(scores, saliency=scores)


def lit(pixels: Tensor, valid: Tensor | None, dark: float) -> Tensor:
    """Where there is an image: valid, finite, and brighter than dark in some channel.

    Args:
        pixels: ``(N, C, H, W)`` float.
        valid: ``(N, 1, H, W)`` bool, or None where all are.
        dark: of the brightest sample.

    Returns:
        ``(N, 1, H, W)`` bool.
    """
    finite = torch.isfinite(pixels).all(1, keepdim=True)
    here = finite & (pixels.amax(1, keepdim=True) > dark)
    return here if valid is None else here & valid
