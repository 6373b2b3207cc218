"""A teacher: what a run answered for an image, as soft truth on the grid of a pass.

So whatever a recipe can run can teach: several passes with selection and fusion teach a single one.
On a coarser grid the answer is max-pooled, as the truth is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saccade.pipeline.errors import TruthError
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.quality.answer import Answer
from saccade.pipeline.result import open_result
from saccade.pipeline.scores import dequantise
from saccade.pipeline.sources.plane import PlaneSpec

STRIP_SCORES = 1 << 24
"""So many scores of the teacher are held at a time, or one row of the grid."""


class TaughtImage:
    """A teacher's answer for one image."""

    def __init__(self, run: Path, name: str, shape: Shape) -> None:
        """Open it.

        Args:
            run: a run's folder.
            name: of the image.
            shape: of its level 0.

        Raises:
            StoreError: no run lies there.
            TruthError: it has no answer for this image.
        """
        found = open_result(run)
        if name not in found.images:
            known = ", ".join(found.images[:5]) or "none"
            raise TruthError(
                f"{run}: an answer for {name!r} expected of the teacher; found {known}"
            )
        self._answer = Answer(found[name])
        if self._answer.image_shape != shape:
            raise TruthError(
                f"{run}: the teacher's image {name!r} must have the shape {shape}; found "
                f"{self._answer.image_shape}"
            )

    def on(self, plane: PlaneSpec, box: Box, classes: Sequence[str]) -> np.ndarray:
        """``(classes, h, w)`` float32 in [0, 1] of a box of a grid; 0 where nobody answered.

        Raises:
            TruthError: the teacher has no such class.
        """
        unknown = sorted(set(classes) - set(self._answer.classes))
        if unknown:
            known = ", ".join(self._answer.classes)
            raise TruthError(f"the teacher answers for {known}; {', '.join(unknown)} expected, too")
        which = [self._answer.classes.index(name) for name in classes]
        ratio = plane.downsample / self._answer.plane.downsample
        if ratio <= 1:
            stored, there = self._answer.read(plane, box)
            upsampled: np.ndarray = np.nan_to_num(dequantise(stored[which])) * there
            return upsampled
        parts = [self._pooled(part, ratio, which) for part in self._strips(box, ratio)]
        return np.concatenate(parts, axis=1)

    def _strips(self, box: Box, ratio: float) -> list[Box]:
        per_row = box.width * ratio**2 * len(self._answer.classes)
        rows = max(1, int(STRIP_SCORES / per_row))
        starts = range(box.y0, box.y1, rows)
        return [Box(y, box.x0, min(y + rows, box.y1), box.x1) for y in starts]

    def _pooled(self, box: Box, ratio: float, which: list[int]) -> np.ndarray:
        """The highest of the teacher's scores that are centred in each pixel of a box."""
        own = self._answer.plane
        rows, columns = (
            edges(start, stop, ratio, length)
            for start, stop, length in (
                (box.y0, box.y1, own.shape[0]),
                (box.x0, box.x1, own.shape[1]),
            )
        )
        need = Box(int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1]))
        stored, there = self._answer.read(own, need)
        scores = np.nan_to_num(dequantise(stored[which])) * there
        high = np.maximum.reduceat(scores, rows[:-1] - rows[0], axis=1)
        pooled: np.ndarray = np.maximum.reduceat(high, columns[:-1] - columns[0], axis=2)
        return pooled


def edges(start: int, stop: int, ratio: float, length: int) -> np.ndarray:
    """Where cells of ``ratio`` begin, in fine positions whose centres they hold; one past the last.

    The last fine position stands for cells beyond it, so that none is empty.
    """
    found = [math.ceil(cell * ratio - 0.5) for cell in range(start, stop + 1)]
    inside: np.ndarray = np.minimum(np.array(found), length)
    inside[:-1] = np.minimum(inside[:-1], length - 1)
    inside[-1] = max(inside[-1], inside[-2] + 1)
    return inside
