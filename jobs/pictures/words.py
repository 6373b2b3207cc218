"""The words and numbers of a picture: sizes, shares, lengths. Pure; the font has ASCII only."""

from __future__ import annotations

import math
from typing import Literal

from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.sources.base import PixelSize

Unit = Literal["um", "m"]

METRES = (("km", 1e3), ("m", 1.0), ("cm", 1e-2), ("mm", 1e-3))
MICROMETRES = (("cm", 1e4), ("mm", 1e3), ("um", 1.0), ("nm", 1e-3))


def length_text(length: float, unit: Unit) -> str:
    """A length, three digits of it, in the unit that suits it: '500 um', '2 mm', '17.8 km'."""
    steps = METRES if unit == "m" else MICROMETRES
    name, size = next((s for s in steps if length >= s[1] * (1 - 1e-9)), steps[-1])
    return f"{significant(length / size)} {name}"


def significant(number: float, digits: int = 3) -> str:
    """A number rounded to some digits, never with an exponent: '0.499', '12.5', '1,600'."""
    if number <= 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(number)))
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not longer than ``most``."""
    power = 10.0 ** math.floor(math.log10(most * (1 + 1e-9)))
    return max(n for n in (1, 2, 5) if n * power <= most * (1 + 1e-9)) * power


def pixel_text(size: PixelSize) -> str:
    """The size of a pixel: '0.499 um/px', '10 m/px'; micrometres stay micrometres."""
    mean = (size.y + size.x) / 2
    return f"{significant(mean)} um/px" if size.unit == "um" else f"{length_text(mean, 'm')}/px"


def resolution(plan: ImagePlan, layout: PassLayout) -> str:
    """How finely a pass looks: '8 um/px', '10 m/px'; '1/16' where no pixel size is known."""
    downsample = layout.plane.downsample
    size = layout.plane.pixel_size or plan.pixel_size_of(downsample)
    if size is not None:
        return pixel_text(size)
    return f"1/{significant(downsample)}" if downsample > 1 else "full size"


def size_text(plan: ImagePlan) -> str:
    """Width and height of the image: '16,384 x 8,192 px'."""
    height, width = plan.level_shapes[0]
    return f"{width:,} x {height:,} px"


def percent(share: float) -> str:
    """A share in percent; close to none or all with a digit, so that neither is overstated."""
    if 0 < share < 0.01:
        return f"{max(share * 100, 0.1):.1f} %"
    if 0.995 <= share < 1:
        return f"{min(share * 100, 99.9):.1f} %"
    return f"{share * 100:.0f} %"
