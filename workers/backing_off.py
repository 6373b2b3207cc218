"""What to try after a device ran out of memory: half the batch, then half the window. Pure.

A window is cut along its longer side into two that overlap by the halo, so that a model with an
exact halo answers for each half as it would have for the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from saccade.pipeline.geometry import Box, Shape
from saccade.workers.memory import pixels_of

LEAST_PX = 32
"""A device on which windows of this side do not fit is too small for the model."""


class PixelLimit:
    """The smallest forward pass that is known not to fit, so that it is not tried again.

    Args:
        too_many_px: input pixels of it; None where everything has fitted so far.
        learned: told batch and shape of every smaller one.
    """

    def __init__(
        self, too_many_px: int | None = None, learned: Callable[[int, Shape], None] | None = None
    ) -> None:
        self._too_many_px = too_many_px
        self._learned = learned
        self._lock = threading.Lock()

    def allows(self, batch: int, shape: Shape) -> bool:
        """Whether a forward pass of this size is worth trying."""
        return self._too_many_px is None or pixels_of(batch, shape) < self._too_many_px

    def learn(self, batch: int, shape: Shape) -> None:
        """This size ran out of memory."""
        with self._lock:
            if not self.allows(batch, shape):
                return
            self._too_many_px = pixels_of(batch, shape)
        if self._learned is not None:
            self._learned(batch, shape)


@dataclass(frozen=True, slots=True)
class Part:
    """One half of a window. Boxes in input pixels from the window's own upper left corner."""

    read: Box
    """What the model sees of it."""
    core: Box
    """What it answers for."""


def halves(shape: Shape, halo_px: int, multiple: int) -> tuple[Part, Part] | None:
    """A window cut in two, each with its halo; None where a half would be no smaller, or tiny.

    Args:
        shape: of the window, halo included; multiples of ``multiple``.
        halo_px: context that makes an answer exact; a multiple of ``multiple``.
        multiple: what sizes and origins are multiples of.
    """
    height, width = shape
    tall = height >= width
    length = height if tall else width
    middle = length // 2 // multiple * multiple
    if middle < LEAST_PX or middle <= halo_px or middle + halo_px >= length:
        return None

    def box(begin: int, end: int) -> Box:
        return Box(begin, 0, end, width) if tall else Box(0, begin, height, end)

    first = Part(box(0, middle + halo_px), box(0, middle))
    return first, Part(box(middle - halo_px, length), box(middle, length))
