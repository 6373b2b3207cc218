"""Averaging overlapping windows inside one unit. Pure numpy.

Cropping the halo needs nothing from here: it is assignment. Blending is for models that no halo
makes exact; it hides seams and does not remove their cause.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.geometry import Box, Shape

SMALLEST_WEIGHT = np.float32(1e-6)
"""Of a pixel far outside its window's core: it counts only where no other window answers."""


def hann_weights(core: Box, read: Box, margin_px: int, shape: Shape) -> np.ndarray:
    """How much a window's answer counts at each of its pixels.

    One inside the core, falling along a Hann (raised cosine) flank from ``margin_px`` inside the
    core's side to ``margin_px`` outside, so that the flanks of two neighbours add up to one. A side
    that lies on the plane's edge has no neighbour and no flank.

    Args:
        core: what the window answers for; at least ``2 * margin_px`` a side for sums of one.
        read: what it saw, with the core inside.
        margin_px: half the width of a flank; 0 or more.
        shape: height and width of the plane.

    Returns:
        ``read.shape`` float32 in (0, 1].
    """
    rows = _flanks(core.y0, core.y1, read.y0, read.y1, margin_px, shape[0])
    columns = _flanks(core.x0, core.x1, read.x0, read.x1, margin_px, shape[1])
    return np.maximum(np.outer(rows, columns).astype(np.float32), SMALLEST_WEIGHT)


def _flanks(
    core_start: int, core_stop: int, start: int, stop: int, margin_px: int, length: int
) -> np.ndarray:
    centres = np.arange(start, stop) + 0.5
    rising = _rise(centres - core_start, margin_px) if core_start > 0 else np.ones(len(centres))
    falling = _rise(core_stop - centres, margin_px) if core_stop < length else np.ones(len(centres))
    return rising * falling


def _rise(inside_px: np.ndarray, margin_px: int) -> np.ndarray:
    """From 0 at ``margin_px`` outside to 1 at ``margin_px`` inside."""
    if margin_px == 0:
        return (inside_px > 0).astype(np.float64)
    risen: np.ndarray = np.sin(np.clip(inside_px / margin_px + 1, 0, 2) * (np.pi / 4)) ** 2
    return risen


class Blend:
    """The weighted mean of the windows of one region, built up window by window.

    Keeps a running mean (West, *Updating mean and variance estimates*, CACM 1979) instead of two
    sums: windows that agree give their common value back, bit for bit. The last bits depend on the
    order of windows, which a unit's plan fixes.
    """

    def __init__(self, channels: int, region: Box) -> None:
        """Nothing answered yet, in a region of the plane of scores."""
        self.region = region
        self._mean = np.zeros((channels, *region.shape), np.float32)
        self._weight = np.zeros(region.shape, np.float32)

    def add(self, box: Box, scores: np.ndarray, weights: np.ndarray) -> None:
        """Add one window's answer.

        Args:
            box: where it lies in the plane; what is outside the region is left out.
            scores: ``(C, height, width)`` of the box, without NaN.
            weights: ``(height, width)``, positive.
        """
        inside = box.intersect(self.region)
        at, source = inside.relative_to(self.region).slices, inside.relative_to(box).slices
        total = self._weight[at]
        total += weights[source]
        mean = self._mean[(slice(None), *at)]
        mean += (weights[source] / total) * (scores[(slice(None), *source)] - mean)

    def result(self) -> np.ndarray:
        """``(C, height, width)`` float32 of the region; NaN where no window answered."""
        return np.where(self._weight > 0, self._mean, np.float32(np.nan))
