"""Signals: what a coarse answer says at every pixel about looking closer. Pure numpy.

Knows scores and the names of their classes; knows no tile, no selector and no threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from saccade.pipeline.errors import RecipeError

BACKGROUND = "background"
"""The class that is never salient."""
DOUBT = "doubt"
"""1 - a model's confidence: its own where it states one, else that of the margin. Selectors take
the highest first, so it is doubt, not confidence, that they are told to look at."""


def signal_map(
    signal: str, scores: np.ndarray, classes: Sequence[str], saliency: np.ndarray | None = None
) -> np.ndarray:
    """One signal at every pixel of a coarse answer.

    Args:
        signal: 'saliency' (``saliency`` where given, else the strongest class but background),
            'margin', 'entropy', 'doubt' (the margin: what a model that states no confidence of
            its own is worth), or the name of a class. The four words win over a class that bears
            the same name.
        scores: ``(C, h, w)`` in [0, 1]; NaN where nothing was computed.
        classes: their names.
        saliency: ``(h, w)`` in [0, 1], the model's own.

    Returns:
        ``(h, w)`` float32 in [0, 1]; NaN where the scores are.

    Raises:
        RecipeError: there is no such signal; the message names those there are.
    """
    if signal == "saliency":
        found = strongest_class(scores, classes) if saliency is None else saliency
    elif signal in ("margin", DOUBT):
        found = margin_uncertainty(scores)
    elif signal == "entropy":
        found = entropy_uncertainty(scores)
    elif signal in classes:
        found = scores[list(classes).index(signal)]
    else:
        known = ", ".join(["saliency", "margin", "entropy", DOUBT, *classes])
        raise RecipeError(f"a selector's signal is one of {known}; found {signal!r}")
    return np.asarray(found, np.float32)


def strongest_class(scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The highest score but the background's, ``(h, w)``; the only one where there is one."""
    shown = [s for s, name in zip(scores, classes, strict=True) if name != BACKGROUND]
    found: np.ndarray = np.maximum.reduce(shown or list(scores))
    return found


def margin_uncertainty(scores: np.ndarray) -> np.ndarray:
    """1 - (best - second best score), ``(h, w)`` in [0, 1]; a single class against its rest."""
    first: np.ndarray
    first, *others = [scores[0], 1 - scores[0]] if len(scores) == 1 else scores
    second = np.full_like(first, -np.inf)
    for score in others:
        second = np.maximum(second, np.minimum(first, score))
        first = np.maximum(first, score)
    unsure: np.ndarray = 1 - (first - second)
    return unsure


def entropy_uncertainty(scores: np.ndarray) -> np.ndarray:
    """Entropy in units of its maximum, ``(h, w)`` in [0, 1]; a single class against its rest.

    Scores of several classes are taken as they are, so that a pixel in which no class shows counts
    as sure; what overlapping classes have above the maximum is cut off.
    """
    outcomes = [scores[0], 1 - scores[0]] if len(scores) == 1 else list(scores)
    surprise: np.ndarray = np.zeros_like(outcomes[0])
    for p in outcomes:
        surprise -= p * np.log(np.where(p > 0, p, np.where(np.isnan(p), np.nan, 1)))
    unsure: np.ndarray = np.clip(surprise / np.float32(math.log(len(outcomes))), 0, 1)
    return unsure
