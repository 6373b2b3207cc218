"""What a device carries in one forward pass, in pixels. Pure; knows no device and no byte."""

from __future__ import annotations

import sys
from dataclasses import dataclass

WINDOW_PX = 512
"""Longest side of merged tiles that the recipe leaves open."""
WHOLE_PASS_PX = 4_000_000
"""A glance of at most this many pixels goes through the model in one forward pass."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device carries in one forward pass of a pass's model, in input pixels."""

    batch_px: int = WINDOW_PX**2
    """What suits it: windows of about so many pixels make a batch, where that is left open."""
    most_px: int = sys.maxsize
    """What fits its memory: windows and batches that are left open stay within."""
    whole_px: int = WHOLE_PASS_PX
    """A glance of at most so many goes through the model in one forward pass."""

    def holds(self, height: int, width: int) -> bool:
        """Whether one window of this size, halo included, fits."""
        return height * width <= self.most_px


ANY_DEVICE = Capacity()
"""Where nothing is known of a device."""
