"""The fused result of any region, from the scores of the passes that there are.

Finest answer where there is one, the upsampled coarser one elsewhere, as the plan's fuser has it.
The engine writes with this what a reader of an unfinished result sees through it, so the two can't
differ. A pixel's value does not depend on the region it is asked for in. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from saccade.pipeline.coverage import ANSWERED, StatusPart, cells_below, coverage_of
from saccade.pipeline.fusion import (
    coarse_box_for,
    dequantise,
    fuse,
    label,
    map_classes,
    quantise,
    upsample,
)
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.store_layout import pass_path

BLOCK_PX = 512
"""Regions are composed in blocks of this side: small enough for the processor's cache."""


class Reads(Protocol):
    """What composing needs of a store."""

    def read(self, array: str, box: Box) -> np.ndarray:
        """A box of an array; fill where nothing was written."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FusedRegion:
    """One region of the fused result."""

    scores: np.ndarray
    """``(C, h, w)`` of the plan's classes, as stored."""
    labels: np.ndarray
    """``(h, w)`` uint8; 255 where nobody answered."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What one pass knows of a region."""

    layout: PassLayout
    ratio: float
    """Scores of the result per score of this pass, along each axis."""
    aligned: bool
    """Whether this pass's scores are the result's own pixels."""
    place: Box
    """The scores held, in the frame of all scores of this pass."""
    stored: np.ndarray
    """``(C_p, h, w)`` as stored."""
    tiles: Box
    """Rows and columns of the tiles under them."""
    answered: np.ndarray
    """``(rows, columns)`` bool, per tile."""

    def where(self, block: Box) -> np.ndarray:
        """``(h, w)`` bool: pixels of the result whose centre lies in a tile that was answered."""
        rows = self._tiles_at(block.y0, block.y1, axis=0) - self.tiles.y0
        columns = self._tiles_at(block.x0, block.x1, axis=1) - self.tiles.x0
        part = self.answered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if part.all() or not part.any():
            return np.broadcast_to(part[0, 0], block.shape)
        where: np.ndarray = self.answered[np.ix_(rows, columns)]
        return where

    def _tiles_at(self, start: int, stop: int, axis: int) -> np.ndarray:
        centres = np.floor((np.arange(start, stop) + 0.5) / self.ratio).astype(np.int64)
        inside = np.minimum(centres, self.layout.score_shape[axis] - 1)
        tiles: np.ndarray = inside * self.layout.stride // self.layout.tile_px
        return tiles

    def scores(self, block: Box, classes: tuple[str, ...]) -> np.ndarray:
        """``(C, h, w)`` float32 at the result's resolution; NaN where nobody near answered."""
        need = self._need(block)
        scores = dequantise(self.stored[(slice(None), *need.relative_to(self.place).slices)])
        scores = map_classes(scores, self.layout.classes, classes)
        if self.aligned:
            return scores
        known = self._known(need)
        if not known.all():
            # What was never answered must not be mixed into its neighbours as if it were 0.
            scores = np.where(known, scores, np.float32(np.nan))
        corner = need.y0, need.x0
        return upsample(scores, corner, self.ratio, block, self.layout.score_shape)

    def _need(self, block: Box) -> Box:
        if self.aligned:
            return block
        return coarse_box_for(block, self.ratio, self.layout.score_shape)

    def _known(self, need: Box) -> np.ndarray:
        step, side = self.layout.stride, self.layout.tile_px
        rows = np.arange(need.y0, need.y1) * step // side - self.tiles.y0
        columns = np.arange(need.x0, need.x1) * step // side - self.tiles.x0
        known: np.ndarray = self.answered[np.ix_(rows, columns)]
        return known

    def is_flat(self, block: Box) -> bool:
        """Whether all pixels of a block have the same answer, or none has any."""
        where = self.where(block)
        if not where.any():
            return True
        need = self._need(block)
        if not (where.all() and self._known(need).all()):
            return False
        part = self.stored[(slice(None), *need.relative_to(self.place).slices)]
        return bool((part == part[:, :1, :1]).all())


