"""The fused result of any region, from the scores of the passes that there are.

Finest answer where there is one, the upsampled coarser one elsewhere, as the plan's fuser has it.
The engine writes with this what a reader of an unfinished result sees through it, so the two can't
differ. A pixel's value does not depend on the region it is asked for in. Knows no file format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from saccade.pipeline.coverage import StatusPart, cells_below, coverage_of, was_answered
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
from saccade.pipeline.uniform import uniform

BLOCK_PX = 512
"""Regions are composed in blocks of this side: small enough for the processor's cache."""
MIXED_BLOCK_PX = 256
"""Blocks that the last pass answered in part are cut down to this side."""


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

    def answers_all(self, block: Box) -> bool:
        """Whether every pixel of a block lies in a tile that was answered."""
        return bool(self._part(block).all())

    def answers_none(self, block: Box) -> bool:
        """Whether no pixel of a block does."""
        return not self._part(block).any()

    def where(self, block: Box) -> np.ndarray:
        """``(h, w)`` bool: pixels of the result whose centre lies in a tile that was answered."""
        part = self._part(block)
        if part.all() or not part.any():
            return uniform(part[:1, :1], block.shape)
        rows = self._tiles_at(block.y0, block.y1, axis=0) - self.tiles.y0
        columns = self._tiles_at(block.x0, block.x1, axis=1) - self.tiles.x0
        where: np.ndarray = self.answered[np.ix_(rows, columns)]
        return where

    def _part(self, block: Box) -> np.ndarray:
        """What became of the tiles that a block touches."""
        y0, y1 = (self._tile_at(y, axis=0) for y in (block.y0, block.y1 - 1))
        x0, x1 = (self._tile_at(x, axis=1) for x in (block.x0, block.x1 - 1))
        touched = Box(y0, x0, y1 + 1, x1 + 1).shift(-self.tiles.y0, -self.tiles.x0)
        return self.answered[touched.slices]

    def _tile_at(self, position: int, axis: int) -> int:
        centre = math.floor((position + 0.5) / self.ratio)
        inside = min(centre, self.layout.score_shape[axis] - 1)
        return inside * self.layout.stride // self.layout.tile_px

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

    def is_flat(self, block: Box, classes: tuple[str, ...]) -> bool:
        """Whether all pixels of a block have the same answer in these classes, or none has any."""
        if self.answers_none(block):
            return True
        need = self._need(block)
        if not (self.answers_all(block) and self._known(need).all()):
            return False
        shared = [i for i, name in enumerate(self.layout.classes) if name in classes]
        planes = (self.stored[(i, *need.relative_to(self.place).slices)] for i in shared)
        return all(bool((plane == plane[:1, :1]).all()) for plane in planes)


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
    if _is_flat(plan, answers, region):
        values, labels = _compose_pixel(plan, answers, region)
        return FusedRegion(uniform(values, region.shape), uniform(labels, region.shape))
    settled = _settled(plan, answers[-1], region)
    shape = (len(plan.classes), *region.shape)
    fused = np.zeros(shape, plan.scores) if settled is None else settled
    labelled = np.empty(region.shape, np.uint8)
    for block in _blocks(answers[-1], region):
        inside = block.relative_to(region).slices
        values, labelled[inside] = _compose_block(plan, answers, block)
        # Zeros are there already, in memory that costs nothing until it is written to; -0 is not.
        if settled is None and (values.dtype.kind == "f" or values.any()):
            fused[(slice(None), *inside)] = values
    return FusedRegion(fused, labelled)


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
    answered = was_answered(status.values)
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
    return _Answer(plan.last, 1.0, True, region, scores, cells, was_answered(status))


def _status(store: Reads, layout: PassLayout, cells: Box) -> StatusPart:
    return StatusPart(cells, store.read(pass_path(layout.name, "status"), cells))


def _blocks(last: _Answer, region: Box) -> Iterator[Box]:
    """A region in blocks, smaller where the last pass answered a part of one."""
    for part in _tiled(region, BLOCK_PX):
        alike = last.answers_all(part) or last.answers_none(part)
        yield from (part,) if alike else _tiled(part, MIXED_BLOCK_PX)


def _tiled(region: Box, side_px: int) -> Iterator[Box]:
    return (block.shift(region.y0, region.x0) for block in Grid(region.shape, side_px))


def _is_flat(plan: ImagePlan, answers: list[_Answer], block: Box) -> bool:
    return all(answer.is_flat(block, plan.classes) for answer in answers)


def _compose_block(
    plan: ImagePlan, answers: list[_Answer], block: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Scores as stored, and labels; a block that is the same all over costs one pixel."""
    settled = _settled(plan, answers[-1], block)
    if settled is not None:
        return settled, label(settled, plan.label_threshold)
    if block.area > 1 and _is_flat(plan, answers, block):
        return _compose_pixel(plan, answers, block)
    fused = _fuse(plan, answers, block)
    stored = quantise(fused, plan.scores)
    labels = label(stored, plan.label_threshold)
    labels[np.isnan(fused).any(axis=0)] = LABEL_UNKNOWN
    return stored, labels


def _compose_pixel(
    plan: ImagePlan, answers: list[_Answer], block: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a flat block, by its first pixel."""
    return _compose_block(plan, answers, replace(block, y1=block.y0 + 1, x1=block.x0 + 1))


def _settled(plan: ImagePlan, last: _Answer, block: Box) -> np.ndarray | None:
    """The last pass's scores as stored, where nothing else can matter; None where it can."""
    alone = plan.fuse == "finest" and last.layout.classes == plan.classes
    # Only of uint8 is it known without looking that every score was computed.
    if not (alone and last.stored.dtype == np.uint8 and last.answers_all(block)):
        return None
    return last.stored[(slice(None), *block.relative_to(last.place).slices)]


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
        if not answer.answers_none(block):
            scores = answer.scores(block, plan.classes)
            heard.insert(0, (scores, answer.where(block)))
            whole = answer.answers_all(block) and not np.isnan(scores).any()
            if plan.fuse == "finest" and whole:
                break
    return heard
