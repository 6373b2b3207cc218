"""What a coarser grid says under runs of pixels of level 0. Pure; knows no class and no score."""

from __future__ import annotations

import numpy as np

from saccade.pipeline.regions import Runs


def highest_under(runs: Runs, values: np.ndarray, downsample: float, top: int = 0) -> np.ndarray:
    """The highest value of a coarser grid under each run.

    A pixel lies under the pixel of the grid that holds its centre; beyond the grid's last row or
    column it lies under that.

    Args:
        runs: in pixels of level 0, all of them over the rows of ``values``.
        values: ``(h, w)``, whole rows of the grid.
        downsample: pixels of level 0 per pixel of the grid.
        top: row of the grid that ``values`` begins with.

    Returns:
        ``(n,)`` of the dtype of ``values``.
    """
    height, width = values.shape
    row = np.clip(grid_pixel(runs.row, downsample) - top, 0, height - 1)
    first = np.minimum(grid_pixel(runs.start, downsample), width - 1)
    last = np.minimum(grid_pixel(runs.stop - 1, downsample), width - 1)
    if not len(runs):
        return np.empty(0, values.dtype)
    # every other span of reduceat is the way from one run to the next; one value more ends the last
    flat = np.append(values.ravel(), values.dtype.type(0))
    ends = np.stack([row * width + first, row * width + last + 1], axis=1)
    highest: np.ndarray = np.maximum.reduceat(flat, ends.ravel())[::2]
    return highest


def grid_pixel(position: np.ndarray, downsample: float) -> np.ndarray:
    """The pixel of a coarser grid that holds the centre of each pixel of level 0."""
    return np.floor((position + 0.5) / downsample).astype(np.int64)