def compose_region(
    store: Reads,
    plan: ImagePlan,
    region: Box,
    scores: np.ndarray | None = None,
    status: np.ndarray | None = None,
) -> FusedRegion:
    """Fuse what the passes know of a region.

    Args:
        store: holds the scores and status of every pass, and may lack those of the last.
        plan: of the image.
        region: a box of the fused result, not empty.
        scores: ``(classes, h, w)`` of the last pass in the region, as stored; read where None.
        status: of the last pass's tiles ``plan.coverage_box(region)``; read where None.

    Raises:
        StoreError: the store can't be read, or does not have what is needed.
    """
    answers = [_answer(store, plan, layout, region) for layout in plan.passes[:-1]]
    answers.append(_last_answer(store, plan, region, scores, status))
    shape = (len(plan.classes), *region.shape)
    fused = FusedRegion(np.empty(shape, plan.scores), np.empty(region.shape, np.uint8))
    for block in _blocks(region):
        inside = block.relative_to(region).slices
        values, labels = _compose_block(plan, answers, block)
        fused.scores[(slice(None), *inside)] = values
        fused.labels[inside] = labels
    return fused


def region_coverage(
    store: Reads, plan: ImagePlan, region: Box, status: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and status of the tiles in a region, reading no more than the tiles it touches.

    Args:
        store: holds the status of every pass.
        plan: of the image.
        region: a box of the fused result.
        status: of the last pass's tiles ``plan.coverage_box(region)``; read where None.

    Returns:
        See ``coverage.compose_coverage``.
    """
    cells = plan.coverage_box(region)
    parts = [_status(store, p, cells_below(plan, p, cells)) for p in plan.passes[:-1]]
    last = _status(store, plan.last, cells) if status is None else StatusPart(cells, status)
    return coverage_of(plan, [*parts, last], cells)


def _answer(store: Reads, plan: ImagePlan, layout: PassLayout, region: Box) -> _Answer:
    ratio = layout.score_downsample / plan.last.score_downsample
    aligned = ratio == 1 and layout.score_shape == plan.shape
    place = region if aligned else coarse_box_for(region, ratio, layout.score_shape)
    status = _status(store, layout, layout.tiles.cells_touching(place.scale(layout.stride)))
    stored = store.read(pass_path(layout.name, "scores"), place)
    answered = np.isin(status.values, ANSWERED)
    return _Answer(layout, ratio, aligned, place, stored, status.cells, answered)


def _last_answer(
    store: Reads,
    plan: ImagePlan,
    region: Box,
    scores: np.ndarray | None,
    status: np.ndarray | None,
) -> _Answer:
    cells = plan.coverage_box(region)
    if status is None:
        status = _status(store, plan.last, cells).values
    if scores is None:
        scores = store.read(pass_path(plan.last.name, "scores"), region)
    return _Answer(plan.last, 1.0, True, region, scores, cells, np.isin(status, ANSWERED))


def _status(store: Reads, layout: PassLayout, cells: Box) -> StatusPart:
    return StatusPart(cells, store.read(pass_path(layout.name, "status"), cells))


def _blocks(region: Box) -> Iterator[Box]:
    return (block.shift(region.y0, region.x0) for block in Grid(region.shape, BLOCK_PX))


def _compose_block(
    plan: ImagePlan, answers: list[_Answer], block: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Scores as stored, and labels; a block that is the same all over costs one pixel."""
    if block.area > 1 and all(answer.is_flat(block) for answer in answers):
        block = replace(block, y1=block.y0 + 1, x1=block.x0 + 1)
    fused = _fuse(plan, answers, block)
    stored = quantise(fused, plan.scores)
    labels = label(stored, plan.label_threshold)
    labels[np.isnan(fused).any(axis=0)] = LABEL_UNKNOWN
    return stored, labels


def _fuse(plan: ImagePlan, answers: list[_Answer], block: Box) -> np.ndarray:
    """From the coarsest pass to the finest; NaN where nobody answered."""
    fused = np.full((len(plan.classes), *block.shape), np.nan, np.float32)
    for scores, where in _heard(plan, answers, block):
        fused = fuse(plan.fuse, fused, scores, where)
    return fused


def _heard(
    plan: ImagePlan, answers: list[_Answer], block: Box
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The answers that matter for a block, coarsest first."""
    heard: list[tuple[np.ndarray, np.ndarray]] = []
    for answer in reversed(answers):
        where = answer.where(block)
        if where.any():
            scores = answer.scores(block, plan.classes)
            heard.insert(0, (scores, where))
            if plan.fuse == "finest" and where.all() and not np.isnan(scores).any():
                break
    return heard
