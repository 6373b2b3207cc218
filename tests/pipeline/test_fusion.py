"""Fusers: what each one promises, and what all of them do."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline import fusion
from saccade.pipeline.fusion import FUSERS, fuse, map_classes, quantise
from saccade.pipeline.recipe import Fuse

NAMES: tuple[Fuse, ...] = get_args(Fuse)
SEEDS = st.integers(0, 997)
AGREEING = [name for name in NAMES if name != "residual"]


def scores(seed: int, classes: int, *, softmax: bool = False) -> np.ndarray:
    """``(classes, 5, 7)`` with some exact zeros and ones."""
    generator = np.random.default_rng(seed)
    raw = np.clip(generator.random((classes, 5, 7)) * 1.4 - 0.2, 0, 1)
    if softmax:
        raw = (raw + 0.01) / (raw + 0.01).sum(axis=0)
    return raw.astype(np.float32)


def one(p: float) -> np.ndarray:
    return np.full((1, 1, 1), p, np.float32)


def two(p: float) -> np.ndarray:
    return np.array([[[p]], [[1 - p]]], np.float32)


EVERYWHERE = np.ones((1, 1), bool)


def test_there_is_a_fuser_for_every_name_that_a_recipe_may_give() -> None:
    assert set(FUSERS) == set(NAMES)


def test_everything_a_unit_composes_with_can_be_had_from_one_place() -> None:
    assert all(hasattr(fusion, name) for name in fusion.__all__)


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_outside_the_mask_the_coarse_answer_is_unchanged_bit_for_bit(
    name: Fuse, seed: int, classes: int, none_answered: bool
) -> None:
    coarse, fine = scores(seed, classes), scores(seed + 1, classes)
    coarse[:, 0, 0] = np.nan
    where = np.random.default_rng(seed).random((5, 7)) < (0 if none_answered else 0.5)
    found = fuse(name, coarse, fine, where)
    assert found[:, ~where].tobytes() == coarse[:, ~where].tobytes()
    assert found.dtype == np.float32
    assert not np.shares_memory(found, coarse)
    assert not np.shares_memory(found, fine)


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_a_fused_answer_is_a_score(name: Fuse, seed: int, classes: int, softmax: bool) -> None:
    pair = (scores(s, classes, softmax=softmax and classes > 1) for s in (seed, seed + 1))
    found = fuse(name, *pair, np.ones((5, 7), bool))
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS, st.integers(1, 9))
def test_a_pixel_is_fused_alone_as_among_others(name: Fuse, seed: int, classes: int) -> None:
    coarse, fine = (scores(s, classes, softmax=classes > 2) for s in (seed, seed + 1))
    where = np.ones((5, 7), bool)
    whole = fuse(name, coarse, fine, where)
    for y, x in ((0, 0), (2, 3), (4, 6)):
        at = (slice(None), slice(y, y + 1), slice(x, x + 1))
        alone = fuse(name, coarse[at], fine[at], where[at[1:]])
        assert alone.tobytes() == whole[at].tobytes()


@pytest.mark.parametrize("name", AGREEING)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_where_both_agree_that_is_the_answer(
    name: Fuse, seed: int, classes: int, softmax: bool
) -> None:
    both = scores(seed, classes, softmax=softmax)
    assert (fuse(name, both, both, np.ones((5, 7), bool)) == both).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("score", [one, two])
def test_an_answer_without_a_counterpart_passes_through(name: Fuse, score: object) -> None:
    answer, nothing = score(0.7), score(np.nan)  # type: ignore[operator]
    assert (fuse(name, answer, nothing, EVERYWHERE) == answer).all()
    assert (fuse(name, nothing, answer, EVERYWHERE) == answer).all()
    assert np.isnan(fuse(name, nothing, nothing, EVERYWHERE)).all()


@pytest.mark.parametrize(
    ("name", "coarse", "fine", "expected"),
    [
        ("finest", 0.9, 0.2, 0.2),
        ("mean", 0.9, 0.2, 0.55),
        ("max", 0.9, 0.2, 0.9),
        ("max", 0.1, 0.2, 0.2),
        ("residual", 0.3, 0.5, 0.3),
        ("residual", 0.3, 0.7, 0.7),
        ("residual", 0.3, 0.2, 0.0),
        ("residual", 0.9, 0.7, 1.0),
        ("mean_logit", 0.9, 0.1, 0.5),
        ("confidence_gated", 0.5, 1.0, 1.0),
        ("confidence_gated", 0.5, 0.0, 0.0),
        ("confidence_gated", 0.3, 0.5, 0.3),
        ("confidence_gated", 1.0, 0.3, 1.0),
        ("confidence_gated", 0.7, 0.1, 0.7 - 0.6 * 0.48 / (0.48 + 0.4)),
    ],
)
def test_fusers_by_example(name: Fuse, coarse: float, fine: float, expected: float) -> None:
    found = fuse(name, one(coarse), one(fine), EVERYWHERE)
    assert found[0, 0, 0] == pytest.approx(expected, abs=1e-6)


@given(SEEDS)
def test_the_mean_logit_is_the_score_of_the_mean_of_logits(seed: int) -> None:
    pair = [scores(s, 1) for s in (seed, seed + 1)]
    eps = 2.0**-10
    clipped = [np.clip(p.astype(np.float64), eps, 1 - eps) for p in pair]
    mean = sum(np.log(p / (1 - p)) for p in clipped) / 2
    expected = np.where(pair[0] == pair[1], pair[0], 1 / (1 + np.exp(-mean)))
    np.testing.assert_allclose(
        fuse("mean_logit", *pair, np.ones((5, 7), bool)), expected, atol=1e-5
    )


@given(SEEDS, st.integers(2, 5))
def test_the_mean_logit_of_shares_is_one_of_shares(seed: int, classes: int) -> None:
    pair = [scores(s, classes, softmax=True) for s in (seed, seed + 1)]
    found = fuse("mean_logit", *pair, np.ones((5, 7), bool))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_nothing_with_nothing_is_stored_as_nothing() -> None:
    for name in AGREEING:
        for other in (0, 1e-4):
            found = fuse(name, one(0), one(other), EVERYWHERE)
            assert quantise(found, "uint8")[0, 0, 0] == 0


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
@pytest.mark.parametrize("score", [one, two])
def test_a_gated_answer_lies_between_both(score: object, coarse: float, fine: float) -> None:
    low, high = sorted((score(coarse)[0, 0, 0], score(fine)[0, 0, 0]))  # type: ignore[operator]
    found = fuse("confidence_gated", score(coarse), score(fine), EVERYWHERE)  # type: ignore[operator]
    assert low - 1e-6 <= found[0, 0, 0] <= high + 1e-6


@given(st.floats(0.5, 1, width=32), st.floats(0.5, 1, width=32))
def test_a_less_sure_coarse_answer_gives_way_more(a: float, b: float) -> None:
    fine = 0.25
    sure, unsure = max(a, b), min(a, b)
    kept = [
        (fuse("confidence_gated", one(p), one(fine), EVERYWHERE)[0, 0, 0] - fine) / (p - fine)
        for p in (unsure, sure)
    ]
    assert kept[0] <= kept[1] + 1e-5


# Classes


def test_classes_are_mapped_by_name() -> None:
    given_ = scores(3, 3)
    found = map_classes(given_, ("a", "b", "c"), ("c", "d", "a"))
    assert (found == np.stack([given_[2], np.zeros((5, 7)), given_[0]])).all()
    assert found.dtype == np.float32


def test_the_same_classes_are_the_same_scores() -> None:
    given_ = scores(3, 2)
    assert map_classes(given_, ["a", "b"], ("a", "b")) is given_


@given(SEEDS)
def test_a_background_that_a_pass_does_not_know_is_what_its_classes_leave(seed: int) -> None:
    given_ = scores(seed, 2)
    found = map_classes(given_, ("a", "b"), ("a", "background", "b"))
    assert (found[[0, 2]] == given_).all()
    np.testing.assert_allclose(found[1], np.clip(1 - given_.sum(axis=0), 0, 1), atol=1e-6)


def test_a_background_that_a_pass_knows_is_its_own() -> None:
    given_ = scores(5, 2)
    found = map_classes(given_, ("background", "b"), ("b", "background"))
    assert (found == given_[::-1]).all()
