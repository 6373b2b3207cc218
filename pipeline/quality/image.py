"""One image's answer beside its truth: everything that is counted, strip by strip.

Scores are compared pixel by pixel on one grid, with the truth max-pooled onto it: a pixel of the
grid belongs to a class when any pixel of level 0 under it does. Objects and the pixels that the
last pass saw are counted at level 0, whatever the grid. Memory holds one strip, and the outlines of
the objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.errors import TruthError
from saccade.pipeline.geometry import Box
from saccade.pipeline.quality.agreement import Agreement
from saccade.pipeline.quality.answer import Answer
from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.objects import ObjectFinder, Objects
from saccade.pipeline.quality.runs import grid_pixel, highest_under
from saccade.pipeline.regions import Runs
from saccade.pipeline.scores import dequantise
from saccade.pipeline.signals import BACKGROUND
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.truth import Truth

ANY = "any"
"""Name of the row in which all compared classes are one: the highest score, any of the truths."""
STRIP_SAMPLES = 1 << 25
"""Masks of about this many samples of level 0 are held at a time, of all classes together."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared under one name."""

    name: str
    """Of a class, or 'any'."""
    channels: tuple[int, ...]
    """Score channels; of several, the highest counts."""
    truths: tuple[int, ...]
    """Classes of the truth; of several, any counts."""


def pair_classes(classes: Sequence[str], truth: Sequence[str]) -> tuple[Pair, ...]:
    """Which scores are compared with which truth: classes of the same name, and all as one.

    Where no name is shared, all classes but the background are compared as one with the whole
    truth. Of a single shared class, 'any' would say the same again and is left out.

    Raises:
        TruthError: nothing but background to compare.
    """
    shared = [name for name in classes if name in truth and name != BACKGROUND]
    channels = {name: index for index, name in enumerate(classes) if name != BACKGROUND}
    if not channels or not truth:
        raise TruthError(
            f"a class besides {BACKGROUND!r} is needed; found {', '.join(classes)} in the result "
            f"and {', '.join(truth)} in the truth"
        )
    pairs = tuple(Pair(n, (channels[n],), (list(truth).index(n),)) for n in shared)
    if len(pairs) == 1:
        return pairs
    names = shared or list(channels)
    of_any = tuple(i for i, name in enumerate(truth) if name in names or not shared)
    return (*pairs, Pair(ANY, tuple(channels[name] for name in names), of_any))


@dataclass(frozen=True, slots=True, eq=False)
class ImageQuality:
    """What was counted of one image."""

    name: str
    """Of the image."""
    pairs: tuple[str, ...]
    """Names of what was compared: classes, and 'any'."""
    counts: ScoreCounts
    """Pixels of the grid, by score and truth, per pair; those that nobody answered left out."""
    objects: tuple[Objects, ...]
    """Per pair, the objects of the truth at level 0."""
    tile_pixels: np.ndarray
    """``(pairs, tile rows, tile columns)`` int64: truth pixels of level 0 in the last pass's tiles;
    a pixel belongs to the tile that holds its centre."""
    seen: np.ndarray
    """``(tile rows, tile columns)`` bool: tiles that the last pass answered."""
    answered: float
    """Share of the grid's pixels that any pass answered."""
    agreement: Agreement | None = None
    """With another answer, where one was given."""

    @property
    def truth_px(self) -> np.ndarray:
        """``(pairs,)`` int64: truth pixels of level 0."""
        total: np.ndarray = self.tile_pixels.sum(axis=(1, 2))
        return total

    @property
    def seen_px(self) -> np.ndarray:
        """``(pairs,)`` int64: of them, those in tiles that the last pass answered."""
        total: np.ndarray = (self.tile_pixels * self.seen).sum(axis=(1, 2))
        return total


def compare_image(
    answer: Answer, truth: Truth, plane: PlaneSpec | None = None, against: Answer | None = None
) -> ImageQuality:
    """Count an answer against truth, and against another answer.

    Args:
        answer: of the image, complete or not.
        truth: of the same image.
        plane: the grid to compare on, not coarser than the answer's own, which is the default.
        against: another answer, such as a dense run's, not finer than the grid.

    Raises:
        TruthError: the truth has another shape than the image, or no class to compare.
    """
    truth.check_over(answer.image_shape, answer.name)
    comparison = _Comparison(answer, truth, plane or answer.plane, against)
    for strip in comparison.strips():
        comparison.take(strip)
    return comparison.quality()


