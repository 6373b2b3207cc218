"""What TIFF tags say of an image besides its pixels: size of a pixel, nodata, names of channels.

Tag numbers: TIFF 6.0; GDAL's private tags 42112 and 42113.
"""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffPage

from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.sources.reader import colour_names, distinct
from saccade.pipeline.sources.tiff_geo import GEO_KEYS, ground_size

GDAL_METADATA, GDAL_NODATA = 42112, 42113
UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}
PRINTING_DPI = (72.0, 96.0)
PLAUSIBLE_UM = (0.001, 1000.0)


def pixel_size(page: TiffPage) -> PixelSize | None:
    """Size of a pixel as georeference, scanner or resolution tags state it, in that order."""
    if GEO_KEYS in page.tags:
        return ground_size(page)
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
