"""How many metres a pixel of a raster covers. Pure."""

from __future__ import annotations

import math

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.pipeline.georeference import Affine
from saccade.pipeline.sources.base import PixelSize

M_PER_DEGREE = 111320.0
LEAST_M = 1e-9


def sides_of(affine: Affine) -> tuple[float, float]:
    """Height and width of a pixel, in units of the CRS."""
    return math.hypot(affine.b, affine.e), math.hypot(affine.a, affine.d)


def projected_size(affine: Affine, unit_m: float) -> PixelSize | None:
    """In the projection's own metres: Web Mercator's are true at the equator only."""
    height, width = sides_of(affine)
    return size_or_none(height * unit_m, width * unit_m)


def geographic_size(affine: Affine, shape: Shape, degrees: float = 1.0) -> PixelSize | None:
    """At the raster's middle latitude, of coordinates that are each so many degrees."""
    middle = np.array([[shape[1] / 2, shape[0] / 2]])
    latitude = math.radians(float(affine.place(middle)[0, 1]) * degrees)
    height, width = (side * degrees * M_PER_DEGREE for side in sides_of(affine))
    return size_or_none(height, width * math.cos(latitude))


def size_or_none(height_m: float, width_m: float) -> PixelSize | None:
    """A pixel size, where both sides are lengths."""
    usable = LEAST_M < height_m < math.inf and LEAST_M < width_m < math.inf
    return PixelSize(height_m, width_m, "m") if usable else None
