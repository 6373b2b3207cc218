"""The image itself at a panel's size: any samples as colours, whatever can't be read left out.

Reads the coarsest level that is fine enough, block by block. Knows no result and no text.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Grid, Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane, locate

BLOCK_PX = 256
"""A thumbnail is read in blocks of this side, so that damage costs a block."""
PERCENTILES = (2.0, 98.0)
"""Samples that are not 8-bit colours are stretched between these."""


def thumbnail(plan: ImagePlan, shape: Shape) -> np.ndarray:
    """The image at a panel's size, as colours.

    Three 8-bit channels are shown as they are; anything else is stretched between percentiles, the
    first three channels of many, one channel as grey.

    Returns:
        ``(h, w, 4)`` uint8; the fourth is 0 where there is no data or it can't be read.

    Raises:
        SourceError: the image is not there any more, or can't be opened.
    """
    source = open_source(plan.uri)
    try:
        pixels, known = _coarse_pixels(source, shape)
    finally:
        source.close()
    colours = as_colours(pixels, known)
    alpha = known.astype(np.uint8)[..., None] * np.uint8(255)
    return _resized_colours(np.concatenate([colours, alpha], axis=2), shape)


def _coarse_pixels(source: Source, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at the panel's resolution or a little finer, and which of them are known."""
    full = source.levels[0].shape
    downsample = max(1.0, min(full[0] / shape[0], full[1] / shape[1]))
    plane = Plane(source, locate(source, downsample=downsample))
    pixels = np.zeros((*plane.shape, source.channels), source.dtype)
    known = np.zeros(plane.shape, bool)
    for block in Grid(plane.shape, BLOCK_PX):
        try:
            samples = plane.read_valid(block)
        except ReadError:
            continue  # stays unknown, and is drawn as such
        pixels[block.slices] = samples.pixels
        known[block.slices] = _has_data(samples)
    return pixels, known


def _has_data(samples: Samples) -> np.ndarray:
    """``(h, w)`` bool: some channel holds data, and a finite number."""
    finite = np.isfinite(samples.pixels)
    some: np.ndarray = (finite if samples.valid is None else finite & samples.valid).any(axis=2)
    return some


def as_colours(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``(h, w, C)`` samples of any type as ``(h, w, 3)`` uint8.

    Args:
        pixels: samples.
        known: ``(h, w)`` bool; the percentiles are of these.
    """
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.dtype == np.uint8 and pixels.shape[2] >= 3:
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
