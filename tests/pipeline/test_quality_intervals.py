"""Sums over images: what they leave out, what they can't hide, when they say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saccade.pipeline.quality.agreement import Agreement
from saccade.pipeline.quality.gate import gate, retained
from saccade.pipeline.quality.intervals import paired_interval, spread

NAMES = [f"eye {n:02}" for n in range(41)]


def values(mean: float, deviation: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return dict(zip(NAMES, rng.normal(mean, deviation, len(NAMES)).tolist(), strict=True))


def test_a_spread_names_the_worst_image_and_leaves_undefined_ones_out() -> None:
    found = spread({"a": 0.5, "b": math.nan, "c": 0.1, "d": 0.1})
    assert (found.images, found.worst, found.worst_image) == (3, 0.1, "c")
    assert found.mean == pytest.approx(0.7 / 3)
    assert found.low == pytest.approx(np.percentile([0.5, 0.1, 0.1], 5))
    assert spread({"a": math.nan}).images == 0


def test_an_interval_is_repeatable_and_compares_pairs() -> None:
    hard = values(0.5, 0.3, seed=1)
    better = {name: value + 0.02 for name, value in hard.items()}
    found = paired_interval(better, hard)
    assert found == paired_interval(better, hard)
    assert found.low == pytest.approx(0.02)
    assert found.above_zero
    # of the same size, but between images that have nothing to do with one another
    assert not paired_interval(values(0.52, 0.3, seed=2), hard).above_zero


def test_an_interval_is_about_as_wide_as_theory_has_it() -> None:
    gaps, zero = values(0, 1, seed=3), dict.fromkeys(NAMES, 0.0)
    found = paired_interval(gaps, zero)
    error = np.std(list(gaps.values())) / math.sqrt(len(NAMES))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_images_that_only_one_side_has_do_not_count() -> None:
    assert paired_interval({"a": 1.0, "b": 2.0}, {"b": 1.5, "c": 9.0}).pairs == 1
    assert paired_interval({"a": 1.0}, {"b": 1.0}).pairs == 0
    assert paired_interval({"a": math.nan}, {"a": 1.0}).pairs == 0


def test_retention_is_undefined_unless_dense_fine_beats_dense_glance() -> None:
    glance = values(0.5, 0.1, seed=5)
    better = gate({name: value + 0.1 for name, value in glance.items()}, glance)
    assert better.open
    assert "beats" in str(better)
    swings = [0.1 if n % 2 else -0.1 for n in range(41)]
    same = gate({n: v + d for (n, v), d in zip(glance.items(), swings, strict=True)}, glance)
    assert not same.open
    assert "retention is undefined" in str(same)
    assert "no image" in str(gate({}, glance))
    assert retained(0.4, 0.5, better) == 0.8
    assert retained(0.4, 0.5, same) is None
    assert retained(0.4, 0.0) is None
    assert retained(0.4, math.nan) is None


def test_agreement_counts_pixels_that_both_answered_and_adds_up() -> None:
    scores = np.array([[[0, 51], [255, 255]]], np.uint8)
    dense = np.array([[[0, 0], [255, 0]]], np.uint8)
    labels, dense_labels = scores[0] > 127, dense[0] > 127
    where = np.array([[True, True], [False, True]])
    found = Agreement.of(scores, dense, labels, dense_labels, where)
    assert (found.labels_equal, found.mean_difference) == (2 / 3, pytest.approx(1.2 / 3))
    assert (found + found).mean_difference == pytest.approx(1.2 / 3)
    assert math.isnan(Agreement().labels_equal)
