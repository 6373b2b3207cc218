"""Scores as they are stored, and the labels they stand for. Pure numpy.

A stored uint8 is a probability times 255. Knows no file and no pass.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.recipe import ScoreType

UINT8_SCALE = np.float32(255)
"""Stored steps per unit of probability."""


def quantise(scores: np.ndarray, dtype: ScoreType) -> np.ndarray:
    """Scores in [0, 1] as they are stored.

    As uint8: to the nearest of 255 steps, what lies outside cut off, NaN (*not computed*) to 0, the
    fill that costs no storage. Floats keep NaN.
    """
    if dtype != "uint8":
        return scores.astype(dtype)
    steps = np.multiply(scores, UINT8_SCALE, dtype=np.float32)
    np.rint(steps, out=steps)
    # fmax, unlike maximum, takes 0 over NaN.
    np.fmax(steps, np.float32(0), out=steps)
    np.minimum(steps, UINT8_SCALE, out=steps)
    stored: np.ndarray = steps.astype(np.uint8)
    return stored


def dequantise(stored: np.ndarray) -> np.ndarray:
    """Stored scores as float32; storing them again gives the same bytes."""
    if stored.dtype == np.uint8:
        probabilities: np.ndarray = np.divide(stored, UINT8_SCALE, dtype=np.float32)
        return probabilities
    return np.asarray(stored, np.float32)


def label(scores: np.ndarray, threshold: float, reserved: int = 255) -> np.ndarray:
    """The class of every pixel.

    Args:
        scores: ``(C, h, w)``, stored or not: uint8 and what it stands for give the same labels.
        threshold: in [0, 1]; a single class is labelled 1 where its score is at least this, else 0.
            Of several classes the strongest is taken, of equal ones the first.
        reserved: label of a pixel with a NaN score.

    Returns:
        ``(h, w)`` uint8.

    Raises:
        ValueError: more classes than labels.
    """
    if len(scores) > reserved:
        raise ValueError(f"labels hold at most {reserved} classes; found {len(scores)}")
    labels = _reaches(scores[0], threshold) if len(scores) == 1 else _strongest(scores)
    if scores.dtype.kind == "f":
        for score in scores:
            labels[np.isnan(score)] = reserved
    return labels


def _reaches(score: np.ndarray, threshold: float) -> np.ndarray:
    at_least = np.float32(threshold)
    if score.dtype == np.uint8:
        score = dequantise(np.arange(256, dtype=np.uint8))[score]
    reached: np.ndarray = score.astype(np.float32, copy=False) >= at_least
    return reached.astype(np.uint8)


def _strongest(scores: np.ndarray) -> np.ndarray:
    best = scores[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index, score in enumerate(scores[1:], start=1):
        # Indices ascend, so the larger is the later; masked assignment is ten times slower.
        stronger = np.greater(score, best).view(np.uint8)
        np.maximum(labels, stronger * np.uint8(index), out=labels)
        np.maximum(best, score, out=best)
    return labels
