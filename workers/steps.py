"""The units that are not sweeps: prepare, select, finalise. One image each, no device needed.

*prepare* opens the image, freezes how every pass lies over it, creates the arrays and plans the
glance. *select* reads what a pass found and freezes the plan of the next. *finalise* builds the
rest of the pyramid and writes the metadata that makes the result complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saccade.pipeline.answers import read_answers
from saccade.pipeline.coverage import tile_counts, was_answered
from saccade.pipeline.errors import TooManyBadTiles
from saccade.pipeline.exits import ExitRecord, Leaving, left_before
from saccade.pipeline.features import KEY
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import (
    STATUS_FAILED,
    STATUS_NONE,
    ImagePlan,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import tiles_touching
from saccade.pipeline.plan import Unit, plan_sweep
from saccade.pipeline.pyramid import complete_pyramid
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.saliency import needed_columns, score_tiles
from saccade.pipeline.selection import Selection, select
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import pass_path
from saccade.workers.areas import shards_in_area
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.leaving import leaving_after, left_earlier, own_signals


def write_plan(
    folder: RunFolder,
    plan: ImagePlan,
    index: int,
    chosen: np.ndarray,
    selection: Selection | None,
    exits: ExitRecord | None = None,
    met: Sequence[np.ndarray] | None = None,
) -> tuple[Unit, ...]:
    """Freeze the units of one pass; ``met`` are the tiles of every pass in the area of interest."""
    layout = plan.passes[index]
    last = index == plan.last.index
    within = shards_in_area(plan, met) if last and met is not None else None
    units = plan_sweep(plan.name, layout, chosen, everywhere=last, within=within)
    tree = {
        "units": [unit.to_dict() for unit in units],
        "selection": None if selection is None else selection.to_dict(),
        "exits": None if exits is None else exits.to_dict(),
    }
    write_whole(folder.pass_plan(plan.name, layout), json.dumps(tree, separators=(",", ":")))
    return units


def freeze_image(
    folder: RunFolder,
    plan: ImagePlan,
    provenance: Mapping[str, Any],
    met: Sequence[np.ndarray] | None = None,
    *,
    fsync: bool = False,
) -> dict[str, Any]:
    """Write the image's plan, create its arrays, plan the glance; returns what the receipt says.

    ``met`` are the tiles of every pass in the area of interest; None where there is none.
    """
    write_whole(folder.image_plan(plan.name), plan.to_json())
    ImageStore.create(folder.result(plan.name), plan, provenance, fsync=fsync)
    glance = plan.passes[0]
    chosen = np.ones(grid_shape(glance), bool) if met is None else met[0]
    if not glance.window_tiles:
        chosen = np.full_like(chosen, chosen.any())  # its one window answers for all tiles
    units = write_plan(folder, plan, 0, chosen, None, met=met)
    selected = int(chosen.sum())
    return {"plans": plan.passes[0].name, "units": len(units), "tiles": {"selected": selected}}


def select_next(
    folder: RunFolder,
    plan: ImagePlan,
    recipe: Recipe,
    index: int,
    seconds_per_pixel: float | None,
    allowed: np.ndarray | None = None,
    met: Sequence[np.ndarray] | None = None,
) -> dict[str, Any]:
    """Choose the tiles of pass ``index`` from what the pass before it found; freeze its plan.

    ``allowed`` are the tiles that a mask lets be visited, ``(tile rows, tile columns)`` bool;
    ``met`` are those of every pass in the area of interest.
    """
    store = ImageStore.open(folder.result(plan.name))
    previous, following = plan.passes[index - 1], plan.passes[index]
    status = read_status(store, previous)
    refuse_bad_image(store, plan, previous, recipe.max_bad_tiles)
    gone = left_earlier(folder, plan, previous)
    left = _leaving(store, plan, recipe, previous, was_answered(status) & ~gone)
    gone = gone if left is None else gone | left.left
    exits = ExitRecord(left_before(previous, following, gone), left)
    closed = exits.left if allowed is None else exits.left | ~allowed
    inside = np.ones(closed.shape, bool) if met is None else met[index]
    closed = closed | ~inside
    selection = _select(store, recipe, plan, following, status, gone, closed, seconds_per_pixel)
    grid = following.tiles
    chosen = np.zeros(len(grid), bool)
    chosen[list(selection.tiles)] = True
    mask = chosen.reshape(grid.rows, grid.columns)
    units = write_plan(folder, plan, index, mask, selection, exits, met)
    return {
        "plans": following.name,
        "units": len(units),
        "tiles": {"selected": int(chosen.sum()), "of": int(inside.sum())},
        "thresholds": selection.thresholds,
    } | ({} if left is None else {"exits": left.to_dict()})


def _leaving(
    store: ImageStore, plan: ImagePlan, recipe: Recipe, layout: PassLayout, asked: np.ndarray
) -> Leaving | None:
    rule = recipe.passes[layout.index].exit
    return None if rule is None else leaving_after(store, plan, layout, rule, asked)


def _select(
    store: ImageStore,
    recipe: Recipe,
    plan: ImagePlan,
    following: PassLayout,
    status: np.ndarray,
    gone: np.ndarray,
    closed: np.ndarray,
    seconds_per_pixel: float | None,
) -> Selection:
    """Choose among the tiles that are not closed, on ground that was answered and has not gone."""
    previous = plan.passes[following.index - 1]
    selector = recipe.passes[following.index].select
    candidates = tiles_touching(previous, following, was_answered(status) & ~gone) & ~closed
    table = score_tiles(
        needed_columns(selector),
        grid=following.tiles,
        ratio=previous.score_downsample / following.plane.downsample,
        coarse_shape=previous.score_shape,
        read_strip=lambda box: read_answers(store, previous, box),
        classes=previous.classes,
        own=own_signals(store, plan, previous),
        known=candidates,
    )
    return select(
        selector,
        table,
        grid=following.tiles,
        cost_px=following.tiles.areas().ravel(),
        candidates=candidates.ravel(),
        forced=tiles_touching(previous, following, status == STATUS_FAILED).ravel(),
        left=closed.ravel(),
        seconds_per_pixel=seconds_per_pixel,
    )


def read_status(store: ImageStore, layout: PassLayout) -> np.ndarray:
    """``(tile rows, tile columns)``: what became of each tile of a pass."""
    return store.read(pass_path(layout.name, "status"), Box(0, 0, *grid_shape(layout)))


def grid_shape(layout: PassLayout) -> tuple[int, int]:
    """Rows and columns of a pass's tiles."""
    return layout.tiles.rows, layout.tiles.columns


