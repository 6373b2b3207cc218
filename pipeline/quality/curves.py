"""What follows from the counts of one class: curves, average precision, Dice, calibration. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15
"""Bins of equal width, as usual for the expected calibration error."""


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecall:
    """Precision and recall at every threshold that is the score of some pixel, falling."""

    thresholds: np.ndarray
    """``(n,)`` float64, falling: a pixel is predicted where its score is at least this."""
    precision: np.ndarray
    """``(n,)`` float64: share of the predicted pixels that belong to the class."""
    recall: np.ndarray
    """``(n,)`` float64: share of the pixels of the class that are predicted; NaN without any."""


def precision_recall(
    negatives: np.ndarray, positives: np.ndarray, scores: np.ndarray
) -> PrecisionRecall:
    """The curve of one class.

    Args:
        negatives: ``(steps,)`` pixels that don't belong to the class, by rising score.
        positives: ``(steps,)`` pixels that do.
        scores: ``(steps,)`` the score of each step, rising.
    """
    used = np.flatnonzero(negatives + positives)[::-1]
    true = np.cumsum(positives[used]).astype(np.float64)
    predicted = true + np.cumsum(negatives[used])
    total = float(positives.sum())
    recall = true / total if total else np.full(len(used), math.nan)
    return PrecisionRecall(scores[used], true / predicted, recall)


def average_precision(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Area under the precision-recall curve as the sum of steps, without interpolation.

    ``sum of (R_n - R_{n-1}) P_n`` over falling thresholds; pixels of equal score are one step, so
    that their order does not matter. Constant scores give the prevalence. NaN where no pixel
    belongs to the class.
    """
    curve = precision_recall(negatives, positives, np.arange(len(positives)))
    if not positives.any():
        return math.nan
    return float(np.diff(curve.recall, prepend=0) @ curve.precision)


def dice(negatives: np.ndarray, positives: np.ndarray, scores: np.ndarray, at: float) -> float:
    """Dice coefficient of the pixels whose score is at least ``at``.

    NaN where none belongs to the class and none is predicted.
    """
    predicted = scores >= at - _slack(scores)
    true = int(positives[predicted].sum())
    size = true + int(negatives[predicted].sum()) + int(positives.sum())
    return 2 * true / size if size else math.nan


def best_threshold(negatives: np.ndarray, positives: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the highest Dice, of equal ones the highest; NaN without positives."""
    if not positives.any():
        return math.nan
    true, predicted = (np.cumsum(n[::-1])[::-1] for n in (positives, positives + negatives))
    at_least = 2 * true / (predicted + positives.sum())
    last = len(scores) - 1 - int(np.argmax(at_least[::-1]))
    return float(scores[last])


def calibration_error(
    negatives: np.ndarray,
    positives: np.ndarray,
    scores: np.ndarray,
    bins: int = CALIBRATION_BINS,
) -> float:
    """Expected calibration error: mean distance of score and observed share, over bins of scores.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017, section 2, for one class against the rest. NaN where nothing was counted.
    """
    every = negatives + positives
    if not every.any():
        return math.nan
    at = np.minimum((scores * bins).astype(np.int64), bins - 1)
    expected = np.bincount(at, every * scores, bins)
    observed = np.bincount(at, positives, bins)
    return float(np.abs(expected - observed).sum() / every.sum())


def _slack(scores: np.ndarray) -> float:
    """How far a threshold may lie above its step: it was rounded when it was written down."""
    return float(scores[1] - scores[0]) / 1000
