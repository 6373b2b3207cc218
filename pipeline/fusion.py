"""Composing passes: a coarser and a finer answer in, one answer out. Pure and elementwise.

Every fuser takes scores of the same classes at the same pixels. Bringing them there is the task of
``map_classes`` and ``resampling.upsample``; averaging windows of one pass is that of ``blending``;
storing is that of ``scores``. Their functions can be had from here too. Knows no file and no model.

Whatever the fuser: where only one of the two was computed (the other is NaN) that one passes
through, and where both say the same that is the answer (*residual* excepted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np

from saccade.pipeline.blending import Blend, hann_weights
from saccade.pipeline.recipe import Fuse
from saccade.pipeline.resampling import (
    coarse_box_for,
    halve_mean,
    halve_mode,
    halve_valid,
    upsample,
)
from saccade.pipeline.scores import dequantise, label, quantise
from saccade.pipeline.signals import BACKGROUND, margin_uncertainty

__all__ = [
    "FUSERS",
    "Blend",
    "coarse_box_for",
    "dequantise",
    "fuse",
    "halve_mean",
    "halve_mode",
    "halve_valid",
    "hann_weights",
    "label",
    "map_classes",
    "quantise",
    "upsample",
]

Fuser = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Coarse and fine ``(C, h, w) float32`` -> ``(C, h, w) float32``."""

LOGIT_EPS = np.float32(2**-10)
"""Scores are kept this far from 0 and 1 before their logits are averaged: less than half a step of
stored uint8, so that 0 with 0 stays 0, and neither pass has a veto."""


def map_classes(
    scores: np.ndarray, classes: Sequence[str], out_classes: Sequence[str]
) -> np.ndarray:
    """Scores of a pass as scores of the result's classes, by name.

    A class that the pass does not know is 0; a background that it does not know is 1 - the sum of
    the classes that it shares with the result, cut off at 0.

    Args:
        scores: ``(C, h, w)`` float32 in [0, 1].
        classes: their names.
        out_classes: names wanted, in order.

    Returns:
        ``(len(out_classes), h, w)`` float32; ``scores`` itself where the names are the same.
    """
    if tuple(classes) == tuple(out_classes):
        return scores
    known = {name: scores[i] for i, name in enumerate(classes)}
    mapped = np.zeros((len(out_classes), *scores.shape[1:]), np.float32)
    for i, name in enumerate(out_classes):
        if name in known:
            mapped[i] = known[name]
    if BACKGROUND in out_classes and BACKGROUND not in known:
        mapped[list(out_classes).index(BACKGROUND)] = np.clip(1 - _class_sum(mapped), 0, 1)
    return mapped


def _class_sum(scores: np.ndarray) -> np.ndarray:
    """Sum over classes, always in the same order: numpy's own depends on the shape."""
    return reduce(np.add, scores)


def _finest(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The finer answer."""
    return fine


def _mean(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The mean of both."""
    mean: np.ndarray = (coarse + fine) * np.float32(0.5)
    return mean


def _mean_logit(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The score whose logit is the mean of both logits.

    It equals g / (g + h) with g the geometric mean of the scores and h that of their complements.
    Where the scores of several classes sum to one on both sides, those of the result do as well.
    """
    a, b = (np.clip(scores, LOGIT_EPS, 1 - LOGIT_EPS) for scores in (coarse, fine))
    yes, no = np.sqrt(a * b), np.sqrt((1 - a) * (1 - b))
    mean = yes / (yes + no)
    if len(mean) > 1:
        shares = _sums_to_one(coarse) & _sums_to_one(fine)
        mean = mean / np.where(shares, _class_sum(mean), np.float32(1))
    return np.where((coarse == fine).all(axis=0), fine, mean)


def _sums_to_one(scores: np.ndarray) -> np.ndarray:
    """Per pixel, whether the classes share one unit of probability, rounding to uint8 allowed."""
    shares: np.ndarray = np.abs(_class_sum(scores) - 1) <= np.float32(len(scores) / 255)
    return shares


def _max(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The higher of both."""
    higher: np.ndarray = np.maximum(coarse, fine)
    return higher


def _residual(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The coarser answer corrected by the finer, which says 0.5 where it agrees."""
    corrected: np.ndarray = np.clip(coarse + (2 * fine - 1), 0, 1)
    return corrected


def _confidence_gated(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The finer answer in so far as the coarser is unsure and the finer is sure.

    With the margin uncertainties u, the finer one's weight is q / (q + 1 - u_coarse), where
    q = u_coarse (1 - u_fine) is the score by which MagNet picks the pixels to refine (Huynh et
    al., *Progressive Semantic Segmentation*, CVPR 2021, section 3.3). A coarser answer that is sure
    stays.
    """
    unsure_coarse, unsure_fine = margin_uncertainty(coarse), margin_uncertainty(fine)
    gain = unsure_coarse * (1 - unsure_fine)
    total = gain + (1 - unsure_coarse)
    weight = np.divide(gain, total, out=np.zeros_like(gain), where=total > 0)
    change = fine - coarse
    # From the nearer end, so that weights 0 and 1 give either answer exactly.
    gated: np.ndarray = np.where(
        weight < 0.5, coarse + weight * change, fine - (1 - weight) * change
    )
    return gated


FUSERS: Mapping[Fuse, Fuser] = {
    "finest": _finest,
    "mean": _mean,
    "mean_logit": _mean_logit,
    "max": _max,
    "residual": _residual,
    "confidence_gated": _confidence_gated,
}
"""By the name that a recipe gives them."""


def fuse(name: Fuse, coarse: np.ndarray, fine: np.ndarray, where: np.ndarray) -> np.ndarray:
    """One answer from two.

    Args:
        name: the fuser.
        coarse: ``(C, h, w)`` float32 in [0, 1], the answer so far; NaN where there is none.
        fine: likewise, the finer pass's answer.
        where: ``(h, w)`` bool, pixels that the finer pass answered.

    Returns:
        A new ``(C, h, w)`` float32 array; outside of ``where`` it is ``coarse``, bit for bit.
    """
    if not where.any():
        return coarse.copy()
    fused = FUSERS[name](coarse, fine)
    if name != "finest":
        fused = np.where(np.isnan(coarse), fine, fused)
    return np.where(where & ~np.isnan(fine), fused, coarse)
