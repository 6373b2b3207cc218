"""One number per image, summed up: mean, 5th percentile, worst image, and how sure that is. Pure.

A mean hides its tail, so none is told alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LOW_PERCENT = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over images; those for which it is not defined (NaN) are left out."""

    images: int
    """For how many it is defined."""
    mean: float
    """Over them; NaN where there is none."""
    low: float
    """5th percentile."""
    worst: float
    """Lowest."""
    worst_image: str
    """Whose that is, of equal ones the first; empty where there is none."""


def spread(values: Mapping[str, float]) -> Spread:
    """How a number is spread over images; higher is better."""
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if not known:
        return Spread(0, math.nan, math.nan, math.nan, "")
    array = np.array(list(known.values()))
    worst = min(known, key=lambda name: known[name])
    low = float(np.percentile(array, LOW_PERCENT))
    return Spread(len(known), float(array.mean()), low, known[worst], worst)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference between pairs, and where it may lie."""

    mean: float
    """Over the pairs; NaN without any."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""
    pairs: int
    """How many images both sides have a value for."""

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is; False without pairs."""
        return self.low > 0


def paired_interval(
    one: Mapping[str, float],
    other: Mapping[str, float],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean of ``one - other`` over images.

    B. Efron, R. J. Tibshirani, *An Introduction to the Bootstrap*, 1993, section 13.3: images are
    drawn with replacement, both sides of a pair together, because images differ more from one
    another than two answers on one image do.

    Args:
        one: a number per image.
        other: the number that it is compared with; only images that both have count.
        confidence: share of the bootstrap's means inside the interval.
        resamples: how many means are drawn.
        seed: of the drawing.
    """
    names = sorted(one.keys() & other.keys())
    gaps = np.array([one[name] - other[name] for name in names])
    gaps = gaps[~np.isnan(gaps)]
    if not len(gaps):
        return Interval(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(gaps, len(gaps)).mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(gaps.mean()), float(low), float(high), len(gaps))
