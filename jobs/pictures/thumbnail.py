"""The image itself at a panel's size: any samples as colours, whatever can't be read left out.

Reads the coarsest level that is fine enough, block by block. Knows no result and no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box, Grid, Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane, locate

BLOCK_PX = 256
"""A thumbnail is read in blocks of this side, so that damage costs a block."""
PERCENTILES = (2.0, 98.0)
"""Samples that are not 8-bit colours are stretched between these."""
COLOURS = ("red", "green", "blue")
"""Names of channels that are shown as what they are called."""


def thumbnail(plan: ImagePlan, shape: Shape) -> np.ndarray:
    """The image at a panel's size, as colours.

    Three 8-bit channels of an image that lies nowhere on the ground are shown as they are; anything
    else is stretched between percentiles of what has data. Of many channels those that are called
    red, green and blue are shown, else the first three; of fewer than three the first, as grey. An
    index into a palette is shown in its colours.

    Returns:
        ``(h, w, 4)`` uint8; the fourth is 0 where there is no data or it can't be read.

    Raises:
        SourceError: the image is not there any more, or can't be opened.
    """
    source = open_source(plan.uri)
    try:
        palette = source.palette
        pixels, known = _coarse_pixels(source, shape, nearest=palette is not None)
        chosen = shown_channels(source.channel_names)
    finally:
        source.close()
    if palette is not None:
        colours = in_palette(pixels[..., 0], palette)
    else:
        colours = as_colours(pixels[..., chosen], known, as_is=plan.georeference is None)
    alpha = known.astype(np.uint8)[..., None] * np.uint8(255)
    return _resized_colours(np.concatenate([colours, alpha], axis=2), shape)


def _coarse_pixels(
    source: Source, shape: Shape, *, nearest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at the panel's resolution or a little finer, and which of them are known.

    ``nearest`` takes every so many pixels of a level: indices must not be averaged.
    """
    full = source.levels[0].shape
    downsample = max(1.0, min(full[0] / shape[0], full[1] / shape[1]))
    plane = Plane(source, locate(source, downsample=downsample))
    pixels = np.zeros((*plane.shape, source.channels), source.dtype)
    known = np.zeros(plane.shape, bool)
    for block in Grid(plane.shape, BLOCK_PX):
        try:
            samples = _nearest(plane, block) if nearest else plane.read_valid(block)
        except ReadError:
            continue  # stays unknown, and is drawn as such
        pixels[block.slices] = samples.pixels
        known[block.slices] = _has_data(samples)
    return pixels, known


def _nearest(plane: Plane, block: Box) -> Samples:
    """The pixels of the level below the centres of a block's."""
    level = plane.source.levels[plane.spec.level].shape
    rows, columns = (
        np.minimum(((np.arange(start, stop) + 0.5) * plane.spec.factor).astype(np.int64), most - 1)
        for start, stop, most in (
            (block.y0, block.y1, level[0]),
            (block.x0, block.x1, level[1]),
        )
    )
    box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    pixels, valid = plane.source.read_valid(plane.spec.level, box)
    chosen = np.ix_(rows - rows[0], columns - columns[0])
    return Samples(pixels[chosen], None if valid is None else valid[chosen])


def _has_data(samples: Samples) -> np.ndarray:
    """``(h, w)`` bool: some channel holds data, and a finite number."""
    finite = np.isfinite(samples.pixels)
    some: np.ndarray = (finite if samples.valid is None else finite & samples.valid).any(axis=2)
    return some


def shown_channels(names: Sequence[str]) -> list[int]:
    """Which channels are shown as red, green and blue, or as grey."""
    lower = [name.lower() for name in names]
    if set(COLOURS) <= set(lower):
        return [lower.index(colour) for colour in COLOURS]
    return list(range(min(3, len(names)))) if len(names) >= 3 else [0]


def in_palette(indices: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """``(h, w)`` indices as ``(h, w, 3)`` uint8; beyond the palette's end black."""
    table = np.zeros((max(len(palette), int(indices.max(initial=0)) + 1), 3), np.uint8)
    table[: len(palette)] = [colour[:3] for colour in palette]
    coloured: np.ndarray = table[indices.astype(np.int64)]
    return coloured


def as_colours(pixels: np.ndarray, known: np.ndarray, *, as_is: bool = True) -> np.ndarray:
    """``(h, w, C)`` samples of any type as ``(h, w, 3)`` uint8.

    Args:
        pixels: samples.
        known: ``(h, w)`` bool; the percentiles are of these.
        as_is: whether three 8-bit channels are colours already.
    """
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if as_is and pixels.dtype == np.uint8 and pixels.shape[2] >= 3:
        return shown
    values = np.nan_to_num(shown.astype(np.float32), posinf=0, neginf=0)
    stretched = np.zeros(values.shape, np.uint8)
    for channel in range(3 if known.any() else 0):
        low, high = np.percentile(values[..., channel][known], PERCENTILES)
        scaled = (values[..., channel] - low) / max(float(high - low), 1e-12)
        stretched[..., channel] = np.rint(np.clip(scaled, 0, 1) * 255)
    return stretched


def _resized_colours(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    larger = shape[0] > 4 * pixels.shape[0]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1], how))
