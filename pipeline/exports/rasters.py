"""Scores or labels of a result as planes that a pyramid is made of, read box by box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN
from saccade.pipeline.palette import Colour
from saccade.pipeline.resampling import halve_mean, halve_mode
from saccade.pipeline.scores import dequantise

NODATA = LABEL_UNKNOWN
"""Of labels in files that have one value for it; no class has this label."""
NO_ANSWER = (LABEL_NODATA, LABEL_UNKNOWN)
"""Labels that name no class."""
Halve = Callable[[np.ndarray], np.ndarray]
"""``(h, w)`` -> ``(ceil(h / 2), ceil(w / 2))``."""


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """Planes of one size and type."""

    shape: Shape
    """Height and width."""
    dtype: np.dtype[np.generic]
    """Of the values."""
    channels: tuple[str, ...]
    """A name per plane."""
    colours: tuple[Colour, ...]
    """Red, green, blue per plane."""
    read: Callable[[int, Box], np.ndarray]
    """``(h, w)`` of one plane."""
    halve: Halve
    """Makes the next level of a pyramid."""

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.colours) > 0:
            raise ValueError(f"a name and a colour per plane, one at least; found {self.channels}")


def scores_raster(labelling: Labelling) -> Raster:
    """A plane per class: uint8 probabilities times 255, or float32; each level the mean."""
    result = labelling.result
    index = [result.classes.index(name) for name in labelling.classes]
    stored = np.dtype(result.plan.scores)
    dtype = stored if stored == np.uint8 else np.dtype(np.float32)

    def read(channel: int, box: Box) -> np.ndarray:
        found = result.region_channel(index[channel], _in_result(labelling, box))
        return np.asarray(found, dtype)

    colours = tuple(labelling.colours.values())
    return Raster(labelling.window.shape, dtype, labelling.classes, colours, read, _mean)


def labels_raster(labelling: Labelling) -> Raster:
    """One plane of labels, 254 or 255 where no class counts; each level the commonest label."""
    shape, grey = labelling.window.shape, (255, 255, 255)

    def read(_: int, box: Box) -> np.ndarray:
        return labelling.labels(_in_result(labelling, box))

    return Raster(shape, np.dtype(np.uint8), ("labels",), (grey,), read, _mode)


def _in_result(labelling: Labelling, box: Box) -> Box:
    """A box of a raster, which begins where the window does, in the result."""
    return box.shift(labelling.window.y0, labelling.window.x0)


def answers_raster(labelling: Labelling) -> Raster:
    """One plane of labels, ``NODATA`` wherever a pixel is of no class that counts."""
    raster = labels_raster(labelling)
    table = np.arange(256, dtype=np.uint8)
    table[list(NO_ANSWER)] = NODATA
    return replace(raster, read=lambda channel, box: table[raster.read(channel, box)])


def probabilities_raster(labelling: Labelling) -> Raster:
    """A plane per class: float32 in [0, 1], NaN where no pass answered; each level the mean."""
    stored = scores_raster(labelling)

    def read(channel: int, box: Box) -> np.ndarray:
        known = _known(labelling, _in_result(labelling, box))
        if not known.any():
            return np.full(box.shape, np.nan, np.float32)
        return np.where(known, dequantise(stored.read(channel, box)), np.float32(np.nan))

    return replace(stored, dtype=np.dtype(np.float32), read=read)


def _known(labelling: Labelling, box: Box) -> np.ndarray:
    """``(h, w)`` bool: pixels of the result that a pass answered, and that are not cut off."""
    inside = np.ones(box.shape, bool) if labelling.cut is None else labelling.cut.inside(box)
    if not inside.any():
        return inside
    known: np.ndarray = inside & ~np.isin(labelling.result.region_labels(box), NO_ANSWER)
    return known


def _mean(plane: np.ndarray) -> np.ndarray:
    halved: np.ndarray = halve_mean(plane[None])[0]
    return halved


def _mode(plane: np.ndarray) -> np.ndarray:
    return halve_mode(plane, LABEL_NODATA)
