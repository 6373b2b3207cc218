"""The lower levels of the result: scores by mean of what has data, labels by mode.

Each level is made from the one above.

A unit of the last pass owns a shard of every level down to one chunk and writes these itself; the
levels below are made once all units are in, shard by shard, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from saccade.pipeline.fusion import halve_mean, halve_mode, halve_valid
from saccade.pipeline.geometry import Grid
from saccade.pipeline.image_plan import LABEL_NODATA, ImagePlan
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import labels_path, scores_path
from saccade.pipeline.store_writing import Written


def halvings(
    plan: ImagePlan, scores: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The levels that a unit owns below level 0: number, scores and labels of each.

    Args:
        plan: of the image.
        scores: ``(C, h, w)`` of whole shards, as stored, or of a strip of them that can be halved
            as often without rest, but for the image's edge.
        labels: ``(h, w)`` uint8 of the same.
    """
    for level in range(1, plan.levels_in_unit):
        scores, labels = halve_scores(scores, labels), halve_mode(labels, LABEL_NODATA)
        yield level, scores, labels


def complete_pyramid(store: ImageStore, plan: ImagePlan) -> list[Written]:
    """Write the levels that no unit owns. Doing so again writes the same bytes."""
    written: list[Written] = []
    for level in range(plan.levels_in_unit, len(plan.pyramid_shapes)):
        for box in Grid(plan.pyramid_shapes[level], plan.shard_px(level)):
            above = box.scale(2).clip(plan.pyramid_shapes[level - 1])
            labels = store.read(labels_path(level - 1), above)
            scores = halve_scores(store.read(scores_path(level - 1), above), labels)
            written += store.write(scores_path(level), box, scores)
            written += store.write(labels_path(level), box, halve_mode(labels, LABEL_NODATA))
    return written


def halve_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Half the height and width of ``(C, h, w)``: means over the pixels that have data."""
    valid = labels != LABEL_NODATA
    return halve_mean(scores) if valid.all() else halve_valid(scores, valid)
