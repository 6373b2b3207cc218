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

from saccade.pipeline.coverage import StatusPart, cells_below, coverage_of
from saccade.pipeline.fusion import coarse_box_for, fuse, label, quantise
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.pass_answer import PassAnswer
from saccade.pipeline.store_layout import NODATA, pass_path
from saccade.pipeline.uniform import uniform

BLOCK_PX = 512
"""Regions are composed in blocks of this side: small enough for the processor's cache."""
MIXED_BLOCK_PX = 256
"""Blocks that the last pass answered in part are cut down to this side."""


@dataclass(frozen=True, slots=True, eq=False)
class LastAnswer:
    """What the last pass said of a region; what is None is read from the store."""

    scores: np.ndarray | None = None
    """``(classes, h, w)``, as stored."""
    status: np.ndarray | None = None
    """Of its tiles ``plan.coverage_box(region)``."""
    nodata: np.ndarray | None = None
    """``(h, w)`` uint8, 1 where a score has no valid pixel below it."""


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
    """``(h, w)`` uint8; 254 where the image has no data, 255 where nobody answered."""


def compose_region(
    store: Reads,
    plan: ImagePlan,
    region: Box,
    said: LastAnswer | None = None,
) -> FusedRegion:
    """Fuse what the passes know of a region.

    Args:
        store: holds what every pass said, and may lack what the last one did.
        plan: of the image.
        region: a box of the fused result, not empty.
        said: what the last pass said of it; read where None.

    Raises:
        StoreError: the store can't be read, or does not have what is needed.
    """
    answers = [_answer(store, plan, layout, region) for layout in plan.passes[:-1]]
    answers.append(_last_answer(store, plan, region, said or LastAnswer()))
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


def _answer(store: Reads, plan: ImagePlan, layout: PassLayout, region: Box) -> PassAnswer:
    place, ratio, aligned = place_below(plan, layout, region)
    status = _status(store, layout, layout.tiles.cells_touching(place.scale(layout.stride)))
    stored = store.read(pass_path(layout.name, "scores"), place)
    holes = _nodata(store, layout, place) if layout.holes else None
    return PassAnswer.of(layout, ratio, aligned, place, stored, status, holes)


def place_below(plan: ImagePlan, layout: PassLayout, region: Box) -> tuple[Box, float, bool]:
    """The scores of a pass that matter for a region of the result.

    Returns:
        Where they lie; scores of the result per such score; whether they are the result's pixels.
    """
    ratio = layout.score_downsample / plan.last.score_downsample
    aligned = ratio == 1 and layout.score_shape == plan.shape
    place = region if aligned else coarse_box_for(region, ratio, layout.score_shape)
    return place, ratio, aligned


def _nodata(store: Reads, layout: PassLayout, place: Box) -> np.ndarray:
    return store.read(pass_path(layout.name, NODATA), place)


def _last_answer(store: Reads, plan: ImagePlan, region: Box, said: LastAnswer) -> PassAnswer:
    cells, last = plan.coverage_box(region), plan.last
    scores, nodata = said.scores, said.nodata
    status = _status(store, last, cells) if said.status is None else StatusPart(cells, said.status)
    if scores is None:
        scores = store.read(pass_path(last.name, "scores"), region)
    if nodata is None and last.holes:
        nodata = _nodata(store, last, region)
    return PassAnswer.of(last, 1.0, True, region, scores, status, nodata)


def _status(store: Reads, layout: PassLayout, cells: Box) -> StatusPart:
    return StatusPart(cells, store.read(pass_path(layout.name, "status"), cells))


def _blocks(last: PassAnswer, region: Box) -> Iterator[Box]:
    """A region in blocks, smaller where the last pass answered a part of one."""
    for part in _tiled(region, BLOCK_PX):
        alike = last.answers_all(part) or last.answers_none(part)
        yield from (part,) if alike else _tiled(part, MIXED_BLOCK_PX)


def _tiled(region: Box, side_px: int) -> Iterator[Box]:
    return (block.shift(region.y0, region.x0) for block in Grid(region.shape, side_px))


def _is_flat(plan: ImagePlan, answers: list[PassAnswer], block: Box) -> bool:
    return all(answer.is_flat(block, plan.classes) for answer in answers)


def _compose_block(
    plan: ImagePlan, answers: list[PassAnswer], block: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Scores as stored, and labels; a block that is the same all over costs one pixel."""
    settled, lacking = _settled(plan, answers[-1], block), _lacking(answers, block)
    if settled is not None:
        stored, labels = settled, label(settled, plan.label_threshold)
    elif block.area > 1 and _is_flat(plan, answers, block):
        return _compose_pixel(plan, answers, block)
    else:
        fused = _fuse(plan, answers, block)
        if lacking is not None:
            fused[:, lacking] = np.nan
        stored = quantise(fused, plan.scores)
        labels = label(stored, plan.label_threshold)
        labels[np.isnan(fused).any(axis=0)] = LABEL_UNKNOWN
    if lacking is not None:
        labels[lacking] = LABEL_NODATA
    return stored, labels


def _lacking(answers: list[PassAnswer], block: Box) -> np.ndarray | None:
    """``(h, w)`` bool: pixels without data, as the finest pass that looked there has it."""
    lacking: np.ndarray | None = None
    for answer in answers:
        here = answer.lacking(block)
        if lacking is not None:
            lacking = np.where(answer.looked(block), False if here is None else here, lacking)
        else:
            lacking = here
    return lacking


def _compose_pixel(
    plan: ImagePlan, answers: list[PassAnswer], block: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a flat block, by its first pixel."""
    return _compose_block(plan, answers, replace(block, y1=block.y0 + 1, x1=block.x0 + 1))


def _settled(plan: ImagePlan, last: PassAnswer, block: Box) -> np.ndarray | None:
    """The last pass's scores as stored, where nothing else can matter; None where it can."""
    alone = plan.fuse == "finest" and last.layout.classes == plan.classes
    # Only of uint8 is it known without looking that every score was computed.
    if not (alone and last.stored.dtype == np.uint8 and last.answers_all(block)):
        return None
    return last.stored[(slice(None), *block.relative_to(last.place).slices)]


def _fuse(plan: ImagePlan, answers: list[PassAnswer], block: Box) -> np.ndarray:
    """From the coarsest pass to the finest; NaN where nobody answered."""
    fused = np.full((len(plan.classes), *block.shape), np.nan, np.float32)
    for scores, where in _heard(plan, answers, block):
        fused = fuse(plan.fuse, fused, scores, where)
    return fused


def _heard(
    plan: ImagePlan, answers: list[PassAnswer], block: Box
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
