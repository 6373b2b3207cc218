"""The colours of a picture: one heat map, one colour per pass, two hatches. Pure.

Knows arrays of colours; no image, no run, no text. Colours of classes are `pipeline.palette`'s.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from saccade.pipeline.palette import Colour

INK: Colour = (28, 32, 40)
GREY: Colour = (104, 111, 124)
FAINT: Colour = (222, 225, 231)
PAPER: Colour = (255, 255, 255)
NO_DATA: Colour = (228, 230, 235)
FAILED: Colour = (205, 32, 44)
GLANCE: Colour = (146, 158, 176)
MIDDLE: tuple[Colour, ...] = ((40, 110, 215), (14, 148, 136), (124, 84, 200), (80, 150, 60))
LAST: Colour = (236, 96, 12)


def pass_colours(count: int) -> tuple[Colour, ...]:
    """A colour per pass: a quiet one for the glance, the loudest for the last."""
    if count == 1:
        return (LAST,)
    return (GLANCE, *(MIDDLE[i % len(MIDDLE)] for i in range(count - 2)), LAST)


@functools.cache
def heat_table() -> np.ndarray:
    """256 colours for values from 0 to 1, ``(256, 3)`` uint8, read-only.

    A path through Oklab (B. Ottosson, "A perceptual color space for image processing", 2020) from a
    dark violet over red to a pale yellow, cut into steps of equal length: equal differences in
    value look equally large, and lightness alone (a grey print) keeps their order.
    """
    t = np.linspace(0, 1, 4096)
    lightness = 0.17 + 0.79 * t
    chroma = 0.055 + 0.125 * np.sin(np.pi * t**0.9)
    hue = np.deg2rad(285 + 175 * t)
    path = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    walked = np.insert(np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)), 0, 0)
    equal = np.linspace(0, walked[-1], 256)
    table = _srgb(np.stack([np.interp(equal, walked, axis) for axis in path.T], axis=1))
    table.flags.writeable = False
    return table


def _srgb(oklab: np.ndarray) -> np.ndarray:
    """``(n, 3)`` Oklab as uint8 sRGB; colours that a screen lacks are cut off."""
    to_cones = [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
    to_light = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    light = np.clip((oklab @ np.transpose(to_cones)) ** 3 @ np.transpose(to_light), 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    srgb: np.ndarray = np.rint(encoded * 255).astype(np.uint8)
    return srgb


def heat(values: np.ndarray) -> np.ndarray:
    """``(h, w)`` in [0, 1] as ``(h, w, 3)`` uint8; NaN as no data."""
    known = ~np.isnan(values)
    steps = np.clip(np.where(known, values, 0) * 255, 0, 255)
    coloured = heat_table()[np.rint(steps).astype(np.uint8)]
    return np.where(known[..., None], coloured, np.array(NO_DATA, np.uint8))


def mix(pixels: np.ndarray, colour: Colour | np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """``(h, w, 3)`` float32 pixels with so much of a colour laid over: alpha 1 is the colour alone.

    Args:
        pixels: ``(h, w, 3)``, 0 to 255.
        colour: one colour, or ``(h, w, 3)`` of them.
        alpha: in [0, 1], one number or ``(h, w)``.
    """
    weight = np.asarray(alpha, np.float32)
    weight = weight[..., None] if weight.ndim == 2 else weight
    mixed: np.ndarray = pixels + (np.asarray(colour, np.float32) - pixels) * weight
    return mixed


def dimmed(pixels: np.ndarray) -> np.ndarray:
    """``(h, w, 3)`` uint8 as a pale grey ground for colours, float32; its darks stay visible."""
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = 96 + grey * (159 / 255)
    return np.repeat(pale[..., None], 3, axis=2)


def stripes(shape: tuple[int, int], pitch_px: int) -> np.ndarray:
    """``(h, w)`` bool: diagonal lines, a third of the pitch wide."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    lines: np.ndarray = (rows + columns) % pitch_px < math.ceil(pitch_px / 3)
    return lines
