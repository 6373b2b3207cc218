"""Polygons in longitude and latitude: their area on the ellipsoid, the antimeridian, the poles.

Rings are ``(n, 2)`` degrees, not closed, and go on where the one before ended: a ring that crosses
the antimeridian goes beyond 180. One that goes around a pole ends a full turn from where it began
and is closed along the pole. As RFC 7946 has it (3.1.6, 3.1.9), what is written is cut at the
antimeridian, outer rings run counterclockwise and holes clockwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from saccade.pipeline.errors import UsageError

SEMI_MAJOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of WGS 84."""
Rings = Sequence[np.ndarray]
"""The outer one first, then its holes."""


def continued(ring: np.ndarray) -> np.ndarray:
    """A ring whose longitudes jump by a turn nowhere, and which is closed along a pole if need be.

    Args:
        ring: its longitudes differ by less than half a turn from one point to the next.
    """
    lon = np.unwrap(ring[:, 0], period=360.0)
    # where the ring begins, come to by the shorter way from where it ends
    last = lon[-1] + (ring[0, 0] - lon[-1] + 180.0) % 360.0 - 180.0
    found = np.stack([lon, ring[:, 1]], axis=1)
    if abs(last - lon[0]) < 180.0:
        return found
    pole = math.copysign(90.0, ring[:, 1].mean())
    closing = [(last, ring[0, 1]), (last, pole), (lon[0], pole)]
    return np.concatenate([found, closing])


def bounding_box(ring: np.ndarray) -> tuple[float, float, float, float]:
    """West, south, east, north; across the antimeridian west is more than east (RFC 7946, 5.2)."""
    (west, south), (east, north) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    if east - west >= 360.0:
        return -180.0, south, 180.0, north
    turns = 360.0 * math.floor((west + 180.0) / 360.0)
    west, east = west - turns, east - turns
    return west, south, east if east <= 180.0 else east - 360.0, north


def area_m2(rings: Rings) -> float:
    """Square metres on WGS 84: exact where edges follow meridians and parallels.

    In the cylindrical equal-area projection (Snyder, USGS 1395, equations 3-12 and 10-13), where
    other edges are taken for straight.
    """
    outer, *holes = (abs(_signed_m2(ring)) for ring in rings)
    return outer - sum(holes)


def _signed_m2(ring: np.ndarray) -> float:
    x = np.radians(ring[:, 0] - ring[0, 0])
    y = _authalic(np.radians(ring[:, 1]))
    y = y - y[0]
    doubled = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
    return float(doubled) / 2 * SEMI_MAJOR_M**2


def _authalic(latitude: np.ndarray) -> np.ndarray:
    """Height in the projection of a sphere of radius 1; half of Snyder's q."""
    squared = FLATTENING * (2 - FLATTENING)
    e, sine = math.sqrt(squared), np.sin(latitude)
    q = sine / (1 - squared * sine**2) + np.arctanh(e * sine) / e
    half: np.ndarray = (1 - squared) / 2 * q
    return half


def counterclockwise(rings: Rings) -> list[np.ndarray]:
    """The outer ring counterclockwise where y is up, holes clockwise."""
    return [_turned(ring, left=index == 0) for index, ring in enumerate(rings)]


def _turned(ring: np.ndarray, left: bool) -> np.ndarray:
    x, y = (ring - ring[0]).T
    doubled = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
    return ring if (doubled > 0) == left else ring[::-1]


def cut(rings: Rings, decimals: int = 9) -> list[list[np.ndarray]]:
    """A polygon as one, or several, within 180 degrees west and east.

    Args:
        rings: of a valid polygon.
        decimals: where it has to be cut, its parts are valid once they are rounded to so many.

    Raises:
        UsageError: it must be cut, and shapely is not installed.
    """
    if all((np.abs(ring[:, 0]) <= 180.0).all() for ring in rings):
        return [counterclockwise(rings)]
    outer, *holes = (_on_one_sheet(ring) for ring in rings)
    # one by one would go through the outer ring, which is long, for every hole
    ground = _rounded(outer.difference(_union(holes)), decimals)
    found = [part for part in getattr(ground, "geoms", [ground]) if part.geom_type == "Polygon"]
    return [counterclockwise(_rings(part)) for part in found if part.area > 0]


def _on_one_sheet(ring: np.ndarray) -> Any:
    """The ground in a ring, within 180 degrees west and east."""
    try:
        import shapely
    except ImportError as error:
        raise UsageError(
            "a polygon crosses the antimeridian, and cutting it takes shapely, which is not "
            "installed; pip install 'saccade[geo]'"
        ) from error
    whole = shapely.make_valid(shapely.Polygon(ring))
    first, last = (
        math.floor((lon + 180.0) / 360.0) for lon in (ring[:, 0].min(), ring[:, 0].max())
    )
    parts = []
    for turn in range(first, last + 1):
        west = 360.0 * turn - 180.0
        part = whole.intersection(shapely.box(west, -90.0, west + 360.0, 90.0))
        parts.append(shapely.transform(part, lambda at, by=360.0 * turn: at - (by, 0.0)))
    return _union(parts)


def _union(shapes: Sequence[Any]) -> Any:
    import shapely

    return shapely.union_all(shapes)


def _rounded(shape: Any, decimals: int) -> Any:
    import shapely

    return shapely.set_precision(shape, 10.0**-decimals)


def _rings(polygon: Any) -> list[np.ndarray]:
    return [np.array(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
