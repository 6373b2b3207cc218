"""What a run found, each layer as an array of a panel's size: saliency, answers, tiles.

Reads no more than a picture can show: coarse levels, in strips of bounded size, of an unfinished
result as of a finished one. Knows no colour and no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np
from PIL import Image

from saccade.pipeline.coverage import was_answered
from saccade.pipeline.fusion import dequantise, map_classes
from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.result import PassResult, Result
from saccade.pipeline.result_arrays import stored_array
from saccade.pipeline.signals import BACKGROUND, signal_map
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import scores_path

STRIP_NBYTES = 64 << 20
"""Scores are read in strips of about this size, as float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The strongest answer at every pixel of a panel."""

    score: np.ndarray
    """``(h, w)`` float32 in [0, 1]; NaN where nobody has answered."""
    winner: np.ndarray
    """``(h, w)`` int64: index of that class in the plan's classes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Scores somewhere in a result, and how they lie over the image."""

    array: da.Array
    """``(C, h, w)``, lazy, as stored."""
    classes: tuple[str, ...]
    """Of the first axis."""
    downsample: float
    """Pixels of the image's level 0 per score, along each axis."""

    def strips(self, shape: Shape) -> Iterator[np.ndarray]:
        """All scores from top to bottom, as float32 block means not much finer than a panel."""
        count, height, width = self.array.shape
        factor = self.factor(shape)
        step = factor * max(1, STRIP_NBYTES // (4 * count * width * factor))
        for top in range(0, height, step):
            yield block_mean(dequantise(self.array[:, top : top + step].compute()), factor)

    def factor(self, shape: Shape) -> int:
        """By how much the scores are finer than a panel, in whole steps."""
        _, height, width = self.array.shape
        return max(1, min(int(height) // shape[0], int(width) // shape[1]))


def block_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Mean over ``factor`` by ``factor`` pixels of ``(C, h, w)``; NaN counts as 0.

    Blocks that the edge cuts off are the mean of what there is of them.
    """
    if factor == 1:
        return values
    starts = [np.arange(0, side, factor) for side in values.shape[1:]]
    sums = np.add.reduceat(np.nan_to_num(values), starts[0], axis=1)
    sums = np.add.reduceat(sums, starts[1], axis=2)
    heights, widths = (
        np.diff(np.append(edge, side)) for edge, side in zip(starts, values.shape[1:], strict=True)
    )
    mean: np.ndarray = sums / np.outer(heights, widths).astype(np.float32)
    return mean


# ------------------------------------------------------------------------------- saliency, answers


def glance_saliency(result: Result, store: ImageStore, shape: Shape) -> np.ndarray | None:
    """What the first pass said about looking closer, ``(h, w)`` float32; NaN where it said nothing.

    None where the pass was not kept.
    """
    plan, layout = result.plan, result.plan.passes[0]
    if len(plan.passes) == 1:
        return answers(result, store, shape).score
    if layout.name not in result.passes:
        return None
    glance = result.passes[layout.name]
    saliency = None if glance.saliency is None else glance.saliency[None]
    classes = ("saliency",) if saliency is not None else layout.classes
    array = glance.scores if saliency is None else saliency
    scores = _Scores(array, classes, layout.score_downsample)
    signals = [signal_map("saliency", strip, classes) for strip in scores.strips(shape)]
    values = fitted(np.concatenate(signals), _extent(plan, scores, shape), shape)
    return np.where(_answered(plan, glance, shape), values, np.float32(np.nan))


def answers(result: Result, store: ImageStore, shape: Shape) -> Answers:
    """The result at a panel's size.

    Of an unfinished result the finest answer there is, whatever the recipe's way to fuse.
    """
    plan = result.plan
    painted = Answers(np.full(shape, np.nan, np.float32), np.zeros(shape, np.int64))
    for scores, seen in _layers(result, store, shape):
        _paint(painted, scores, plan, seen)
    return painted


def class_scores(result: Result, store: ImageStore, shape: Shape) -> np.ndarray:
    """The result's scores at a panel's size, ``(C, h, w)`` float32; NaN where nobody has answered.

    Of an unfinished result the finest answer there is, whatever the recipe's way to fuse.
    """
    classes = result.plan.classes
    painted = np.full((len(classes), *shape), np.nan, np.float32)
    for scores, seen in _layers(result, store, shape):
        if seen.any():
            strips = [map_classes(s, scores.classes, classes) for s in scores.strips(shape)]
            extent = _extent(result.plan, scores, shape)
            for plane, values in zip(painted, np.concatenate(strips, axis=1), strict=True):
                plane[seen] = fitted(values, extent, shape)[seen]
    return painted


def _layers(
    result: Result, store: ImageStore, shape: Shape
) -> Iterator[tuple[_Scores, np.ndarray]]:
    """Scores, coarse to fine, and ``(h, w)`` bool, where in a panel they count."""
    plan = result.plan
    if result.complete or len(plan.passes) == 1:
        seen = at_tiles(
            np.isin(result.coverage, (0, 254, 255), invert=True), plan, plan.last, shape
        )
        yield _pyramid(plan, result.levels, shape), seen
        return
    for one in result.passes.values():
        if one.layout is plan.last:
            # Units of the last pass leave coarser levels of what they fused, too.
            levels = [stored_array(store, scores_path(k)) for k in range(plan.levels_in_unit)]
            scores = _pyramid(plan, levels, shape)
        else:
            scores = _Scores(one.scores, one.layout.classes, one.layout.score_downsample)
        yield scores, _answered(plan, one, shape)


def _pyramid(plan: ImagePlan, levels: Sequence[da.Array], shape: Shape) -> _Scores:
    """The coarsest level that is still as fine as a panel, or the finest."""
    fine = [k for k, level in enumerate(levels) if all(np.greater_equal(level.shape[1:], shape))]
    k = fine[-1] if fine else 0
    return _Scores(levels[k], plan.classes, plan.last.score_downsample * 2**k)


def _paint(painted: Answers, scores: _Scores, plan: ImagePlan, where: np.ndarray) -> None:
    """Lay scores over what is painted, where they count."""
    if not where.any():
        return
    found = [
        _strongest(map_classes(strip, scores.classes, plan.classes), plan.classes)
        for strip in scores.strips(where.shape)
    ]
    extent = _extent(plan, scores, where.shape)
    score = np.concatenate([part.score for part in found])
    winner = np.concatenate([part.winner for part in found])
    painted.score[where] = fitted(score, extent, where.shape)[where]
    winners = fitted(winner, extent, where.shape, Image.Resampling.NEAREST)
    painted.winner[where] = winners.astype(np.int64)[where]


def _strongest(scores: np.ndarray, classes: Sequence[str]) -> Answers:
    """The strongest class but the background, at every pixel of ``(C, h, w)``."""
    shown = [i for i, name in enumerate(classes) if name != BACKGROUND] or [0]
    best = scores[shown].argmax(axis=0)
    return Answers(np.take_along_axis(scores[shown], best[None], axis=0)[0], np.array(shown)[best])


# ------------------------------------------------------------------------------------------- places


def _extent(plan: ImagePlan, scores: _Scores, shape: Shape) -> tuple[float, float]:
    """Height and width of the whole image, in block means of some scores."""
    pixel = scores.downsample * scores.factor(shape)
    return plan.level_shapes[0][0] / pixel, plan.level_shapes[0][1] / pixel


def fitted(
    values: np.ndarray,
    extent: tuple[float, float],
    shape: Shape,
    how: Image.Resampling | None = None,
) -> np.ndarray:
    """``(h, w)`` numbers at a panel's size, float32: averaged down, or enlarged.

    Args:
        values: of which the top left part covers the image.
        extent: height and width of that part, in values; fractions count.
        shape: height and width wanted.
        how: to resample; by default means, and blocks where a value is many pixels wide.
    """
    height, width = (min(e, n) for e, n in zip(extent, values.shape, strict=True))
    if how is None:
        blocks = shape[0] > 6 * height
        how = Image.Resampling.NEAREST if blocks else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize(shape[::-1], how, box=(0, 0, width, height)))


def at_tiles(values: np.ndarray, plan: ImagePlan, layout: PassLayout, shape: Shape) -> np.ndarray:
    """One value per tile of a pass at a panel's size: that of the tile a pixel's centre lies in."""
    rows, columns = tile_rows(plan, layout, shape, 0), tile_rows(plan, layout, shape, 1)
    found: np.ndarray = values[np.ix_(rows, columns)]
    return found


def tile_rows(plan: ImagePlan, layout: PassLayout, shape: Shape, axis: int) -> np.ndarray:
    """The row (or, of axis 1, the column) of tiles that each row of a panel's pixels lies in."""
    centres = (np.arange(shape[axis]) + 0.5) * (plan.level_shapes[0][axis] / shape[axis])
    tile = layout.plane.downsample * layout.tile_px
    count = (layout.tiles.rows, layout.tiles.columns)[axis]
    return np.minimum((centres // tile).astype(np.int64), count - 1)


def _answered(plan: ImagePlan, one: PassResult, shape: Shape) -> np.ndarray:
    return at_tiles(was_answered(one.status), plan, one.layout, shape)
