"""One threshold for a whole archive instead of one share per image. Pure, on replayed scores.

The threshold is the score above which the validation images, taken together, have the wanted share
of their foreground's tiles. An image whose lesions are faint may then get nothing, so a minimum
share per image can be asked for; and an image whose glance is unsure, more so than four in five of
the validation images, can be escalated to a larger share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from quality_replay import Hidden, Masks, Stored, TileScores, choose, tile_scores

from saccade.pipeline.selectors import TopK

LEAST = 1 / 3
"""Minimum share per image, as a part of the wanted share."""
MORE = 1.5
"""Share of an escalated image, likewise."""
UNSURE_PERCENT = 80
"""An image is unsure above this percentile of the validation images."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known once the validation images were seen."""

    share: float
    """Wanted, of the foreground's tiles."""
    threshold: float
    """Tiles of the last pass that score at least this are visited."""
    unsure: float
    """Images whose unsureness exceeds this are escalated."""


def last_scores(dense: Stored, counts: Sequence[int], scores: TileScores) -> np.ndarray:
    """Scores of the last pass's candidates, highest first; NaN left out."""
    last = dense.plan.last.index
    view = Hidden(dense, choose(dense, counts[:-1], scores))
    found = scores(view, last)[view.candidates(last).ravel()]
    return -np.sort(-found[~np.isnan(found)])


def unsureness(dense: Stored, foreground: np.ndarray) -> float:
    """Mean entropy of the glance over the foreground's tiles of the second pass."""
    glance, following = dense.plan.passes[0], dense.plan.passes[1]
    selector = TopK(k=0, signal="entropy", statistic="mean")
    table = tile_scores(Hidden(dense, ()), glance, following, selector)
    return float(np.nanmean(table[foreground.ravel()]))


def rule_of(
    share: float, scores: Sequence[np.ndarray], foreground: Sequence[int], unsure: Sequence[float]
) -> Rule:
    """From the validation images' tile scores, tiles of foreground, and unsureness."""
    every = -np.sort(-np.concatenate(list(scores)))
    wanted = min(len(every), max(1, math.ceil(share * sum(foreground))))
    return Rule(share, float(every[wanted - 1]), float(np.percentile(unsure, UNSURE_PERCENT)))


def counts_of(rule: Rule, scores: np.ndarray, foreground: int, unsure: float) -> Mapping[str, int]:
    """Tiles of the last pass that one image gets, by way."""
    above = int((scores >= np.float32(rule.threshold)).sum())
    least = max(above, math.ceil(rule.share * LEAST * foreground))
    more = math.ceil(min(1.0, rule.share * MORE) * foreground)
    return {
        "threshold": above,
        "threshold, least": least,
        "threshold, least, escalated": max(least, more) if unsure > rule.unsure else least,
    }


def chosen(dense: Stored, counts: Sequence[int], last: int, scores: TileScores) -> Masks:
    """The tiles visited where the last pass has a number of its own."""
    return choose(dense, (*counts[:-1], last), scores)
