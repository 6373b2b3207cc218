"""What a pass will cost, before anything has looked at the image. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saccade.pipeline.choosing import whole_tiles
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.selectors import (
    Budget,
    Dilate,
    Escalate,
    Scored,
    Selector,
    Threshold,
    TopFraction,
    TopK,
    Uncertainty,
    Union,
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a pass is expected to visit."""

    tiles: int
    """Tiles answered for, at most."""
    pixels: int
    """Input pixels through the model for so many tiles, halos included, where they lie together."""


def forecast(
    selector: Selector, layout: PassLayout, seconds_per_pixel: float | None = None
) -> Forecast:
    """What a pass is expected to visit of an image.

    Args:
        selector: which tiles it visits.
        layout: of the pass.
        seconds_per_pixel: of a tile, for a budget in seconds; None takes the budget as endless.
    """
    grid = layout.tiles
    tiles = most_tiles(selector, len(grid), layout.tile_px, seconds_per_pixel)
    height, width = layout.window_shape
    if not layout.window_tiles:
        return Forecast(tiles, height * width)
    everywhere_px = math.prod(_along(layout, n) for n in (grid.rows, grid.columns))
    return Forecast(tiles, math.ceil(everywhere_px * tiles / len(grid)))


def _along(layout: PassLayout, tiles: int) -> int:
    """Pixels along one axis that windows over all tiles compute; every shard begins a new one."""
    whole, rest = divmod(tiles, layout.shard_tiles)
    longest = layout.window_tiles
    px = 0
    for shards, length in ((whole, layout.shard_tiles), (1, rest)):
        windows = math.ceil(length / longest)
        px += shards * (length * layout.tile_px + windows * 2 * layout.halo_px)
    return px


def most_tiles(
    selector: Selector, count: int, tile_px: int, seconds_per_pixel: float | None = None
) -> int:
    """The most tiles, of so many, that a selector can choose."""
    pool = count
    if isinstance(selector, Scored | Uncertainty) and selector.within is not None:
        pool = most_tiles(selector.within, count, tile_px, seconds_per_pixel)
    match selector:
        case TopFraction() | Uncertainty():
            return whole_tiles(selector.fraction, pool)
        case TopK():
            return min(selector.k, pool)
        case Budget():
            return min(pool, _bought(selector, count, tile_px, seconds_per_pixel))
        case Threshold(most=float(most)):
            return whole_tiles(most, pool)
        case Escalate():
            either = (selector.of, selector.to)
            return max(most_tiles(one, count, tile_px, seconds_per_pixel) for one in either)
        case Union():
            parts = (most_tiles(one, count, tile_px, seconds_per_pixel) for one in selector.of)
            return min(count, sum(parts))
        case Dilate():
            inner = most_tiles(selector.of, count, tile_px, seconds_per_pixel)
            return min(count, inner * (2 * selector.tiles + 1) ** 2)
    return pool


def _bought(budget: Budget, count: int, tile_px: int, seconds_per_pixel: float | None) -> int:
    """Whole tiles for a budget; those cut off at the image's edges cost less and may be more."""
    if budget.share is not None:
        return whole_tiles(budget.share, count)
    pixels = budget.pixels
    if pixels is None and budget.seconds is not None and seconds_per_pixel:
        pixels = budget.seconds / seconds_per_pixel
    return count if pixels is None else math.ceil(pixels / tile_px**2)
