"""What an export takes for the class of a pixel: some classes of the result, if sure enough.

Reads a result box by box, or from top to bottom in strips; knows no format.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.errors import UsageError
from saccade.pipeline.exports.cut import Cut
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN
from saccade.pipeline.palette import Colour, class_colours
from saccade.pipeline.result import Result
from saccade.pipeline.scores import dequantise
from saccade.pipeline.signals import BACKGROUND

BLOCK_PX = 2048
"""A strip of a result is read in blocks at most so wide."""
STRIP_PX = 2**22
"""A strip handed on holds about so many pixels, and at least one row."""


def chosen_classes(classes: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes that were asked for, in the result's order; all but the background by default.

    Raises:
        UsageError: the result has no class of a name.
    """
    for name in wanted:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"no class {name!r} in the result; {hint}there are: {', '.join(classes)}"
            )
    if not wanted:
        return tuple(name for name in classes if name != BACKGROUND)
    return tuple(name for name in classes if name in wanted)


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A few whole rows of what is exported, from top to bottom."""

    labels: np.ndarray
    """``(h, width)`` uint8: values of ``Labelling.values``; others mean none of them."""
    scores: np.ndarray
    """``(k, h, width)``, as stored: of every pixel the score of its own class; with a threshold
    those of all classes that count."""

    @classmethod
    def of(cls, strips: Sequence[Strip]) -> Strip:
        """Strips that follow each other as one."""
        labels = np.concatenate([strip.labels for strip in strips])
        return cls(labels, np.concatenate([strip.scores for strip in strips], axis=1))

    def rows(self, start: int, stop: int) -> Strip:
        """Some of its rows."""
        return Strip(self.labels[start:stop], self.scores[:, start:stop])


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """A result's labels as an export wants them."""

    result: Result
    """Of the image."""
    classes: tuple[str, ...]
    """That count."""
    threshold: float | None = None
    """A class is where its score is at least this, whatever the others say, so that classes may
    share ground; a label is that of the strongest class if it is there. None takes the result's
    labels as they are."""
    cut: Cut | None = None
    """Beyond it no class counts, and nothing is exported beyond its box; None takes all."""

    @property
    def window(self) -> Box:
        """What is exported of the result."""
        return Box(0, 0, *self.result.plan.shape) if self.cut is None else self.cut.box

    @property
    def values(self) -> dict[str, int]:
        """Class to label, of the classes that count."""
        names = self.result.classes
        return {name: 1 if len(names) == 1 else names.index(name) for name in self.classes}

    @property
    def colours(self) -> dict[str, Colour]:
        """Class to red, green, blue."""
        return {name: class_colours(self.result.classes)[name] for name in self.classes}

    def labels(self, box: Box) -> np.ndarray:
        """``(h, w)`` uint8, ``LABEL_UNKNOWN`` where no class counts; of a single class 0 and 1.

        ``LABEL_NODATA`` stays where the image has no data.
        """
        inside = None if self.cut is None else self.cut.inside(box)
        if inside is not None and not inside.any():
            return np.full(box.shape, LABEL_UNKNOWN, np.uint8)
        labels = self._labels(box)
        return labels if inside is None else np.where(inside, labels, np.uint8(LABEL_UNKNOWN))

    def _labels(self, box: Box) -> np.ndarray:
        if self.threshold is None:
            return self._wanted(self.result.region_labels(box))
        region = self.result.region(box)
        labels, scores = np.asarray(region.labels), np.asarray(region.scores)
        if len(scores) == 1:
            return np.where(labels >= LABEL_NODATA, labels, self._sure(scores[0]))
        sure = self._sure(_own(labels, scores)) | (labels == LABEL_NODATA)
        return self._wanted(np.where(sure, labels, LABEL_UNKNOWN))

    def part(self, strip: Strip, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Where one class is in a strip, ``(h, width)`` bool, and the scores to tell there."""
        if self.threshold is None:
            return strip.labels == self.values[name], strip.scores[0]
        scores = strip.scores[self.classes.index(name)]
        return (strip.labels < LABEL_NODATA) & self._sure(scores), scores

    def kinds(self, strip: Strip) -> np.ndarray:
        """``(h, width)`` uint8: labels of classes that count, and one value for all others."""
        table = np.full(256, LABEL_UNKNOWN, np.uint8)
        for value in self.values.values():
            table[value] = value
        kinds: np.ndarray = table[strip.labels]
        return kinds

    def _sure(self, scores: np.ndarray) -> np.ndarray:
        """Whether scores, as stored, reach the threshold."""
        least = np.float32(0 if self.threshold is None else self.threshold)
        if scores.dtype == np.uint8:
            table = dequantise(np.arange(256, dtype=np.uint8)) >= least
            known: np.ndarray = table[scores]
            return known
        reached: np.ndarray = scores.astype(np.float32) >= least
        return reached

    def _wanted(self, labels: np.ndarray) -> np.ndarray:
        """Labels of classes that count; of a single class its absence, 0, stays."""
        if len(self.result.classes) == 1:
            return labels
        table = np.full(256, LABEL_UNKNOWN, np.uint8)
        table[LABEL_NODATA] = LABEL_NODATA
        for value in self.values.values():
            table[value] = value
        chosen: np.ndarray = table[labels]
        return chosen

    def strips(self) -> Iterator[Strip]:
        """The window from top to bottom; holds one row of the result's chunks at a time."""
        window, side = self.window, self.result.plan.last.chunk_px
        step = max(1, STRIP_PX // window.width)
        for line in range(window.y0 // side * side, window.y1, side):
            top, bottom = max(line, window.y0), min(line + side, window.y1)
            band = self._band(Box(top, window.x0, bottom, window.x1), side)
            for row in range(0, len(band.labels), step):
                yield band.rows(row, row + step)

    def _band(self, box: Box, side: int) -> Strip:
        """One row of chunks, block by block: scores that are not told are held for a block only."""
        step = max(side, BLOCK_PX // side * side)
        planes = 1 if self.threshold is None else len(self.classes)
        labels = np.empty(box.shape, np.uint8)
        scores = np.empty((planes, *box.shape), self.result.plan.scores)
        for line in range(box.x0 // step * step, box.x1, step):
            left, right = max(line, box.x0), min(line + step, box.x1)
            columns = slice(left - box.x0, right - box.x0)
            block = Box(box.y0, left, box.y1, right)
            labels[:, columns], scores[:, :, columns] = self._read_inside(block)
        return Strip(labels, scores)

    def _read_inside(self, box: Box) -> tuple[np.ndarray, np.ndarray | int]:
        """Labels, none of a class beyond the cut, and scores; what is all beyond is not read."""
        if self.cut is None:
            return self._read(box)
        inside = self.cut.inside(box)
        if not inside.any():
            return np.full(box.shape, LABEL_UNKNOWN, np.uint8), 0
        labels, scores = self._read(box)
        return np.where(inside, labels, np.uint8(LABEL_UNKNOWN)), scores

    def _read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Labels, and the scores that a strip has."""
        region = self.result.region(box)
        labels, scores = np.asarray(region.labels), np.asarray(region.scores)
        if self.threshold is None:
            return labels, _own(labels, scores)[None]
        return labels, scores[[self.result.classes.index(name) for name in self.classes]]


def _own(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of every pixel the score of the class that it is labelled as, ``(h, w)``."""
    if len(scores) == 1:
        single: np.ndarray = scores[0]
        return single
    index = np.minimum(labels, len(scores) - 1)[None]
    own: np.ndarray = np.take_along_axis(scores, index, axis=0)[0]
    return own
