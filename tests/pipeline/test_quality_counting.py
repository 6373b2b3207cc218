"""Counts and what follows from them, against formulas written down a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saccade.pipeline.quality.counting import FLOAT_STEPS, ScoreCounts
from saccade.pipeline.quality.curves import (
    average_precision,
    best_threshold,
    calibration_error,
    dice,
    precision_recall,
)

SCORES = arrays(np.uint8, (13, 17), elements=st.sampled_from([0, 1, 3, 127, 128, 200, 254, 255]))
TRUTH = arrays(bool, (13, 17))


def counts_of(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of one class."""
    counts = ScoreCounts.none(1, scores.dtype).counted(scores[None], truth[None])
    return counts.negatives[0], counts.positives[0], counts.scores


def average_precision_by_hand(scores: np.ndarray, truth: np.ndarray) -> float:
    """Sum of (R_n - R_{n-1}) P_n, every distinct score a threshold."""
    if not truth.any():
        return math.nan
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.ravel().tolist()), reverse=True):
        predicted = scores >= threshold
        recall = (truth & predicted).sum() / truth.sum()
        area += (recall - before) * (truth & predicted).sum() / predicted.sum()
        before = recall
    return area


def dice_by_hand(scores: np.ndarray, truth: np.ndarray, step: int) -> float:
    predicted = scores >= step
    size = predicted.sum() + truth.sum()
    return 2 * (predicted & truth).sum() / size if size else math.nan


@given(scores=SCORES, truth=TRUTH)
def test_average_precision_is_the_sum_of_steps_and_ties_are_one_step(
    scores: np.ndarray, truth: np.ndarray
) -> None:
    negatives, positives, _ = counts_of(scores, truth)
    expected = average_precision_by_hand(scores, truth)
    assert average_precision(negatives, positives) == pytest.approx(expected, nan_ok=True)


@given(scores=SCORES, truth=TRUTH)
def test_dice_and_its_best_threshold_are_those_of_a_search(
    scores: np.ndarray, truth: np.ndarray
) -> None:
    counted = counts_of(scores, truth)
    by_hand = [dice_by_hand(scores, truth, step) for step in range(256)]
    for step in (0, 3, 128, 255):
        assert dice(*counted, at=step / 255) == pytest.approx(by_hand[step], nan_ok=True)
    best = best_threshold(*counted)
    if truth.any():
        assert dice(*counted, at=best) == pytest.approx(max(by_hand))
        assert round(best * 255) == max(i for i, d in enumerate(by_hand) if d == max(by_hand))
    else:
        assert math.isnan(best)


@given(scores=SCORES, truth=TRUTH, cut=st.integers(0, 13))
def test_counts_of_blocks_add_up(scores: np.ndarray, truth: np.ndarray, cut: int) -> None:
    whole = ScoreCounts.none(1, scores.dtype).counted(scores[None], truth[None])
    upper = ScoreCounts.none(1, scores.dtype).counted(scores[None, :cut], truth[None, :cut])
    lower = ScoreCounts.none(1, scores.dtype).counted(scores[None, cut:], truth[None, cut:])
    both = upper + lower
    np.testing.assert_array_equal(both.negatives, whole.negatives)
    np.testing.assert_array_equal(both.positives, whole.positives)


def test_float_scores_are_counted_on_fine_steps() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((211, 197)) < 0.03
    scores = np.clip(rng.normal(0.4 + 0.3 * truth, 0.2), 0, 1).astype(np.float32)
    negatives, positives, _ = counts_of(scores, truth)
    assert len(positives) == FLOAT_STEPS
    expected = average_precision_by_hand(np.rint(scores * (FLOAT_STEPS - 1)), truth)
    assert average_precision(negatives, positives) == pytest.approx(expected)


def test_pixels_without_an_answer_do_not_count() -> None:
    scores = np.array([[[0.2, np.nan, 0.9]]], np.float32)
    truth = np.array([[[False, True, True]]])
    counts = ScoreCounts.none(1, scores.dtype).counted(scores, truth)
    assert (counts.negatives.sum(), counts.positives.sum()) == (1, 1)
    where = np.array([[True, True, False]])
    counts = ScoreCounts.none(1, scores.dtype).counted(scores, truth, where)
    assert (counts.negatives.sum(), counts.positives.sum()) == (1, 0)


@given(truth=TRUTH)
def test_a_constant_answer_is_worth_the_prevalence_and_the_truth_itself_is_worth_1(
    truth: np.ndarray,
) -> None:
    empty = counts_of(np.zeros(truth.shape, np.uint8), truth)
    perfect = counts_of(truth.astype(np.uint8) * 255, truth)
    if truth.any():
        assert average_precision(*empty[:2]) == pytest.approx(truth.mean())
        assert average_precision(*perfect[:2]) == pytest.approx(1)
        assert dice(*perfect, at=0.5) == 1
    assert calibration_error(*perfect) == pytest.approx(0)


def test_the_curve_has_a_point_for_every_score_that_occurs() -> None:
    scores = np.array([[10, 10, 200, 90]], np.uint8)
    truth = np.array([[True, False, True, False]])
    curve = precision_recall(*counts_of(scores, truth))
    np.testing.assert_allclose(curve.thresholds * 255, [200, 90, 10])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 4])
    np.testing.assert_allclose(curve.recall, [0.5, 0.5, 1])


def test_calibration_is_the_mean_distance_of_score_and_share() -> None:
    scores = np.full((1, 10), 204, np.uint8)  # 0.8
    scores[0, 5:] = 51  # 0.2
    truth = np.zeros((1, 10), bool)
    truth[0, :3] = True  # observed 0.6 and 0
    assert calibration_error(*counts_of(scores, truth)) == pytest.approx(0.5 * 0.2 + 0.5 * 0.2)
