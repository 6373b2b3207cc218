"""What tells where a picture lies: a scale bar, and an arrow to the north. Drawn into its corners.

North is that of the coordinates: along y of the image's CRS, in the middle of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from saccade.jobs.pictures.colours import INK, PAPER
from saccade.jobs.pictures.pen import Pen
from saccade.jobs.pictures.words import length_text, round_length
from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources.base import PixelSize

LABEL_SIZE_PT, PLATE_PT = 8.5, 15.0
SCALE_BAR_SHARE = 0.25
"""A scale bar is at most this share of a picture's width."""
NORTH_PT = 24.0
"""Side of the arrow's plate."""
LEAST_SIDES = 3
"""An arrow is drawn where the picture is at least so many plates high and wide."""

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a picture's pixels are on the ground, or on the slide."""

    pixel: PixelSize | None = None
    """Size of one; None draws no scale bar."""
    north: Pair | None = None
    """Columns and rows of a step to the north, of length 1; None draws no arrow."""

    @classmethod
    def of(cls, plan: ImagePlan, shape: Shape) -> Ground:
        """Of a picture of the whole image.

        Args:
            plan: of the image.
            shape: height and width of the picture.
        """
        (height, width), size = plan.level_shapes[0], plan.pixel_size
        sides = height / shape[0], width / shape[1]
        pixel = None if size is None else PixelSize(size.y * sides[0], size.x * sides[1], size.unit)
        return cls(pixel, _north(plan, sides))


def _north(plan: ImagePlan, sides: Pair) -> Pair | None:
    affine = plan.georeference.affine if plan.georeference else None
    if affine is None:
        return None
    (origin, up) = affine.inverse().place(np.array([[0.0, 0.0], [0.0, 1.0]]))
    column, row = (up - origin) / np.array([sides[1], sides[0]])
    length = math.hypot(column, row)
    return float(column / length), float(row / length)


def draw_ground(pen: Pen, ground: Ground, corner: Pair, sides: Pair, width_px: int) -> None:
    """Scale bar and arrow over a picture.

    Args:
        pen: draws.
        ground: what the picture's pixels are.
        corner: x and y of the picture's upper left corner, in points.
        sides: height and width of the picture, in points.
        width_px: its width in its own pixels.
    """
    if ground.pixel is not None:
        _draw_scale_bar(pen, ground.pixel, corner, sides, width_px)
    if ground.north is not None and min(sides) >= LEAST_SIDES * NORTH_PT:
        _draw_north(pen, ground.north, corner[0] + sides[1] - NORTH_PT, corner[1])


def with_ground(pixels: np.ndarray, ground: Ground, scale: float = 1.0) -> np.ndarray:
    """``(h, w, 3)`` uint8 with scale bar and arrow; ``scale`` is in pixels per point."""
    page = Image.fromarray(np.ascontiguousarray(pixels))
    height, width = pixels.shape[:2]
    draw_ground(Pen(page, scale), ground, (0.0, 0.0), (height / scale, width / scale), width)
    return np.asarray(page)


def _draw_scale_bar(pen: Pen, pixel: PixelSize, corner: Pair, sides: Pair, width_px: int) -> None:
    """A bar of a round length on a pale plate in the picture's lower left corner."""
    x, bottom = corner[0], corner[1] + sides[0]
    length = round_length(width_px * SCALE_BAR_SHARE * pixel.x)
    width, label = length / pixel.x * sides[1] / width_px, length_text(length, pixel.unit)
    plate = max(width, pen.width(label, LABEL_SIZE_PT)) + 8
    if plate > sides[1] or sides[0] < 2 * PLATE_PT:
        return
    pen.rectangle(x, bottom - PLATE_PT, plate, PLATE_PT, PAPER, None)
    pen.text(x + plate / 2, bottom - 7, label, LABEL_SIZE_PT, INK, "ms")
    pen.rectangle(x + (plate - width) / 2, bottom - 4.2, width, 1.8, INK, None)


def _draw_north(pen: Pen, north: Pair, x: float, y: float) -> None:
    """An arrow with its letter at the tip, on a pale plate whose corner is ``x``, ``y``."""
    pen.rectangle(x, y, NORTH_PT, NORTH_PT, PAPER, None)
    middle = x + NORTH_PT / 2, y + NORTH_PT / 2
    across = -north[1], north[0]

    def at(along: float, aside: float) -> Pair:
        return (
            middle[0] + along * north[0] + aside * across[0],
            middle[1] + along * north[1] + aside * across[1],
        )

    pen.polygon([at(3.0, 0), at(-10.0, 4.2), at(-7.0, 0), at(-10.0, -4.2)], INK)
    letter = at(7.5, 0)
    pen.text(letter[0], letter[1], "N", LABEL_SIZE_PT - 1, INK, "mm")
