"""Hard negatives: where the glance was surest without any truth. Pure; knows no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from saccade.workers.training.batch import Batch
from saccade.workers.training.groups import Hardest

PER_CROP = 3
"""Places that a crop may add."""


@torch.no_grad()
def mined(hardest: Hardest, batch: Batch, scores: Tensor, looks: Sequence[float]) -> Hardest:
    """What a step of the glance adds to the places known; what it sees again is judged anew.

    Args:
        hardest: known so far.
        batch: the step's groups.
        scores: ``(N, K, h, w)`` of the glance, turned.
        looks: per group, side of the cells of which each is kept once, in pixels of level 0: what
            one crop of the finest pass covers.
    """
    part = batch.passes[0]
    wrong = (scores * (1 - part.truth) * part.counts).amax(1, keepdim=True)
    # a place beside truth is no negative: the finer pass would see the truth there
    wrong = wrong * (1 - max_pool2d(part.truth.amax(1, keepdim=True), 3, 1, 1))
    for i, draw in enumerate(batch.draws):
        score_px = part.places[i].scores.downsample
        box, upright = part.score_box(i), batch.back(i, wrong)[0].float().cpu()
        found = _best(upright, (box.y0, box.x0), score_px, looks[i])
        seen = (box.y0 * score_px, box.x0 * score_px, box.y1 * score_px, box.x1 * score_px)
        hardest = hardest.updated(draw.image, found, seen)
    return hardest


def _best(
    wrong: Tensor, origin: tuple[int, int], score_px: float, tile_px: float
) -> dict[tuple[int, int], tuple[float, float, float]]:
    """The surest score of each of the surest blocks of one crop, ``(h, w)``."""
    side = max(1, min(round(tile_px / score_px), *wrong.shape))
    best, places = max_pool2d(wrong[None], side, side, ceil_mode=True, return_indices=True)
    values, order = best.flatten().topk(min(best.numel(), PER_CROP))
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    for value, place in zip(values.tolist(), places.flatten()[order].tolist(), strict=True):
        row, column = divmod(place, wrong.shape[1])
        y, x = (row + origin[0] + 0.5) * score_px, (column + origin[1] + 0.5) * score_px
        if value > 0:
            found.setdefault((int(y // tile_px), int(x // tile_px)), (value, y, x))
    return found


def merged(parts: list[Hardest]) -> Hardest:
    """What several processes found, as one."""
    whole = parts[0]
    for part in parts[1:]:
        for image, places in part.places.items():
            whole = whole.updated(image, places, None)
    return whole


def to_plain(hardest: Hardest) -> dict[str, Any]:
    """As lists of numbers."""
    return {
        "most": hardest.most,
        "places": [
            [image, *cell, *place]
            for image, places in sorted(hardest.places.items())
            for cell, place in sorted(places.items())
        ],
    }


def from_plain(tree: Mapping[str, Any]) -> Hardest:
    """The inverse of ``to_plain``."""
    places: dict[int, dict[tuple[int, int], tuple[float, float, float]]] = {}
    for image, row, column, value, y, x in tree["places"]:
        places.setdefault(int(image), {})[int(row), int(column)] = (value, y, x)
    return Hardest(places, int(tree["most"]))
