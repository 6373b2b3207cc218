"""Crops of an image as training sees them: pixels, truth and what counts. Knows no thread.

Pixels are read through the same planes as in a run, truth is max-pooled on the grid of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.pipeline.closing import Closing
from saccade.pipeline.geometry import Box
from saccade.pipeline.inputs import Inputs
from saccade.pipeline.resolve import seen_by
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.plane import Plane, PlaneSpec
from saccade.pipeline.truth import TruthRecipe, open_truth
from saccade.workers.reading import padded, read_context
from saccade.workers.training.frozen import FrozenImage, scaled
from saccade.workers.training.groups import (
    Crop,
    CropPlace,
    Draw,
    Group,
    Visit,
    check_nested,
    place_crop,
)
from saccade.workers.training.teaching import TaughtImage


@dataclass(frozen=True, slots=True)
class PassSight:
    """What reading needs to know of a pass."""

    name: str
    """Of the pass."""
    crop_px: int
    """Side of its crops."""
    multiple: int
    """Crops begin and end at multiples of this."""
    stride: int
    """Input pixels per score."""
    classes: tuple[str, ...]
    """Of its scores."""
    context: tuple[float, ...] = ()
    """Extra fields of view, each so many times coarser."""
    px_nbytes: int = 3
    """Host memory of a pixel as read, about."""

    @property
    def crop_scores(self) -> int:
        """Scores of a whole crop."""
        return (self.crop_px // self.stride) ** 2


class TrainingImage(Closing):
    """One image with its truth, open for reading crops."""

    def __init__(
        self,
        frozen: FrozenImage,
        truth: TruthRecipe,
        sights: Sequence[PassSight],
        scale: float = 1.0,
        teacher: Path | None = None,
    ) -> None:
        """Open an image and its truth.

        Args:
            frozen: the image, as the training knows it.
            truth: where its truth lies.
            sights: of all passes, from coarse to fine.
            scale: factor on the pixel size of every pass.
            teacher: a run whose answers are soft truth, where there is one.

        Raises:
            SourceError: the image or its truth can't be opened.
            TruthError: the truth does not lie over the image.
            PlanError: crops do not nest.
        """
        self.sights, name = tuple(sights), frozen.entry.name
        self.layouts = frozen.plan.passes
        with ExitStack() as opened:
            self.source = opened.enter_context(closing(frozen.opened()))
            self.seen = tuple(seen_by(layout, self.source) for layout in self.layouts)
            self.truth = opened.enter_context(closing(open_truth(truth, name)))
            shape = self.source.levels[0].shape
            self.truth.check_over(shape, name)
            self._teacher = TaughtImage(teacher, name, shape) if teacher else None
            self.asked = tuple(layout.plane for layout in self.layouts)
            self.planes = self.asked if scale == 1 else scaled(self.source, self.asked, scale)
            names = tuple(sight.name for sight in sights)
            check_nested(shape, tuple(_extents(sights, self.planes)), names)
            self._opened = opened.pop_all()
        self._whole: dict[int, Samples] = {}
        self._whole_truth: dict[int, np.ndarray] = {}

    def close(self) -> None:
        """Release the image and its truth."""
        self._opened.close()

    def keep_whole(self, crops: int) -> None:
        """Read planes once and whole, where so many crops would read more than that."""
        for index, (sight, plane) in enumerate(zip(self.sights, self.planes, strict=True)):
            if plane.shape[0] * plane.shape[1] <= crops * sight.crop_px**2:
                self._whole[index] = Plane(self.seen[index], plane).read_valid(Box.of(plane.shape))
                scores = self._place(index, (0.0, 0.0)).scores
                self._whole_truth[index] = self._pooled(index, scores, Box.of(scores.shape))

    def group(self, draw: Draw, passes: int) -> Group:
        """The crops of the first so many passes."""
        return Group(draw, tuple(self.crop(index, draw) for index in range(passes)))

    def crop(self, index: int, draw: Draw) -> Crop:
        """The crop of one pass."""
        sight, place = self.sights[index], self._place(index, draw.centre)
        inputs = self.layouts[index].inputs
        inside = place.box.clip(place.plane.shape)
        samples = padded(self._samples(index, inside), inside, place.box)
        valid = samples.where_any()
        scored = place.score_box.clip(place.scores.shape)
        teacher = None
        if self._teacher is not None:
            soft = self._teacher.on(place.scores, scored, sight.classes)
            teacher = _filled(soft, scored, place.score_box)
        return Crop(
            place=place,
            pixels=_filled_by(inputs, samples),
            inputs=inputs,
            valid=valid,
            context=tuple(self._context(index, place, factor) for factor in sight.context),
            truth=_filled(self._marked(index, place, scored), scored, place.score_box),
            counts=_counting(valid, scored, place),
            teacher=teacher,
        )

    def _place(self, index: int, centre: tuple[float, float]) -> CropPlace:
        sight, plane, asked = self.sights[index], self.planes[index], self.asked[index]
        return place_crop(plane, centre, sight.crop_px, sight.multiple, sight.stride, asked)

    def _samples(self, index: int, box: Box) -> Samples:
        if index not in self._whole:
            return Plane(self.seen[index], self.planes[index]).read_valid(box)
        pixels, valid = self._whole[index]
        return Samples(pixels[box.slices], None if valid is None else valid[box.slices])

    def _marked(self, index: int, place: CropPlace, scored: Box) -> np.ndarray:
        if index in self._whole_truth:
            return self._whole_truth[index][(slice(None), *scored.slices)]
        return self._pooled(index, place.scores, scored)

    def _pooled(self, index: int, scores: PlaneSpec, box: Box) -> np.ndarray:
        known = self.truth.on(scores, box, "max")
        which = [self.truth.classes.index(name) for name in self.sights[index].classes]
        chosen: np.ndarray = known[which]
        return chosen

    def _context(self, index: int, place: CropPlace, factor: float) -> Samples:
        view = read_context(Plane(self.seen[index], self.planes[index]), place.box, factor)
        return _filled_by(self.layouts[index].inputs, view)


def read_visit(image: TrainingImage, visit: Visit, passes: Sequence[int]) -> Iterator[Group]:
    """The groups of a visit, in order; ``passes`` says per draw how many, 0 leaves it out."""
    image.keep_whole(sum(count > 0 for count in passes))
    for draw, count in zip(visit.draws, passes, strict=True):
        if count:
            yield image.group(draw, count)


def _extents(sights: Sequence[PassSight], planes: Sequence[PlaneSpec]) -> Iterator[float]:
    """Sides of crops in pixels of level 0."""
    for sight, plane in zip(sights, planes, strict=True):
        yield sight.crop_px * plane.downsample


def _filled_by(inputs: Inputs, samples: Samples) -> Samples:
    """Samples as a model is shown them, and still which of them hold data."""
    return Samples(inputs.filled(*samples), samples.valid)


def _counting(valid: np.ndarray | None, scored: Box, place: CropPlace) -> np.ndarray:
    """Scores of a crop that lie on the image and wholly on data."""
    counts = np.zeros(place.score_box.shape, bool)
    counts[scored.relative_to(place.score_box).slices] = True
    if valid is not None:
        rows, columns = counts.shape
        cells = valid.reshape(rows, place.stride, columns, place.stride)
        counts &= cells.all(axis=(1, 3))
    return counts


def _filled(part: np.ndarray, have: Box, want: Box) -> np.ndarray:
    """``(K, ...)`` of one box inside a larger one, 0 around."""
    whole = np.zeros((len(part), *want.shape), part.dtype)
    whole[(slice(None), *have.relative_to(want).slices)] = part
    return whole
