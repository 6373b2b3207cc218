"""What TIFF tags say of the size of a pixel. Tag numbers: TIFF 6.0."""

from __future__ import annotations

import math
import re
from typing import Any

from tifffile import TiffPage

from saccade.pipeline.geotiff import GEO_KEYS
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.sources.tiff_geo import ground_size

UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}
PRINTING_DPI = (72.0, 96.0)
PLAUSIBLE_UM = (0.001, 1000.0)


def pixel_size(page: TiffPage) -> PixelSize | None:
    """Size of a pixel as georeference, scanner or resolution tags state it, in that order."""
    if GEO_KEYS in page.tags:
        return ground_size(page)
    return _aperio_size(page.description or "") or _resolution_size(page)


def _value(page: TiffPage, code: int) -> Any:
    return page.tags[code].value if code in page.tags else None


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
