"""How many metres a pixel of a raster covers. Pure."""

from __future__ import annotations

import math

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.pipeline.georeference import Affine, Crs, Georeference
from saccade.pipeline.sources.base import PixelSize

M_PER_DEGREE = 111320.0
LEAST_M = 1e-9
WEB_MERCATOR = 3857
MERCATOR_RADIUS_M = 6_378_137.0
MOST_TURNS = 100.0
"""Beyond any place on Earth, in radii of it."""
MERCATOR_NOTE = (
    "gsd is in metres on the ground at the raster's middle latitude; those of its projection, Web "
    "Mercator, are true at the equator only"
)


def sides_of(affine: Affine) -> tuple[float, float]:
    """Height and width of a pixel, in units of the CRS."""
    return math.hypot(affine.b, affine.e), math.hypot(affine.a, affine.d)


def size_on_ground(affine: Affine, crs: Crs, shape: Shape) -> PixelSize | None:
    """Of a raster so many pixels high and wide, at its middle latitude where that matters."""
    if crs.geographic:
        return geographic_size(affine, shape)
    return projected_size(affine, shape, crs.unit_m, crs.epsg)


def projected_size(
    affine: Affine, shape: Shape, unit_m: float, epsg: int | None
) -> PixelSize | None:
    """In the projection's own metres, but of Web Mercator on the ground at its middle latitude."""
    metres = unit_m * (mercator_shrink(affine, shape) if epsg == WEB_MERCATOR else 1.0)
    height, width = sides_of(affine)
    return size_or_none(height * metres, width * metres)


def mercator_notes(place: Georeference | None) -> tuple[str, ...]:
    """What is to be said of the pixel size of a raster in Web Mercator."""
    if place is None or place.affine is None or place.crs is None:
        return ()
    return (MERCATOR_NOTE,) if place.crs.epsg == WEB_MERCATOR else ()


def mercator_shrink(affine: Affine, shape: Shape) -> float:
    """Ground metres per metre of Web Mercator at a raster's middle: the latitude's cosine."""
    return 1 / math.cosh(min(abs(_middle(affine, shape)[1]) / MERCATOR_RADIUS_M, MOST_TURNS))


def _middle(affine: Affine, shape: Shape) -> tuple[float, float]:
    """X and y of a raster's middle."""
    ((x, y),) = affine.place(np.array([[shape[1] / 2, shape[0] / 2]]))
    return float(x), float(y)


def geographic_size(affine: Affine, shape: Shape, degrees: float = 1.0) -> PixelSize | None:
    """At the raster's middle latitude, of coordinates that are each so many degrees."""
    latitude = math.radians(_middle(affine, shape)[1] * degrees)
    height, width = (side * degrees * M_PER_DEGREE for side in sides_of(affine))
    return size_or_none(height, width * math.cos(latitude))


def size_or_none(height_m: float, width_m: float) -> PixelSize | None:
    """A pixel size, where both sides are lengths."""
    usable = LEAST_M < height_m < math.inf and LEAST_M < width_m < math.inf
    return PixelSize(height_m, width_m, "m") if usable else None
