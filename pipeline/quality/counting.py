"""Counting truth per step of score: what precision, recall, Dice and calibration are made of.

A stored uint8 score has 256 values, which are counted one by one: everything derived is exact.
Float scores are put on as many steps as a histogram of moderate size holds. Knows no threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UINT8_STEPS = 256
FLOAT_STEPS = 1 << 12
"""Steps that float scores in [0, 1] are put on."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCounts:
    """Pixels by score and by truth, per class; sums of it are counts of more pixels."""

    negatives: np.ndarray
    """``(classes, steps)`` int64: pixels that don't belong to the class, by step of its score."""
    positives: np.ndarray
    """``(classes, steps)`` int64: pixels that do."""

    @classmethod
    def none(cls, classes: int, dtype: np.dtype[np.generic]) -> ScoreCounts:
        """Nothing counted yet, for scores of a stored type."""
        steps = UINT8_STEPS if dtype == np.uint8 else FLOAT_STEPS
        zero = np.zeros((classes, steps), np.int64)
        return cls(zero, zero.copy())

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.positives)

    @property
    def scores(self) -> np.ndarray:
        """``(steps,)`` float64: the score that each step stands for, in [0, 1]."""
        steps = self.positives.shape[1]
        scores: np.ndarray = np.arange(steps) / (steps - 1)
        return scores

    def only(self, index: int) -> ScoreCounts:
        """The counts of one class."""
        return ScoreCounts(self.negatives[[index]], self.positives[[index]])

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        if self.positives.shape != other.positives.shape:
            raise ValueError(
                f"counts of the same classes and steps expected; found {self.positives.shape} and "
                f"{other.positives.shape}"
            )
        return ScoreCounts(self.negatives + other.negatives, self.positives + other.positives)

    def counted(
        self, scores: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None
    ) -> ScoreCounts:
        """These counts and those of one block.

        Args:
            scores: ``(classes, h, w)`` uint8 (probabilities times 255) or floats in [0, 1]; NaN is
                not counted.
            truth: ``(classes, h, w)`` bool.
            where: ``(h, w)`` bool, pixels that count; None for all.
        """
        parts = [
            _count(one, true, where, self.positives.shape[1])
            for one, true in zip(scores, truth, strict=True)
        ]
        negatives, positives = np.stack(parts, axis=1)
        return ScoreCounts(self.negatives + negatives, self.positives + positives)


def steps_of(scores: np.ndarray, steps: int) -> np.ndarray:
    """The step that each score falls on; floats are rounded to the nearest."""
    if scores.dtype == np.uint8 and steps == UINT8_STEPS:
        return scores
    factor = (steps - 1) / (255 if scores.dtype == np.uint8 else 1)
    on: np.ndarray = np.rint(np.clip(scores.astype(np.float64) * factor, 0, steps - 1))
    return on.astype(np.int64)


def _count(
    scores: np.ndarray, truth: np.ndarray, where: np.ndarray | None, steps: int
) -> np.ndarray:
    """``(2, steps)`` int64: pixels without and with the class."""
    if scores.dtype.kind == "f":
        known = ~np.isnan(scores)
        where = known if where is None else where & known
    if where is not None and not where.all():
        scores, truth = scores[where], truth[where]
    on = steps_of(scores, steps)
    every = np.bincount(on.ravel(), minlength=steps)
    positives = np.bincount(on[truth], minlength=steps)
    return np.stack([every - positives, positives])