def refuse_bad_image(
    store: ImageStore, plan: ImagePlan, layout: PassLayout, max_bad_tiles: float
) -> None:
    """Fail an image of which too much can't be read.

    Tiles that a pass visits because the one before it could not read their ground don't count
    again: a pass that visits little else would fail for damage that was found bearable.

    Raises:
        TooManyBadTiles: more of the tiles that the pass visited failed than the recipe allows.
    """
    status = read_status(store, layout)
    counted = (status != STATUS_NONE) & ~_known_bad(store, plan, layout)
    visited = int(counted.sum())
    failed = int((counted & (status == STATUS_FAILED)).sum())
    if failed > max_bad_tiles * visited:
        raise TooManyBadTiles(
            f"{plan.uri}: {failed} of {visited} tiles of pass {layout.name!r} could not be read; "
            f"the recipe allows {max_bad_tiles:.0%} (max_bad_tiles); check the file, or allow more"
        )


def _known_bad(store: ImageStore, plan: ImagePlan, layout: PassLayout) -> np.ndarray:
    """Tiles of a pass on ground that the pass before it could not read."""
    if layout.index == 0:
        return np.zeros(grid_shape(layout), bool)
    before = plan.passes[layout.index - 1]
    return tiles_touching(before, layout, read_status(store, before) == STATUS_FAILED)


def finalise(
    folder: RunFolder,
    plan: ImagePlan,
    recipe: Recipe,
    timing: Mapping[str, Any],
    *,
    fsync: bool = False,
) -> dict[str, Any]:
    """Complete the pyramid, write the metadata that says so, drop what is not kept.

    Dropping comes last: had it come first, a worker that died between the two would leave nothing
    to count the tiles by.
    """
    store = ImageStore.open(folder.result(plan.name), fsync=fsync)
    if not store.complete:
        passes = _count_passes(store, plan, recipe.max_bad_tiles)
        complete_pyramid(store, plan)
        store.finish({"passes": passes, "timing": dict(timing)})
    _drop_what_is_not_kept(store, plan, recipe)
    shutil.rmtree(folder.cache(plan.name), ignore_errors=True)  # another pass makes it again
    return {"passes": store.facts["passes"]}


def _drop_what_is_not_kept(store: ImageStore, plan: ImagePlan, recipe: Recipe) -> None:
    for layout in plan.passes:
        if layout.name not in plan.keep and len(plan.passes) > 1:
            store.drop(pass_path(layout.name))
        elif layout.gives is not None and not recipe.output.keep_features:
            store.drop(pass_path(layout.name, KEY))


def _count_passes(
    store: ImageStore, plan: ImagePlan, max_bad_tiles: float
) -> dict[str, dict[str, int]]:
    passes = {}
    for layout in plan.passes:
        refuse_bad_image(store, plan, layout, max_bad_tiles)
        passes[layout.name] = tile_counts(read_status(store, layout))
    return passes
