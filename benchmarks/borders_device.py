"""A model that takes time as a GPU does: it sleeps, so that the processors are free meanwhile.

A file as a user would bring one; ``borders.py`` writes the recipe that names it. What it answers is
cheap and real: where a sample of each cell has colour, so that selections have something to choose.
"""

from __future__ import annotations

import time

from saccade.pipeline.models.base import ModelSpec, Prediction, Views

CONVINCING = 0.25
"""Largest minus smallest channel at which a score is 1."""


class PacedColour:
    """Colour of one pixel per cell, at a stated pace."""

    def __init__(self, seconds_per_megapixel: float, stride: int) -> None:
        self.seconds_per_px = seconds_per_megapixel / 1e6
        self.stride = stride
        self.spec = ModelSpec(("colour",), stride=stride, multiple=stride)

    def __call__(self, views: Views) -> Prediction:
        """Answer, then sleep for what remains of the time that a device would have taken."""
        since = time.perf_counter()
        batch, _, height, width = views.pixels.shape
        cells = views.pixels[:, :, :: self.stride, :: self.stride]
        colour = cells.amax(1, keepdim=True) - cells.amin(1, keepdim=True)
        scores = (colour / CONVINCING).clamp(0, 1)
        remaining = batch * height * width * self.seconds_per_px - (time.perf_counter() - since)
        time.sleep(max(0.0, remaining))
        return Prediction(scores)


def build(seconds_per_megapixel: float = 0.1, stride: int = 4) -> PacedColour:
    """The model of a recipe."""
    return PacedColour(seconds_per_megapixel, stride)
