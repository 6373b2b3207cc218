"""From a predicted score to the gain that was measured: a calibration of selectors. Pure.

A saliency orders tiles; it does not say how much a closer look will change. Where that was measured
on images with truth (or against a dense run), a monotone curve turns scores into gains, so that a
threshold can be stated in what it is worth. ECO-M2F (Yao, Aich, Suh, Roy-Chowdhury, Shelton,
Chandraker, *Efficient Transformer Encoders for Mask2Former-style models*, arXiv 2404.15244) learns
its gate from such measured pairs: the quality that every exit reached on the training images, less
a price per layer (section 3, the utility of its steps B and C). Ours keeps the recipe of measuring
first and deciding by gain against price, and fits a curve of one variable instead of a network.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_KNOTS = 256
"""Pairs are gathered into at most so many groups before a curve is fitted: steps of a uint8."""


class GainCurve(BaseModel):
    """Gains at some scores, never falling; straight lines between them, constant beyond them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scores: tuple[float, ...] = Field(min_length=1, max_length=MOST_KNOTS)
    """Scores of a tile, ascending."""
    gains: tuple[float, ...] = Field(min_length=1, max_length=MOST_KNOTS)
    """The gain expected at each, in [0, 1]: for instance the mean change of the answer there."""

    @model_validator(mode="after")
    def _a_rising_curve(self) -> GainCurve:
        if len(self.scores) != len(self.gains):
            raise ValueError(
                f"one gain per score; found {len(self.scores)} scores, {len(self.gains)} gains"
            )
        if not all(np.isfinite((*self.scores, *self.gains))):
            raise ValueError("scores and gains are finite numbers; fit the curve again")
        if any(b <= a for a, b in pairwise(self.scores)):
            raise ValueError("scores ascend and differ; fit the curve with fit_gain")
        if any(b < a for a, b in pairwise(self.gains)):
            raise ValueError("gains never fall; fit the curve with fit_gain")
        return self

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """The gains expected at some scores: float32, NaN where the score is."""
        gains: np.ndarray = np.interp(scores, self.scores, self.gains).astype(np.float32)
        gains[np.isnan(scores)] = np.nan  # a curve of one knot would answer these, too
        return gains


def _not_a_path(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(
            "a calibration's values are expected here; a file is only read where it is named in a "
            "recipe's own file"
        )
    return value


Calibration = Annotated[GainCurve, BeforeValidator(_not_a_path)]
"""A curve as part of a recipe. In a recipe's file a path stands for it; loading the recipe takes
its values over, so that they are part of its fingerprint and of every run's record."""


def fit_gain(scores: np.ndarray, gains: np.ndarray, weights: np.ndarray | None = None) -> GainCurve:
    """The never falling curve nearest to measured pairs, by least squares.

    Isotonic regression by pooling adjacent violators (Barlow, Bartholomew, Bremner, Brunk,
    *Statistical Inference under Order Restrictions*, 1972, section 1.2).

    Args:
        scores: ``(n,)``, what was predicted for each tile.
        gains: ``(n,)``, what looking closer gained there.
        weights: ``(n,)``, positive, for instance pixels; alike if left out.

    Raises:
        ValueError: nothing was measured, or the arrays do not have one shape.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    if not (len(scores) and np.shape(scores) == np.shape(gains) == np.shape(weights)):
        raise ValueError(
            f"one gain and weight per score, and at least one; found {np.shape(scores)}, "
            f"{np.shape(gains)}, {np.shape(weights)}"
        )
    blocks: list[tuple[float, float, float]] = []
    for block in _grouped(np.asarray(scores), np.asarray(gains), np.asarray(weights)):
        while blocks and blocks[-1][1] >= block[1]:
            block = _pooled(blocks.pop(), block)
        blocks.append(block)
    return GainCurve(scores=tuple(b[0] for b in blocks), gains=tuple(b[1] for b in blocks))


def _grouped(
    scores: np.ndarray, gains: np.ndarray, weights: np.ndarray
) -> list[tuple[float, float, float]]:
    """Mean score, mean gain and weight of tiles with like scores, scores ascending."""
    _, group = np.unique(scores, return_inverse=True)
    if group.max() >= MOST_KNOTS:
        # groups of about one weight each; equal scores stay together
        before = np.cumsum(np.bincount(group, weights)) - np.bincount(group, weights)
        group = np.floor(before / weights.sum() * MOST_KNOTS).astype(np.int64)[group]
    total = np.bincount(group, weights)
    kept = total > 0
    means = (np.bincount(group, weights * a)[kept] / total[kept] for a in (scores, gains))
    return list(zip(*(column.tolist() for column in (*means, total[kept])), strict=True))


def _pooled(
    a: tuple[float, float, float], b: tuple[float, float, float]
) -> tuple[float, float, float]:
    weight = a[2] + b[2]
    return (a[0] * a[2] + b[0] * b[2]) / weight, (a[1] * a[2] + b[1] * b[2]) / weight, weight
