"""Where on an image to measure: a few windows with structure, found by looking at many cheaply.

A model's error is small on empty ground whatever it computes in, so places are judged by how much
their samples vary. Runs no model; the same image gives the same places.
"""

from __future__ import annotations

import math
from itertools import islice

import numpy as np

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box, round_up
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Window, window_over
from saccade.pipeline.sources.plane import Plane
from saccade.workers.reading import read_window

SAMPLES = 2
"""Places of the image that every setting answers for."""
PLACES = 1024
"""Places looked at, to find those with the most structure."""
TRIES = 16
"""Places tried, where those with the most structure can't be read."""
LOOK_PX = 64
"""Side of what is looked at of a place, in pixels of the coarsest level."""
LOOK_TOTAL_PX = 64_000_000
"""Pixels of the file's own tiles decoded while looking."""
WHOLE_SAMPLE_PX = 512
"""Side of a sample of a pass that goes through the model at once."""


def find_samples(plane: Plane, layout: PassLayout, side_px: int) -> list[Box]:
    """The places to measure at, those with the most structure first.

    Args:
        plane: the image at the pass's resolution.
        layout: of the pass.
        side_px: of a place; 0 leaves it open, for a pass that goes through the model at once.

    Returns:
        At most ``SAMPLES`` rectangles of tiles (rows, columns); none where none of those looked at
        can be read.
    """
    side = max(1, (side_px or WHOLE_SAMPLE_PX) // layout.tile_px)
    scored = [
        (-score, index, cells)
        for index, cells in enumerate(_places(plane, layout, side))
        if (score := _structure(plane, layout, cells)) is not None
    ]
    ranked = (cells for *_, cells in sorted(scored, key=lambda one: one[:2])[:TRIES])
    whole = (c for c in ranked if not read_window(plane, layout, window_at(layout, c)).lost)
    return list(islice(whole, SAMPLES))


def _places(plane: Plane, layout: PassLayout, side: int) -> list[Box]:
    """Squares of tiles all over the pass, so many that looking at them stays cheap."""
    grid = layout.tiles
    level = plane.source.levels[-1]
    tile = level.tile or (LOOK_PX, LOOK_PX)
    most = max(SAMPLES, min(PLACES, LOOK_TOTAL_PX // (tile[0] * tile[1])))
    count = max(1, grid.rows // side) * max(1, grid.columns // side)
    step = side * math.ceil(math.sqrt(count / most))
    rows = range(0, max(1, grid.rows - side + 1), step)
    columns = range(0, max(1, grid.columns - side + 1), step)
    whole = Box(0, 0, grid.rows, grid.columns)
    return [Box(y, x, y + side, x + side).intersect(whole) for y in rows for x in columns]


def _structure(plane: Plane, layout: PassLayout, cells: Box) -> float | None:
    """Standard deviation of a place's middle on the coarsest level; None if it can't be read."""
    source = plane.source
    level = source.levels[-1]
    ratio = layout.plane.downsample / level.downsample
    core = layout.tiles.span(cells)
    box = _middle(core, ratio, level.shape)
    try:
        pixels = source.read(len(source.levels) - 1, box)
    except ReadError:
        return None
    values = np.nan_to_num(pixels.reshape(-1, pixels.shape[-1]).astype(np.float32))
    return float(values.std(axis=0).mean())


def _middle(core: Box, ratio: float, shape: tuple[int, int]) -> Box:
    def span(start: int, stop: int, limit: int) -> tuple[int, int]:
        low, high = int(start * ratio), max(int(start * ratio) + 1, int(stop * ratio))
        cut = max(0, (high - low - LOOK_PX) // 2)
        low = min(low + cut, limit - 1)
        return low, max(low + 1, min(high - cut, limit))

    y0, y1 = span(core.y0, core.y1, shape[0])
    x0, x1 = span(core.x0, core.x1, shape[1])
    return Box(y0, x0, y1, x1)


def window_at(layout: PassLayout, cells: Box) -> Window:
    """The window of a layout at the first tile of a place, cut off at the place's own end.

    Of a pass that goes through the model at once it is a part, without halo.
    """
    if layout.window_tiles == 0:
        core = layout.tiles.span(cells)
        sides = round_up(core.y1, layout.multiple), round_up(core.x1, layout.multiple)
        return Window(core, Box(core.y0, core.x0, *sides))
    longest = layout.window_tiles
    first = Box(cells.y0, cells.x0, cells.y0 + longest, cells.x0 + longest)
    return window_over(layout, first.intersect(cells))
