"""Stored scores and what they stand for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saccade.pipeline.scores import dequantise, label, quantise

EVERY_BYTE = np.arange(256, dtype=np.uint8)
STORED = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)))


def test_storing_what_was_read_gives_the_same_bytes() -> None:
    assert (quantise(dequantise(EVERY_BYTE), "uint8") == EVERY_BYTE).all()


def test_a_stored_byte_is_a_probability_times_255() -> None:
    assert dequantise(EVERY_BYTE).dtype == np.float32
    expected = [float(Fraction(i, 255)) for i in range(256)]
    assert (dequantise(EVERY_BYTE) == np.array(expected, np.float32)).all()


@given(st.floats(0, 1, width=32))
def test_a_probability_is_stored_within_half_a_step(p: float) -> None:
    stored = quantise(np.array([p], np.float32), "uint8")
    assert stored.dtype == np.uint8
    assert abs(int(stored[0]) - p * 255) <= 0.5 + 1e-4


def test_what_is_no_probability_is_cut_off_and_nothing_is_0() -> None:
    wild = np.array([-1, -0.001, 1.001, 7, np.inf, -np.inf, np.nan], np.float32)
    assert quantise(wild, "uint8").tolist() == [0, 0, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_floats_keep_nan_and_read_back_as_float32(dtype: str) -> None:
    scores = np.array([0, 0.25, 1, np.nan], np.float32)
    stored = quantise(scores, dtype)  # type: ignore[arg-type]
    assert stored.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(dequantise(stored), scores)
    assert dequantise(stored).dtype == np.float32


@given(STORED, st.floats(0, 1))
def test_stored_scores_and_what_they_stand_for_have_the_same_labels(
    stored: np.ndarray, threshold: float
) -> None:
    found = label(stored, threshold)
    assert found.dtype == np.uint8
    assert found.shape == stored.shape[1:]
    assert (found == label(dequantise(stored), threshold)).all()


@given(STORED)
def test_of_several_classes_the_strongest_is_the_label_and_of_equal_ones_the_first(
    stored: np.ndarray,
) -> None:
    stored = np.concatenate([stored, stored[:1] // 2])
    assert (label(stored, 0.5) == np.argmax(stored, axis=0)).all()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_a_single_class_is_labelled_where_it_reaches_the_threshold(threshold: float) -> None:
    at = np.float32(threshold)
    scores = np.array([[[0, np.nextafter(at, np.float32(0)), at, 1]]], np.float32)
    assert label(scores, threshold).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("classes", [1, 3])
def test_what_was_not_computed_has_the_reserved_label(classes: int) -> None:
    scores = np.zeros((classes, 1, 2), np.float32)
    scores[-1, 0, 1] = np.nan
    assert label(scores, 0.5).tolist() == [[0, 255]]


def test_more_classes_than_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 255 classes; found 256"):
        label(np.zeros((256, 1, 1), np.uint8), 0.5)
