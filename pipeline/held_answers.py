"""What coarser passes know of a region, read once for all the strips in which it is composed."""

from __future__ import annotations

import numpy as np

from saccade.pipeline.compose import Reads, place_below
from saccade.pipeline.coverage import cells_below
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.store_layout import NODATA, pass_path

LEAST_RATIO = 4
"""Passes less than this many times coarser are read strip by strip: they would weigh too much."""


class HeldAnswers:
    """A store that remembers the coarser passes over one region.

    Of every pass its tiles, and the scores of those that are much coarser than the result.

    Args:
        store: holds what every pass said.
        plan: of the image.
        region: a box of the fused result, not empty.
    """

    def __init__(self, store: Reads, plan: ImagePlan, region: Box) -> None:
        self._store = store
        self._boxes: dict[str, Box] = {}
        for layout in plan.passes[:-1]:
            self._boxes |= _boxes_below(plan, layout, region)
        self._held: dict[str, np.ndarray] = {}

    def read(self, array: str, box: Box) -> np.ndarray:
        """A box of an array; what is held is read whole when a part of it is asked for first."""
        whole = self._boxes.get(array)
        if whole is None or not whole.contains(box):
            return self._store.read(array, box)
        if array not in self._held:
            self._held[array] = self._store.read(array, whole)
        return self._held[array][(..., *box.relative_to(whole).slices)]


def _boxes_below(plan: ImagePlan, layout: PassLayout, region: Box) -> dict[str, Box]:
    """What is worth holding of one pass, by array."""
    place, ratio, _ = place_below(plan, layout, region)
    under = layout.tiles.cells_touching(place.scale(layout.stride))
    beside = cells_below(plan, layout, plan.coverage_box(region))
    boxes = {pass_path(layout.name, "status"): under.hull(beside)}
    if ratio >= LEAST_RATIO:
        boxes[pass_path(layout.name, "scores")] = place
        if layout.holes:
            boxes[pass_path(layout.name, NODATA)] = place
    return boxes
