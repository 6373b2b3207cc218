"""Gain curves: the least squares fit that never falls, and a recipe's file that holds one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.gain import MOST_KNOTS, GainCurve, fit_gain
from saccade.pipeline.recipe_file import load_recipe, parse_recipe, recipe_text
from saccade.pipeline.selectors import Threshold

RECIPE = """
passes:
  - {name: glance, resolution: {downsample: 8}, model: builtin:tissue}
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    select: {by: threshold, at_least: 0.05, calibration: curves/gain.json}
"""


def isotonic(gains: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """By the min-max formula: the largest over starts of the least mean over ends."""
    n = len(gains)
    return np.array(
        [
            max(
                min(np.average(gains[a : b + 1], weights=weights[a : b + 1]) for b in range(i, n))
                for a in range(i + 1)
            )
            for i in range(n)
        ]
    )


@given(st.integers(0, 9973), st.integers(1, 19))
def test_a_fit_is_the_isotonic_regression_of_the_pairs(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.permutation(97)[:count]) / 97
    gains, weights = generator.random(count), generator.uniform(1, 7, count)
    curve = fit_gain(scores, gains, weights)
    fitted = isotonic(gains, weights)
    # between the knots the curve is straight; at the mean score of each level it is the level
    assert list(curve.gains) == pytest.approx(np.unique(np.round(fitted, 12)).tolist())
    for knot, level in zip(curve.scores, curve.gains, strict=True):
        same = np.isclose(fitted, level)
        assert knot == pytest.approx(np.average(scores[same], weights=weights[same]))


@given(st.integers(0, 997), st.integers(1, 2003))
def test_a_curve_never_falls_and_keeps_within_what_was_measured(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    scores = np.round(generator.random(count), 3)
    gains = np.clip(scores**2 + generator.normal(0, 0.2, count), 0, 1)
    curve = fit_gain(scores, gains)
    assert len(curve.scores) <= MOST_KNOTS
    found = curve.apply(np.linspace(-0.5, 1.5, 211))
    assert (np.diff(found) >= 0).all()
    assert found.min() >= gains.min() - 1e-6
    assert found.max() <= gains.max() + 1e-6


def test_equal_scores_are_one_knot_whatever_their_order() -> None:
    scores, gains = np.array([0.5, 0.1, 0.5, 0.1]), np.array([0.4, 0.1, 0.8, 0.3])
    curve = fit_gain(scores, gains)
    assert curve.scores == (0.1, 0.5)
    assert curve.gains == pytest.approx((0.2, 0.6))
    assert fit_gain(scores[::-1], gains[::-1]) == curve


def test_what_has_no_score_has_no_gain() -> None:
    assert np.isnan(fit_gain(np.array([0.5]), np.array([0.1])).apply(np.array([np.nan]))).all()


def test_a_curve_survives_json() -> None:
    curve = fit_gain(np.linspace(0, 1, 31), np.linspace(0, 0.3, 31) ** 2)
    assert GainCurve.model_validate_json(curve.model_dump_json()) == curve


@pytest.mark.parametrize(
    ("scores", "gains", "message"),
    [
        ((0.1, 0.1), (0.2, 0.3), "scores ascend and differ"),
        ((0.1, 0.2), (0.3, 0.2), "gains never fall"),
        ((0.1, 0.2), (0.3,), "2 scores, 1 gains"),
        ((0.1, float("nan")), (0.2, 0.3), "finite"),
    ],
)
def test_what_is_no_rising_curve_is_refused(
    scores: tuple[float, ...], gains: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GainCurve(scores=scores, gains=gains)


def test_nothing_measured_can_not_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_gain(np.array([]), np.array([]))


# In a recipe


def written(folder: Path, curve: GainCurve) -> Path:
    (folder / "curves").mkdir(exist_ok=True)
    (folder / "curves" / "gain.json").write_text(curve.model_dump_json())
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_takes_the_values_of_the_file_over(tmp_path: Path) -> None:
    curve = GainCurve(scores=(0.1, 0.7), gains=(0.0, 0.2))
    recipe = load_recipe(written(tmp_path, curve))
    selector = recipe.passes[1].select
    assert isinstance(selector, Threshold)
    assert selector.calibration == curve
    assert parse_recipe(recipe_text(recipe)) == recipe  # as a run's folder keeps it


def test_another_calibration_is_another_recipe(tmp_path: Path) -> None:
    first = load_recipe(written(tmp_path, GainCurve(scores=(0.1, 0.7), gains=(0.0, 0.2))))
    other = load_recipe(written(tmp_path, GainCurve(scores=(0.1, 0.7), gains=(0.0, 0.3))))
    assert first.fingerprint() != other.fingerprint()


def test_a_file_that_is_missing_or_no_curve_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, GainCurve(scores=(0.1,), gains=(0.2,)))
    curve = tmp_path / "curves" / "gain.json"
    curve.write_text(json.dumps({"scores": [0.3, 0.2], "gains": [0.1, 0.2]}))
    with pytest.raises(RecipeError, match=r"recipe.yaml:7: .*calibration.*scores ascend"):
        load_recipe(path)
    curve.unlink()
    with pytest.raises(RecipeError, match=r"recipe.yaml: a calibration .*gain.json can't be read"):
        load_recipe(path)


def test_a_path_is_refused_where_no_file_can_be_meant() -> None:
    with pytest.raises(RecipeError, match="a file is only read where it is named in a recipe's"):
        parse_recipe(RECIPE)
