"""Where passes after the glance may look: an image laid over another one, as a mask of tiles.

The mask may have any size; it covers the whole of the image it lies over. A tile may be visited
where any sample of the mask's first channel under it is neither 0 nor 'no data'.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.errors import SourceError
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import Spans, any_in
from saccade.pipeline.sources.base import Source

MAX_SAMPLES = 1 << 24
"""Samples of the mask that are held at a time, at most, but for a single row of tiles' width."""
SHAPE_TOLERANCE = 0.02
"""The mask's proportions may differ by this share: thumbnails are rounded."""


def tiles_allowed(mask: Source, layout: PassLayout) -> np.ndarray:
    """``(tile rows, tile columns)`` bool: tiles of a pass that the mask lets be visited.

    Raises:
        SourceError: the mask has other proportions than the image, or can't be read.
    """
    shape = mask.levels[0].shape
    _check_proportions(mask, layout)
    grid = layout.tiles
    rows = _spans(grid.rows, layout.tile_px, layout.plane.shape[0], shape[0])
    columns = _spans(grid.columns, layout.tile_px, layout.plane.shape[1], shape[1])
    allowed = np.zeros((grid.rows, grid.columns), bool)
    for index, (top, bottom) in enumerate(zip(*rows, strict=True)):
        marked = _marked_columns(mask, int(top), int(bottom))
        whole = (np.array([0]), np.array([1]))
        allowed[index] = any_in(marked[np.newaxis], whole, columns)[0]
    return allowed


def _check_proportions(mask: Source, layout: PassLayout) -> None:
    (height, width), (over_height, over_width) = mask.levels[0].shape, layout.plane.shape
    # a pixel more or less along either side explains itself by rounding
    slack = SHAPE_TOLERANCE + 1 / min(height, width) + 1 / min(over_height, over_width)
    if abs(height * over_width / (width * over_height) - 1) > slack:
        raise SourceError(
            f"{mask.uri}: a mask covers the whole image, so it has its proportions "
            f"({over_width} x {over_height}); found {width} x {height}"
        )


def _spans(count: int, tile_px: int, length_px: int, samples: int) -> Spans:
    """First and one past last sample of the mask under each tile, along one axis; never empty."""
    starts = np.arange(count) * tile_px
    stops = np.minimum(starts + tile_px, length_px)
    first = np.minimum(starts * samples // length_px, samples - 1)
    return first, np.clip(-(-stops * samples // length_px), first + 1, samples)


def _marked_columns(mask: Source, top: int, bottom: int) -> np.ndarray:
    """``(width,)`` bool: columns of some rows of the mask that hold a mark."""
    width = mask.levels[0].shape[1]
    step = max(1, MAX_SAMPLES // (width * mask.channels))
    marked = np.zeros(width, bool)
    for start in range(top, bottom, step):
        box = Box(start, 0, min(start + step, bottom), width)
        samples, valid = mask.read_valid(0, box, [0])
        seen = samples != 0 if valid is None else (samples != 0) & valid
        marked |= seen[..., 0].any(axis=0)
    return marked
