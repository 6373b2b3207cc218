"""From the pixels of a result to the coordinates of a file. Pure.

Every export that writes places asks a frame, and nothing else knows what a coordinate means: one in
longitude and latitude, or in metres of a projection, is another frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources.base import PixelSize


class Frame(Protocol):
    """Where the corners of a result's pixels are."""

    def place(self, points: np.ndarray) -> np.ndarray:
        """``(n, 2)``, x and y of pixel corners in the result, as ``(n, 2)`` coordinates."""
        ...

    def areas(self, doubled: float) -> dict[str, float]:
        """An area by the names of its units, from twice the area between coordinates."""
        ...


@dataclass(frozen=True, slots=True)
class ImagePixels:
    """Pixels of the image's level 0, its first pixel's outer corner at (0, 0), y downwards.

    So QuPath has it.
    """

    downsample: float
    """Pixels of level 0 per pixel of the result, along each axis."""
    shape: Shape
    """Height and width of level 0: a last pixel of the result may reach beyond it."""
    pixel_size: PixelSize | None
    """Of level 0; None where nobody stated it."""

    @classmethod
    def of(cls, plan: ImagePlan, downsample: float | None = None) -> ImagePixels:
        """The frame of a plan's fused result, or of another downsample of the same image."""
        by = plan.last.score_downsample if downsample is None else downsample
        return cls(by, plan.level_shapes[0], plan.pixel_size)

    @property
    def whole(self) -> bool:
        """Whether all coordinates are whole numbers."""
        return float(self.downsample).is_integer()

    def place(self, points: np.ndarray) -> np.ndarray:
        """Scaled, and cut off at the image's edge; integers where they are whole, else to 1/1000.

        Rounding moves no two different lines onto one: a downsample is at least 1.
        """
        height, width = self.shape
        scaled = np.minimum(points * float(self.downsample), (width, height))
        return scaled.astype(np.int64) if self.whole else np.round(scaled, 3)

    def areas(self, doubled: float) -> dict[str, float]:
        """Square pixels, and square micrometres or metres where the pixel size is known."""
        area = abs(doubled) / 2
        if self.pixel_size is None:
            return {"Area px^2": round(area, 3)}
        unit = {"um": "µm", "m": "m"}[self.pixel_size.unit]
        physical = area * self.pixel_size.y * self.pixel_size.x
        return {"Area px^2": round(area, 3), f"Area {unit}^2": round(physical, 6)}
