"""A result cut along an area of interest: the box that holds it, and the pixels inside. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.area import Edges, pixels_inside
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What of a result lies in an area; a pixel does where its centre lies in a polygon."""

    box: Box
    """Whole pixels of the result that hold the area, as far as the image reaches."""
    edges: Edges
    """Of the area's polygons, in pixels of the result."""
    digest: str
    """Of the area's file."""

    @classmethod
    def of(cls, plan: ImagePlan, edges: Edges, digest: str) -> Cut | None:
        """Of a plan's fused result; None where the area shares no ground with the image.

        Args:
            plan: of the image.
            edges: of the polygons, in pixels of level 0.
            digest: of their file.
        """
        here = edges.scaled(plan.last.score_downsample)
        if not len(here.starts):
            return None
        (left, top), (right, bottom) = here.starts.min(axis=0), here.starts.max(axis=0)
        height, width = plan.shape
        y0, x0 = max(0, math.floor(top)), max(0, math.floor(left))
        y1, x1 = min(height, math.ceil(bottom)), min(width, math.ceil(right))
        return cls(Box(y0, x0, y1, x1), here, digest) if y0 < y1 and x0 < x1 else None

    def inside(self, box: Box) -> np.ndarray:
        """``(h, w)`` bool: pixels of a box of the result that are in the area."""
        return pixels_inside(self.edges, box)
