"""The area of interest of an image: the tiles that each pass may visit at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from saccade.pipeline.area import Edges, tiles_met
from saccade.pipeline.area_files import area_digest, area_place, read_area
from saccade.pipeline.errors import SourceError, UsageError
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import any_in, spans
from saccade.pipeline.recipe import Recipe


def area_of(recipe: Recipe, base: Path) -> str | None:
    """Digest of the area that a recipe names; None where it names none.

    Raises:
        SourceError: the file can't be read.
    """
    if recipe.area is None:
        return None
    try:
        return recipe.area.digest or area_digest(area_place(base, recipe.area.file))
    except UsageError as error:
        raise SourceError(str(error)) from error


def tiles_in_area(plan: ImagePlan, recipe: Recipe, base: Path) -> list[np.ndarray] | None:
    """Of each pass, ``(tile rows, tile columns)`` bool: tiles that it may visit; None means all.

    Those are the tiles that the area meets. A pass also visits the ground of whatever tile a later
    pass may visit, and as far around it as that one is told of its answers: so that what is said
    of the area is what is said without one.

    Raises:
        SourceError: the file can't be read or understood, is not the one that the image was
            prepared with, or the image does not say where it lies.
    """
    edges = _edges(plan, recipe, base)
    if edges is None:
        return None
    met = [_met(edges, one) for one in plan.passes]
    for before, after in reversed(list(pairwise(plan.passes))):
        met[before.index] |= ground_needed(before, after, met[after.index])
    return met


def glance_in_area(plan: ImagePlan, recipe: Recipe, base: Path) -> np.ndarray | None:
    """``(tile rows, tile columns)`` bool: tiles of the glance that the area meets; None means all.

    Raises:
        SourceError: as ``tiles_in_area``.
    """
    edges = _edges(plan, recipe, base)
    return None if edges is None else _met(edges, plan.passes[0])


def _met(edges: Edges, layout: PassLayout) -> np.ndarray:
    return tiles_met(edges, layout.tiles, layout.plane.downsample)


def _edges(plan: ImagePlan, recipe: Recipe, base: Path) -> Edges | None:
    """Of the area, in pixels of level 0; None where there is none."""
    if recipe.area is None or plan.area is None:
        return None
    try:
        area = read_area(area_place(base, recipe.area.file), plan.area)
        return area.over(plan.georeference, plan.uri)
    except UsageError as error:
        raise SourceError(str(error)) from error


def ground_needed(before: PassLayout, after: PassLayout, marked: np.ndarray) -> np.ndarray:
    """Tiles of a pass that a later one builds on where it visits marked tiles."""
    told = after.guidance or after.takes is not None
    if told:
        ratio = before.score_downsample / after.plane.downsample
        marked = grown(marked, math.ceil((after.halo_px + ratio) / after.tile_px))
    return any_in(marked, spans(after, before, axis=0), spans(after, before, axis=1))


def grown(marked: np.ndarray, tiles: int) -> np.ndarray:
    """Marks, ``(tile rows, tile columns)`` bool, and all within so many tiles of one."""
    rows, columns = (np.arange(side) for side in marked.shape)
    around = [
        (np.maximum(at - tiles, 0), np.minimum(at + tiles + 1, side))
        for at, side in zip((rows, columns), marked.shape, strict=True)
    ]
    return any_in(marked, around[0], around[1])


def shards_in_area(plan: ImagePlan, met: Sequence[np.ndarray]) -> np.ndarray:
    """``(tile rows, tile columns)`` bool of the last pass: tiles on ground that any pass visits."""
    found = met[-1].copy()
    for layout in plan.passes[:-1]:
        found |= any_in(
            met[layout.index], spans(layout, plan.last, axis=0), spans(layout, plan.last, axis=1)
        )
    return found