class _Comparison:
    """What is gathered while the strips of an image go by."""

    def __init__(
        self, answer: Answer, truth: Truth, plane: PlaneSpec, against: Answer | None
    ) -> None:
        self._answer, self._truth, self._plane, self._against = answer, truth, plane, against
        self._pairs = pair_classes(answer.classes, truth.classes)
        count = len(self._pairs)
        self._counts = ScoreCounts.none(count, answer.dtype)
        self._finders = tuple(ObjectFinder() for _ in self._pairs)
        self._seen = answer.seen
        self._tile_pixels = np.zeros((count, *self._seen.shape), np.int64)
        self._answered = 0
        self._agreement = Agreement() if against else None

    def strips(self) -> Iterator[Box]:
        """Whole rows of the grid, from top to bottom."""
        height, width = self._plane.shape
        row_samples = width * self._plane.downsample**2 * len(self._truth.classes)
        rows = max(1, int(STRIP_SAMPLES / row_samples))
        for y0 in range(0, height, rows):
            yield Box(y0, 0, min(y0 + rows, height), width)

    def take(self, strip: Box) -> None:
        """Count one strip."""
        scores, where = self._answer.read(self._plane, strip)
        self._answered += int(where.sum())
        pooled = self._truth.on(self._plane, strip)
        paired, true = self._paired(scores), self._paired_truth(pooled)
        self._counts = self._counts.counted(paired, true, where)
        self._take_level0(strip, paired)
        if self._against is not None and self._agreement is not None:
            other, there = self._against.read(self._plane, strip)
            labels = self._answer.label(scores), self._against.label(other)
            self._agreement += Agreement.of(scores, other, *labels, where & there)

    def _paired(self, scores: np.ndarray) -> np.ndarray:
        """``(pairs, h, w)``: the highest of each pair's channels."""
        return np.stack([scores[list(pair.channels)].max(axis=0) for pair in self._pairs])

    def _paired_truth(self, masks: np.ndarray) -> np.ndarray:
        """``(pairs, h, w)`` bool: any of each pair's truths."""
        return np.stack([masks[list(pair.truths)].any(axis=0) for pair in self._pairs])

    def _take_level0(self, strip: Box, scores: np.ndarray) -> None:
        """Count the pixels of level 0 whose centres lie in a strip of the grid."""
        downsample, tile_px = self._plane.downsample, self._answer.tile_px
        rows = self._rows_of_level0(strip)
        masks = self._paired_truth(self._truth.read(Box(rows[0], 0, rows[1], self._truth.shape[1])))
        for finder, mask, score in zip(self._finders, masks, scores, strict=True):
            runs = Runs.of(mask, rows[0])
            highest = highest_under(runs, np.nan_to_num(score), downsample, strip.y0)
            finder.add(runs, dequantise(highest), highest_under(runs, self._seen, tile_px))
        add_per_tile(self._tile_pixels, masks, rows[0], tile_px)

    def _rows_of_level0(self, strip: Box) -> tuple[int, int]:
        height, last = self._truth.shape[0], strip.y1 == self._plane.shape[0]
        start, stop = (math.ceil(y * self._plane.downsample - 0.5) for y in (strip.y0, strip.y1))
        return min(max(0, start), height), height if last else min(stop, height)

    def quality(self) -> ImageQuality:
        """What was counted."""
        height, width = self._plane.shape
        return ImageQuality(
            name=self._answer.name,
            pairs=tuple(pair.name for pair in self._pairs),
            counts=self._counts,
            objects=tuple(finder.objects() for finder in self._finders),
            tile_pixels=self._tile_pixels,
            seen=self._seen,
            answered=self._answered / (height * width),
            agreement=self._agreement,
        )


def add_per_tile(totals: np.ndarray, masks: np.ndarray, top: int, tile_px: float) -> None:
    """Add the set pixels of whole rows to the tiles that hold their centres, in place.

    Args:
        totals: ``(classes, tile rows, tile columns)`` int64.
        masks: ``(classes, h, width of level 0)`` bool.
        top: row of level 0 that the masks begin with.
        tile_px: pixels of level 0 per tile.
    """
    if not masks.shape[1]:
        return
    first, index = zip(
        *(
            _tiles_along(start, start + side, tile_px, tiles)
            for start, side, tiles in zip((top, 0), masks.shape[1:], totals.shape[1:], strict=True)
        ),
        strict=True,
    )
    sums = np.add.reduceat(masks, first[1], axis=2, dtype=np.int64)
    sums = np.add.reduceat(sums, first[0], axis=1)
    totals[np.ix_(np.arange(len(totals)), *index)] += sums


def _tiles_along(
    start: int, stop: int, tile_px: float, tiles: int
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, the position of the first pixel of each tile, and which tile it is."""
    tile = np.minimum(grid_pixel(np.arange(start, stop), tile_px), tiles - 1)
    first = np.flatnonzero(np.diff(tile, prepend=-1))
    return first, tile[first]
