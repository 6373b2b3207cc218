"""What a run answered for one image, on the grid that it is compared on. Knows no truth.

An answer coarser than the grid is upsampled as composing passes does it, so that a glance compared
on a finer grid is what a run of several passes would give where it refines nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.pipeline.errors import TruthError
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.image_plan import LABEL_NODATA
from saccade.pipeline.resampling import coarse_box_for, upsample
from saccade.pipeline.result import Result
from saccade.pipeline.scores import dequantise, label, quantise
from saccade.pipeline.sources.plane import PlaneSpec


class Answer:
    """The fused scores of one image, complete or not."""

    def __init__(self, result: Result) -> None:
        plan = result.plan
        self._result, self._type, self._threshold = result, plan.scores, plan.label_threshold
        self.name: str = plan.name
        """Of the image."""
        self.classes: tuple[str, ...] = plan.classes
        """Of the scores."""
        self.image_shape: Shape = plan.level_shapes[0]
        """Of level 0."""
        self.plane: PlaneSpec = plan.last.score_plane
        """The grid of the scores as they are stored."""
        self.tile_px: float = plan.last.tile_px * plan.last.plane.downsample
        """Side of the last pass's tiles, in pixels of level 0."""
        self.seen: np.ndarray = result.coverage == len(plan.passes)
        """``(tile rows, tile columns)`` bool: tiles that the last pass answered."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the scores as they are read."""
        return np.dtype(self._type)

    def read(self, plane: PlaneSpec, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a box of a grid, and where there are any.

        Args:
            plane: the grid; the answer's own, or a finer one.
            box: in its pixels.

        Returns:
            ``(classes, h, w)`` as stored, and ``(h, w)`` bool: whether any pass answered.

        Raises:
            TruthError: the grid is coarser than the answer.
        """
        ratio = self.plane.downsample / plane.downsample
        if (ratio, self.plane.shape) == (1.0, plane.shape):
            return self._stored(box)
        if ratio < 1:
            raise TruthError(
                f"{self.name}: an answer is compared on a grid not coarser than itself; found "
                f"{plane.downsample:g} against {self.plane.downsample:g}"
            )
        need = coarse_box_for(box, ratio, self.plane.shape)
        scores, where = self._stored(need)
        corner = (need.y0, need.x0)
        scores = np.where(where, dequantise(scores), np.float32(np.nan))
        fine = upsample(scores, corner, ratio, box, self.plane.shape)
        known = where[None].astype(np.float32)
        there = upsample(known, corner, ratio, box, self.plane.shape, "nearest")[0] > 0
        return quantise(fine, self._type), there

    def _stored(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        region = self._result.region(box)
        return region.scores, region.labels < LABEL_NODATA

    def label(self, scores: np.ndarray) -> np.ndarray:
        """The class of every pixel, as the run labels them: ``(h, w)`` uint8."""
        return label(scores, self._threshold)
