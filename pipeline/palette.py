"""One colour per class, in everything that shows a result: pictures, reports, exports, metadata.

Pure. A colour follows from the class's place among a result's classes alone, so that a class looks
the same wherever a run shows it. Knows no passes, no scores and no ground.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN
from saccade.pipeline.signals import BACKGROUND

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
CLEAR: Colour = (0, 0, 0)
"""Of what is not shown."""
QUIET: Colour = (128, 128, 128)
"""Of the background, and of what a single class is not."""
SAFE = 8
"""So many of ``COLOURS``, the first ones, people with a colour vision deficiency tell apart."""
ALONE: Colour = (190, 18, 92)
"""Of a result that shows a single class: a crimson that neither tissue nor land has."""
COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    ALONE,
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (120, 0, 0),
    (0, 255, 225),
    (0, 0, 165),
    (0, 0, 255),
    (75, 15, 75),
    (90, 135, 255),
    (90, 210, 150),
    (0, 225, 255),
    (150, 45, 0),
    (60, 75, 150),
    (45, 105, 120),
    (120, 30, 75),
    (15, 105, 240),
    (210, 15, 195),
    (90, 240, 150),
    (90, 0, 120),
)
"""The seven colours of M. Okabe and K. Ito ("Color universal design", 2002; their black left out),
and the crimson; quiet ones first, as a first class often covers most. Then whatever is furthest
from all before it, among what a screen can show: by the smallest of the distances in Oklab
(B. Ottosson, 2020) to full colour vision, and to protanopia and deuteranopia as simulated by
G. Machado, M. Oliveira and L. Fernandes (IEEE TVCG 15, 2009); greys and pale colours were avoided.
"""
GOLDEN_ANGLE = (3 - math.sqrt(5)) / 2
"""Share of a full turn that keeps any number of hues apart."""
VALUES = (1.0, 0.65)
"""Brightness, in turn, of the hues of classes beyond ``COLOURS``."""


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """The colour of every class, the background's among them.

    The same names in the same order give the same colours, and more classes behind several change
    none.
    """
    names = [name for name in classes if name != BACKGROUND]
    if len(names) == 1:
        return {name: QUIET if name == BACKGROUND else ALONE for name in classes}
    shown = {name: _colour(index) for index, name in enumerate(names)}
    return {name: shown.get(name, QUIET) for name in classes}


def label_legend(classes: Sequence[str]) -> dict[int, tuple[str, Colour, int]]:
    """Name, colour and opacity of every label that can occur."""
    colours = class_colours(classes)
    if len(classes) == 1:
        named = [("not " + classes[0], QUIET, 0), (classes[0], colours[classes[0]], 255)]
    else:
        named = [(n, colours[n], 0 if n == BACKGROUND else 255) for n in classes]
    reserved = {LABEL_NODATA: ("no data", CLEAR, 0), LABEL_UNKNOWN: ("not answered", CLEAR, 0)}
    return {**dict(enumerate(named)), **reserved}


def _colour(index: int) -> Colour:
    """Of the class at a place; hues beyond the table differ, though not to everybody."""
    if index < len(COLOURS):
        return COLOURS[index]
    value = VALUES[index % len(VALUES)]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_ANGLE % 1.0, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
