"""How far an answer is from a dense run's answer, without any truth. Pure; adds up over blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.scores import dequantise


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over pixels that both answered."""

    pixels: int = 0
    """That were compared."""
    same_labels: int = 0
    """Of them, those with the same label."""
    difference: float = 0.0
    """Sum of |dp| over pixels, each the mean over classes."""

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.pixels + other.pixels,
            self.same_labels + other.same_labels,
            self.difference + other.difference,
        )

    @property
    def labels_equal(self) -> float:
        """Share of the pixels with the same label; NaN without pixels."""
        return self.same_labels / self.pixels if self.pixels else math.nan

    @property
    def mean_difference(self) -> float:
        """Mean |dp|; NaN without pixels."""
        return self.difference / self.pixels if self.pixels else math.nan

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        dense: np.ndarray,
        labels: np.ndarray,
        dense_labels: np.ndarray,
        where: np.ndarray,
    ) -> Agreement:
        """Of one block.

        Args:
            scores: ``(classes, h, w)``, as stored.
            dense: likewise, of the dense run.
            labels: ``(h, w)`` uint8.
            dense_labels: likewise.
            where: ``(h, w)`` bool: pixels that both answered.
        """
        gap = np.abs(dequantise(scores) - dequantise(dense)).mean(axis=0)
        same = int((labels == dense_labels)[where].sum())
        return cls(int(where.sum()), same, float(gap[where].sum(dtype=np.float64)))
