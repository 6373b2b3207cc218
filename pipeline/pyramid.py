"""The lower levels of the result: scores by mean, labels by mode, each level from the one above.

A unit of the last pass owns a shard of every level down to one chunk and writes these itself; the
levels below are made once all units are in, shard by shard, in bounded memory.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.fusion import halve_mean, halve_mode
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.store import ImageStore, Written
from saccade.pipeline.store_layout import labels_path, scores_path


def write_lower_levels(
    store: ImageStore, plan: ImagePlan, region: Box, scores: np.ndarray, labels: np.ndarray
) -> list[Written]:
    """Write the levels that a unit owns below its region of level 0.

    Args:
        store: the result.
        plan: of the image.
        region: whole shards of level 0.
        scores: ``(C, h, w)`` of the region, as stored.
        labels: ``(h, w)`` uint8 of the region.
    """
    written: list[Written] = []
    for level in range(1, plan.levels_in_unit):
        region = region.reduce(2)
        scores, labels = halve_mean(scores), halve_mode(labels, LABEL_UNKNOWN)
        written += store.write(scores_path(level), region, scores)
        written += store.write(labels_path(level), region, labels)
    return written


def complete_pyramid(store: ImageStore, plan: ImagePlan) -> list[Written]:
    """Write the levels that no unit owns. Doing so again writes the same bytes."""
    written: list[Written] = []
    for level in range(plan.levels_in_unit, len(plan.pyramid_shapes)):
        for box in Grid(plan.pyramid_shapes[level], plan.shard_px(level)):
            above = box.scale(2).clip(plan.pyramid_shapes[level - 1])
            scores = halve_mean(store.read(scores_path(level - 1), above))
            written += store.write(scores_path(level), box, scores)
            labels = halve_mode(store.read(labels_path(level - 1), above), LABEL_UNKNOWN)
            written += store.write(labels_path(level), box, labels)
    return written
