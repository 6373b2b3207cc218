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
TRIED_AGAIN_AFTER = 8
"""What ran out of memory once is tried again at every so many turns."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A forward pass that ran out of memory."""

    batch: int
    """Windows at once."""
    shape: Shape
    """Height and width of a window, in input pixels."""

    @property
    def pixels(self) -> int:
        """Input pixels of the whole batch."""
        return pixels_of(self.batch, self.shape)


class PixelLimit:
    """The smallest forward pass that is thought not to fit, so that it is not tried at every turn.

    Running out once tells little, and all sizes in a row no more: who else held the memory may be
    gone soon. The smallest is *suspect* and tried again once in a while. It is *learned* not to fit
    when less has fitted, so that the device was there, and it runs out again before it has fitted.

    Args:
        too_many_px: input pixels of the smallest one that was learned; None where none was.
        learned: told batch and shape of every smaller one.
    """

    def __init__(
        self, too_many_px: int | None = None, learned: Callable[[int, Shape], None] | None = None
    ) -> None:
        self._too_many_px = too_many_px
        self._learned = learned
        self._suspect: Lesson | None = None
        self._less_fitted = False
        self._passed_over = 0
        self._lock = threading.Lock()

    def allows(self, batch: int, shape: Shape) -> bool:
        """Whether a forward pass of this size is to be tried now; counts how often it is not."""
        with self._lock:
            pixels, suspect = pixels_of(batch, shape), self._suspect
            if self._too_many_px is not None and pixels >= self._too_many_px:
                return False
            if suspect is None or pixels < suspect.pixels:
                return True
            self._passed_over += 1
            return self._passed_over % TRIED_AGAIN_AFTER == 0

    def ran_out(self, batch: int, shape: Shape) -> None:
        """This size ran out of memory: it is suspect, or is learned where it confirms one."""
        tried = Lesson(batch, shape)
        with self._lock:
            before, confirmed = self._suspect, self._less_fitted
            if before is None or tried.pixels < before.pixels:
                self._suspect, self._less_fitted = tried, False
        if before is not None and confirmed:
            larger = max(before, tried, key=_pixels)
            self.learn(larger.batch, larger.shape)

    def fitted(self, batch: int, shape: Shape) -> None:
        """This size did not run out: nothing up to it is suspect any more."""
        with self._lock:
            if self._suspect is None:
                return
            self._less_fitted = pixels_of(batch, shape) < self._suspect.pixels
            if not self._less_fitted:
                self._suspect, self._passed_over = None, 0

    def learn(self, batch: int, shape: Shape) -> None:
        """This size does not fit."""
        pixels = pixels_of(batch, shape)
        with self._lock:
            if self._too_many_px is not None and pixels >= self._too_many_px:
                return
            self._too_many_px = pixels
        if self._learned is not None:
            self._learned(batch, shape)


def _pixels(lesson: Lesson) -> int:
    return lesson.pixels


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
