"""What GeoTIFF tags say of where an image lies. Tag and key numbers: OGC GeoTIFF 1.1 (19-008r4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tifffile import TiffPage

from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.geotiff import (
    ANGULAR_UNIT,
    GEO_KEYS,
    GEODETIC_CRS,
    GEOGRAPHIC,
    LINEAR_UNIT,
    MODEL_TYPE,
    PIXEL_IS_POINT,
    PIXEL_SCALE,
    PROJECTED_CRS,
    RASTER_TYPE,
    TIE_POINTS,
    TRANSFORMATION,
    UNKNOWN,
    USER_DEFINED,
)
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.sources.ground_size import geographic_size, projected_size, size_or_none

M_PER_LINEAR_UNIT = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
DEGREES_PER_ANGULAR_UNIT = {9101: 180 / math.pi, 9102: 1.0}
RPC_COEFFICIENTS = 50844


def georeference(page: TiffPage) -> Georeference | None:
    """Affine or control points, and the CRS where it has a number; None where nothing is stated."""
    keys = _geo_keys(page)
    affine = _affine(page, keys)
    points = () if affine is not None else _control_points(page, keys)
    if affine is None and not points:
        return None
    return Georeference(_crs(keys), affine, points)


def ground_size(page: TiffPage) -> PixelSize | None:
    """Metres per pixel; degrees and Web Mercator count at its middle latitude, feet as feet."""
    if GEO_KEYS not in page.tags:
        return None
    keys = _geo_keys(page)
    affine = _affine(page, keys)
    shape = int(page.imagelength), int(page.imagewidth)
    if _is_geographic(keys):
        degrees = DEGREES_PER_ANGULAR_UNIT.get(keys.get(ANGULAR_UNIT, 9102))
        if affine is None or degrees is None:
            return None
        return geographic_size(affine, shape, degrees)
    unit_m = M_PER_LINEAR_UNIT.get(keys.get(LINEAR_UNIT, 9001))
    if affine is not None and unit_m is not None:
        return projected_size(affine, shape, unit_m, _crs_number(keys))
    sides = _stated_sides(page)
    if unit_m is None or sides is None:
        return None
    return size_or_none(sides[0] * unit_m, sides[1] * unit_m)


def defines_own_crs(page: TiffPage) -> bool:
    """Whether its coordinates are of a system without a number, which its keys define."""
    return GEO_KEYS in page.tags and _crs_number(_geo_keys(page)) == USER_DEFINED


def has_only_rpcs(page: TiffPage) -> bool:
    """Whether its place is stated by rational polynomials over a terrain, and by nothing else."""
    return RPC_COEFFICIENTS in page.tags and georeference(page) is None


def _stated_sides(page: TiffPage) -> tuple[float, float] | None:
    """Of a file that says how large its pixels are, but not where they lie."""
    scale = _value(page, PIXEL_SCALE)
    if scale is None or len(scale) < 2:
        return None
    return abs(float(scale[1])), abs(float(scale[0]))


def _crs(keys: dict[int, int]) -> Crs | None:
    """By its number; None where the file defines its own, or none."""
    geographic, number = _is_geographic(keys), _crs_number(keys)
    if number in (UNKNOWN, USER_DEFINED):
        return None
    unit_m = M_PER_LINEAR_UNIT.get(keys.get(LINEAR_UNIT, 9001), 1.0)
    return Crs(number, None, geographic, 1.0 if geographic else unit_m)


def _is_geographic(keys: dict[int, int]) -> bool:
    if MODEL_TYPE in keys:
        return keys[MODEL_TYPE] == GEOGRAPHIC
    return GEODETIC_CRS in keys and PROJECTED_CRS not in keys


def _crs_number(keys: dict[int, int]) -> int:
    key = GEODETIC_CRS if _is_geographic(keys) else PROJECTED_CRS
    return keys.get(key, UNKNOWN)


def _affine(page: TiffPage, keys: dict[int, int]) -> Affine | None:
    """To the corners of pixels: where a file means centres, half a pixel is taken off."""
    numbers = _stated_affine(page)
    if numbers is None:
        return None
    try:
        affine = Affine(*numbers)
    except ValueError:
        return None
    point = keys.get(RASTER_TYPE) == PIXEL_IS_POINT
    return affine.moved(-0.5, -0.5) if point else affine


def _stated_affine(page: TiffPage) -> tuple[float, float, float, float, float, float] | None:
    matrix = _value(page, TRANSFORMATION)
    if matrix is not None and len(matrix) >= 8:
        m = [float(v) for v in matrix]
        return m[0], m[1], m[3], m[4], m[5], m[7]
    scale, tie = _value(page, PIXEL_SCALE), _value(page, TIE_POINTS)
    if scale is None or tie is None or len(scale) < 2 or len(tie) < 6:
        return None
    # GDAL writes south-up images as matrices, and takes a negative height for a positive one
    width, height = float(scale[0]), abs(float(scale[1]))
    column, row, _, x, y, _ = (float(v) for v in tie[:6])
    return width, 0.0, x - column * width, 0.0, -height, y + row * height


def _control_points(page: TiffPage, keys: dict[int, int]) -> tuple[ControlPoint, ...]:
    """Places that count from corners of pixels; half a pixel is added where they are centres."""
    stated = _value(page, TIE_POINTS)
    ties = [] if stated is None else [float(v) for v in stated]
    found = [ties[at : at + 6] for at in range(0, len(ties) - 5, 6)]
    half = 0.5 if keys.get(RASTER_TYPE) == PIXEL_IS_POINT else 0.0
    return tuple(
        ControlPoint(column + half, row + half, x, y, z) for column, row, _, x, y, z in found
    )


def _geo_keys(page: TiffPage) -> dict[int, int]:
    """Keys whose value stands in the directory itself."""
    directory: Sequence[int] = _value(page, GEO_KEYS) or ()
    entries = [tuple(directory[i : i + 4]) for i in range(4, len(directory) - 3, 4)]
    return {key: value for key, location, _, value in entries if location == 0}


def _value(page: TiffPage, code: int) -> Any:
    """Several numbers; None where the tag is not there."""
    value = page.tags[code].value if code in page.tags else None
    return (value,) if isinstance(value, int | float) else value
