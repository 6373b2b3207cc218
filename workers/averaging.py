"""Which averaged levels the passes of an image read, and where: no more than that is averaged.

Where the statistics of bands are asked for, they are those of the whole raster, and so is the level
that they are read from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from saccade.pipeline.geometry import Grid
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import any_in
from saccade.pipeline.recipe import Overviews, Recipe
from saccade.pipeline.sources.averaged import AveragedSource, Need, leaves_pixels_out
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.workers.areas import grown, tiles_in_area
from saccade.workers.measuring import is_measured
from saccade.workers.reading import context_spec


def as_passes_read(source: Source, overviews: Overviews, folder: Path) -> Source:
    """An image with the coarser levels that a recipe wants of it.

    Args:
        source: the image, open.
        overviews: as the recipe says.
        folder: where averaged levels are kept.
    """
    if overviews != "averaged" or not leaves_pixels_out(source):
        return source
    return AveragedSource(source, folder)


def expect_levels(
    source: AveragedSource, plan: ImagePlan, recipe: Recipe, base: Path
) -> tuple[Need, ...]:
    """Tell an image what its passes will read of it; the same for whoever opens it in a run.

    Args:
        source: the image.
        plan: how every pass lies over it, its area of interest named.
        recipe: with the image's overrides.
        base: what the recipe's paths are relative to.
    """
    met, measured = tiles_in_area(plan, recipe, base), is_measured(recipe, source)
    needs = needs_of(source, plan, met, measured=measured)
    source.expect(needs)
    return needs


def needs_of(
    source: AveragedSource,
    plan: ImagePlan,
    met: Sequence[np.ndarray] | None = None,
    *,
    measured: bool = False,
) -> tuple[Need, ...]:
    """What the passes of an image read of its averaged levels.

    Args:
        source: the image.
        plan: how every pass lies over it.
        met: tiles of every pass in the area of interest; None where there is none.
        measured: whether the statistics of its bands are read off the glance's plane.
    """
    found: dict[tuple[int, bool], Need] = {}
    for need in _all_needs(source, plan, met, measured):
        known = found.get(need.key, need)
        found[need.key] = Need(need.level, need.exact, _either(known.marked, need.marked))
    return tuple(
        Need(level, exact, None if need.marked is None or need.marked.all() else need.marked)
        for (level, exact), need in sorted(found.items())
    )


def _all_needs(
    source: AveragedSource, plan: ImagePlan, met: Sequence[np.ndarray] | None, measured: bool
) -> Iterator[Need]:
    for layout in plan.passes:
        exact = layout.scaled and source.dtype.kind in "iu"
        marked = None if met is None else _blocks_read(source.blocks, layout, met[layout.index])
        for level in _levels_read(source, layout):
            yield Need(level, exact, marked)
    if measured:
        glance = plan.passes[0]
        yield Need(glance.plane.level, glance.scaled and source.dtype.kind in "iu")


def _levels_read(source: Source, layout: PassLayout) -> set[int]:
    """Levels that a pass reads, its context views included; level 0 is there as it is."""
    plane = Plane(source, layout.plane)
    views = {context_spec(plane, factor).level for factor in layout.context}
    return ({layout.plane.level} | views) - {0}


def _blocks_read(blocks: Grid, layout: PassLayout, met: np.ndarray) -> np.ndarray | None:
    """Blocks of level 0 that windows over some tiles reach, and little more; None means all."""
    if layout.window_tiles == 0:
        return None if met.any() else np.zeros((blocks.rows, blocks.columns), bool)
    widest = max((1.0, *layout.context))
    wider_px = (widest - 1) * (layout.tile_px / 2 + layout.halo_px)
    margin_px = layout.halo_px + layout.multiple + wider_px
    # windows at the image's edges have moved inwards by up to one tile
    marked = grown(met, math.ceil(margin_px / layout.tile_px) + 1)
    tile_px = layout.tile_px * layout.plane.downsample
    rows, columns = (_under(blocks, axis, tile_px, marked.shape[axis]) for axis in (0, 1))
    return any_in(marked, rows, columns)


def _under(blocks: Grid, axis: int, tile_px: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, first and one past last tile that each block shares ground with."""
    starts = np.arange((blocks.rows, blocks.columns)[axis]) * blocks.tile_px
    stops = np.minimum(starts + blocks.tile_px, blocks.shape[axis])
    first = np.minimum((starts / tile_px).astype(np.int64), count - 1)
    return first, np.clip(np.ceil(stops / tile_px).astype(np.int64), first + 1, count)


def _either(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else one | other
