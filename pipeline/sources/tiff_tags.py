"""What TIFF tags say of an image besides its pixels: size of a pixel, nodata, names of channels.

Tag and key numbers: TIFF 6.0; OGC GeoTIFF 1.1 (19-008r4); GDAL's private tags 42112 and 42113.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffPage

from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.sources.reader import colour_names, distinct

MODEL_PIXEL_SCALE, MODEL_TIEPOINT, MODEL_TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
GDAL_METADATA, GDAL_NODATA = 42112, 42113
KEY_MODEL_TYPE, KEY_ANGULAR_UNIT, KEY_LINEAR_UNIT = 1024, 2054, 3076
GEOGRAPHIC = 2
M_PER_LINEAR_UNIT = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
DEGREES_PER_ANGULAR_UNIT = {9101: 180 / math.pi, 9102: 1.0}
M_PER_DEGREE = 111320.0
UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}
PRINTING_DPI = (72.0, 96.0)
PLAUSIBLE_UM = (0.001, 1000.0)


def pixel_size(page: TiffPage) -> PixelSize | None:
    """Size of a pixel as georeference, scanner or resolution tags state it, in that order."""
    if GEO_KEYS in page.tags:
        return _ground_size(page)
    return _aperio_size(page.description or "") or _resolution_size(page)


def nodata(page: TiffPage, dtype: np.dtype[Any]) -> float | None:
    """The sample value that GDAL's tag declares, where a sample of this type can have it."""
    if (text := _value(page, GDAL_NODATA)) is None:
        return None
    try:
        value = float(str(text).strip("\x00 "))
    except ValueError:
        return None
    if dtype.kind == "f":
        return value if math.isnan(value) or abs(value) <= np.finfo(dtype).max else None
    limits = np.iinfo(dtype)
    return value if value.is_integer() and limits.min <= value <= limits.max else None


def channel_names(page: TiffPage, channels: int) -> tuple[str, ...]:
    """Names from GDAL's band descriptions, else colours where the file says that it is RGB."""
    described = _band_descriptions(str(_value(page, GDAL_METADATA) or ""))
    if len(described) == channels:
        return distinct(described, channels)
    return colour_names(channels) if page.photometric in (2, 6) else distinct((), channels)


def overview_resampling(page: TiffPage) -> str | None:
    """How the overviews were made, as GDAL's metadata names it in capitals; None where unsaid."""
    text = str(_value(page, GDAL_METADATA) or "")
    found = re.search(r'name="(?:OVR_RESAMPLING_ALG|OVERVIEW_RESAMPLING)"[^>]*>\s*(\w+)', text)
    return found[1].upper() if found else None


def _value(page: TiffPage, code: int) -> Any:
    return page.tags[code].value if code in page.tags else None


def _band_descriptions(xml: str) -> list[str]:
    try:
        items = ElementTree.fromstring(xml.strip("\x00 \n")).iterfind("Item")
    except ElementTree.ParseError:
        return []
    described = {
        int(item.get("sample", "0")): item.text or ""
        for item in items
        if item.get("role") == "description"
    }
    return [described[sample] for sample in sorted(described)]


def _ground_size(page: TiffPage) -> PixelSize | None:
    """Metres per pixel; degrees count at the raster's middle latitude, feet as feet.

    The unit is the projection's own: Web Mercator's metres are true at the equator only.
    """
    size = _model_size(page)
    keys = _geo_keys(page)
    if size is None:
        return None
    if keys.get(KEY_MODEL_TYPE) != GEOGRAPHIC:
        factor = M_PER_LINEAR_UNIT.get(keys.get(KEY_LINEAR_UNIT, 9001))
        return None if factor is None else _size_or_none(size[0] * factor, size[1] * factor, "m")
    degrees = DEGREES_PER_ANGULAR_UNIT.get(keys.get(KEY_ANGULAR_UNIT, 9102), math.nan)
    latitude = math.radians(_middle_northing(page, size[0]) * degrees)
    y, x = (side * degrees * M_PER_DEGREE for side in size)
    return _size_or_none(y, x * math.cos(latitude), "m")


def _model_size(page: TiffPage) -> tuple[float, float] | None:
    """Height and width of a pixel in the model's unit."""
    if (scale := _value(page, MODEL_PIXEL_SCALE)) is not None:
        return abs(float(scale[1])), abs(float(scale[0]))
    if (matrix := _value(page, MODEL_TRANSFORMATION)) is not None:
        m = [float(v) for v in matrix]
        return math.hypot(m[1], m[5]), math.hypot(m[0], m[4])
    return None


def _middle_northing(page: TiffPage, height: float) -> float:
    row = float(page.imagelength) / 2
    if (matrix := _value(page, MODEL_TRANSFORMATION)) is not None:
        m, column = [float(v) for v in matrix], float(page.imagewidth) / 2
        return m[4] * column + m[5] * row + m[7]
    tie = _value(page, MODEL_TIEPOINT)
    return math.nan if tie is None else float(tie[4]) - (row - float(tie[1])) * height


def _geo_keys(page: TiffPage) -> dict[int, int]:
    """Keys whose value stands in the directory itself."""
    directory: Sequence[int] = _value(page, GEO_KEYS)
    entries = [tuple(directory[i : i + 4]) for i in range(4, len(directory) - 3, 4)]
    return {key: value for key, location, _, value in entries if location == 0}


def _aperio_size(description: str) -> PixelSize | None:
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", description)
    if not description.startswith("Aperio") or found is None:
        return None
    return _size_or_none(float(found[1]), float(found[1]), "um")


def _resolution_size(page: TiffPage) -> PixelSize | None:
    """Micrometres from pixels per inch or centimetre; printing defaults and 1/1 say nothing."""
    unit = _value(page, 296)
    unit_um = UM_PER_RESOLUTION_UNIT.get(2 if unit is None else int(unit))
    ratios = [_value(page, code) for code in (283, 282)]
    if unit_um is None or any(r is None or min(r) <= 0 for r in ratios):
        return None
    per_unit = [numerator / denominator for numerator, denominator in ratios]
    sides = [unit_um / count for count in per_unit]
    if any(_printing(side) or count <= 1 for side, count in zip(sides, per_unit, strict=True)):
        return None
    plausible = all(PLAUSIBLE_UM[0] <= side <= PLAUSIBLE_UM[1] for side in sides)
    return PixelSize(sides[0], sides[1], "um") if plausible else None


def _printing(side_um: float) -> bool:
    return any(math.isclose(25400 / side_um, dpi, rel_tol=0.005) for dpi in PRINTING_DPI)


def _size_or_none(y: float, x: float, unit: str) -> PixelSize | None:
    return PixelSize(y, x, "m" if unit == "m" else "um") if y > 1e-9 and x > 1e-9 else None
