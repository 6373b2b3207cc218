"""What is known of an image's channels, and which of their samples hold data. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ALPHA = "alpha"

Palette = tuple[tuple[int, int, int, int], ...]
"""Red, green, blue and alpha, 0 to 255, of every index from 0 on."""


@dataclass(frozen=True, slots=True)
class Band:
    """One channel, as its file describes it."""

    name: str
    """Its description; invented where the file has none."""
    nodata: float | None = None
    """The sample value that means 'no data here'; NaN is a value."""
    scale: float = 1.0
    """A sample times this, plus ``offset``, is what was measured."""
    offset: float = 0.0
    """Added after ``scale``."""
    colour: str | None = None
    """'red', 'green', 'blue', 'grey', 'palette', 'alpha'..., where the file says what it shows."""
    unit: str | None = None
    """Of what was measured, where the file says."""


class Samples(NamedTuple):
    """Pixels of a box, and which of them hold data."""

    pixels: np.ndarray
    """``(h, w, C)``."""
    valid: np.ndarray | None
    """``(h, w, C)`` or ``(h, w, 1)`` bool; None where all of them do."""

    def where_any(self) -> np.ndarray | None:
        """``(h, w)`` bool: pixels of which some band holds data; None where all do."""
        if self.valid is None or self.valid.all():
            return None
        some = np.asarray(self.valid.any(axis=2))
        return None if some.all() else some

    def taking(self, channels: Sequence[int]) -> Samples:
        """Some of the channels, in this order."""
        which = list(channels)
        valid = self.valid
        if valid is not None and valid.shape[2] > 1:
            valid = valid[..., which]
        return Samples(np.ascontiguousarray(self.pixels[..., which]), valid)


def alpha_of(bands: Sequence[Band]) -> int | None:
    """Which band is the opacity of the others; None where the file calls none so."""
    return next((i for i, band in enumerate(bands) if band.colour == ALPHA), None)


def common_nodata(bands: Sequence[Band]) -> float | None:
    """The value that means 'no data' in every band but the alpha; None where they differ."""
    stated = {repr(band.nodata): band.nodata for band in bands if band.colour != ALPHA}
    return next(iter(stated.values())) if len(stated) == 1 else None


def fills_of(bands: Sequence[Band], dtype: np.dtype[Any]) -> np.ndarray:
    """``(C,)``: what a sample without data is set to: nodata where stated, else NaN or 0."""
    otherwise = math.nan if dtype.kind == "f" else 0
    return np.array([otherwise if b.nodata is None else b.nodata for b in bands], dtype)


def holding_data(pixels: np.ndarray, bands: Sequence[Band]) -> np.ndarray | None:
    """Which samples hold data, by their values: neither nodata nor NaN, nor wholly transparent.

    An alpha band holds data where some other band does.

    Args:
        pixels: ``(h, w, C)``.
        bands: of those channels.

    Returns:
        ``(h, w, C)`` bool, or None where all of them do.
    """
    alpha, nodata = alpha_of(bands), [band.nodata for band in bands]
    valid = _by_value(pixels, nodata)
    if alpha is None or len(bands) == 1:
        return valid
    if valid is None:
        opaque = pixels[..., alpha : alpha + 1] != 0
        return None if opaque.all() else np.repeat(opaque, len(bands), axis=2)
    valid &= pixels[..., alpha : alpha + 1] != 0
    valid[..., alpha] = np.delete(valid, alpha, axis=2).any(axis=2)
    return valid


def _by_value(pixels: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray | None:
    absent = np.isnan(pixels) if pixels.dtype.kind == "f" else None
    values = [None if v is None or math.isnan(v) else pixels.dtype.type(v) for v in nodata]
    if len(set(values)) == 1 and values[0] is not None:
        missing = pixels == values[0]
        absent = missing if absent is None else absent | missing
    elif any(value is not None for value in values):
        absent = np.zeros(pixels.shape, bool) if absent is None else absent
        for channel, value in enumerate(values):
            if value is not None:
                absent[..., channel] |= pixels[..., channel] == value
    return ~absent if absent is not None and absent.any() else None


def both(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Samples that hold data by two accounts; None stands for all of them."""
    if one is None or other is None:
        return other if one is None else one
    agreed: np.ndarray = one & other
    return agreed
