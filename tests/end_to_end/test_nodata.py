"""Where the image has no data: nothing is computed, nothing is answered, and the result says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes

from saccade.pipeline.fusion import halve_mode
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN, STATUS_NODATA
from saccade.pipeline.result import Result

NODATA = 7
SEA = np.s_[:, 64:]
"""Whole tiles of every pass."""
LAKE = np.s_[20:30, 12:20]
"""A part of some."""
TILE = 16


def land(height: int = 96, width: int = 128) -> np.ndarray:
    """Bright noise with a sea and a lake without data."""
    pixels = noise(height, width) // 2 + np.uint8(100)
    pixels[SEA] = NODATA
    pixels[LAKE] = NODATA
    return pixels


def absent() -> np.ndarray:
    nothing: np.ndarray = (land() == NODATA).all(axis=-1)
    return nothing


def two_passes(scores: str = "uint8", select: Any = None, **model: Any) -> dict[str, Any]:
    options = {"classes": 2}
    passes = [
        pass_of("glance", "echo", 2, tile=TILE, options=options),
        pass_of("fine", "echo", 1, tile=TILE, options=options, select=select or {"by": "all"}),
    ]
    for one in passes:
        one["model"] |= model
    return several_passes(passes, scores, shard=32)


def seen_by_models(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """``(n, h, w, bands)`` of every batch that a model is given from now on, as 8-bit samples."""
    batches: list[np.ndarray] = []
    monkeypatch.setattr("saccade.workers.device.Predictor._answer", _told(batches))
    return batches


def _told(batches: list[np.ndarray]) -> Any:
    def listening(self: Any, views: Any) -> Any:
        batches.append(np.rint(views.pixels.permute(0, 2, 3, 1).numpy() * 255))
        return self.model(views)

    return listening


def labels_of(result: Result) -> np.ndarray:
    return np.asarray(result.labels)


@pytest.mark.parametrize("scores", ["uint8", "float32"])
@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_pixels_without_data_are_told_from_every_class_and_have_no_score(
    lab: Lab, scores: str, blend: str
) -> None:
    details = {"tile": TILE, "blend": blend, "chunk": 16, "options": {"classes": 2}}
    result = lab.run(one_pass("echo", scores, **details), FakeSource(land(), nodata=NODATA))
    labels, fused = labels_of(result), np.asarray(result.fused)
    np.testing.assert_array_equal(labels == LABEL_NODATA, absent())
    assert set(np.unique(labels[~absent()])) <= {0, 1}
    nothing = fused[:, absent()]
    assert np.isnan(nothing).all() if scores == "float32" else not nothing.any()
    expected = land()[..., :2].astype(np.float32) / 255
    found = np.moveaxis(np.asarray(result.scores), 0, -1)
    np.testing.assert_allclose(found[~absent()], expected[~absent()], atol=1e-6)


def test_tiles_without_data_are_never_computed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = seen_by_models(monkeypatch)
    recipe = one_pass("echo", "uint8", tile=TILE, window=TILE, batch=1, options={"classes": 2})
    result = lab.run(recipe, FakeSource(land(), nodata=NODATA))
    tiles = [batch for batch in batches if batch.shape[1:3] == (TILE, TILE)]
    assert sum(len(batch) for batch in tiles[-24:]) == 6 * 4
    assert result.summary()["passes"]["dense"] == {
        "tiles": 48,
        "visited": 48,
        "degraded": 0,
        "failed": 0,
        "nodata": 24,
    }
    assert result.summary()["nodata"] == result.summary()["answered"] == 0.5
    assert (result.status[:, 4:] == STATUS_NODATA).all()


def test_three_states_are_told_apart(lab: Lab) -> None:
    chosen = {"by": "top_fraction", "fraction": 0.25, "signal": "channel 0"}
    result = lab.run(two_passes(select=chosen), FakeSource(land(), nodata=NODATA))
    coverage = result.coverage
    assert set(np.unique(coverage)) == {1, 2, LABEL_NODATA}
    assert (coverage[:, 4:] == LABEL_NODATA).all()
    labels = labels_of(result)
    np.testing.assert_array_equal(labels == LABEL_NODATA, absent())
    assert not (labels == LABEL_UNKNOWN).any()


@pytest.mark.parametrize("workers", ["local:3"])
def test_what_is_found_does_not_depend_on_tiles_windows_or_workers(lab: Lab, workers: str) -> None:
    source = FakeSource(land(), nodata=NODATA)
    recipe = two_passes("float32")
    expected = lab.run(recipe, source)
    for one in recipe["passes"]:
        one |= {"window": 64, "batch": 3}
    found = lab.run(recipe, source, workers)
    np.testing.assert_array_equal(labels_of(found), labels_of(expected))
    np.testing.assert_array_equal(np.asarray(found.fused), np.asarray(expected.fused))


@pytest.mark.parametrize("nodata", ["fill", "keep"])
def test_the_value_of_nodata_reaches_a_model_only_where_asked(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, nodata: str
) -> None:
    batches = seen_by_models(monkeypatch)
    recipe = two_passes("uint8", nodata=nodata)
    for one in recipe["passes"]:
        one["halo"] = 4
    # probes of memory show windows of zeros, which is none of the image's samples
    lab.run(recipe, FakeSource(land(), nodata=NODATA))
    leaked = any((batch == NODATA).any() for batch in batches)
    assert leaked == (nodata == "keep")


def test_a_band_without_data_is_filled_where_another_has_some(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(32, 32) // 2 + np.uint8(100)
    pixels[3:9, 3:9, 1] = NODATA
    batches = seen_by_models(monkeypatch)
    recipe = one_pass("echo", "uint8", tile=32, options={"classes": 2})
    result = lab.run(recipe, FakeSource(pixels, nodata=NODATA))
    mean = np.rint(pixels[..., 1][pixels[..., 1] != NODATA].mean())
    found = next(b for b in reversed(batches) if b.shape[1:3] == (32, 32))
    assert (found[0, 3:9, 3:9, 1] == mean).all()
    assert not (labels_of(result) == LABEL_NODATA).any()


@pytest.mark.parametrize("scores", ["uint8", "float32"])
def test_lower_levels_are_means_of_pixels_with_data(lab: Lab, scores: str) -> None:
    recipe = one_pass("constant", scores, tile=TILE, chunk=16)
    result = lab.run(recipe, FakeSource(land(), nodata=NODATA))
    value = np.asarray(result.fused)[0, 0, 0]
    assert len(result.levels) > 2
    labels = labels_of(result)
    for level, wanted in zip(result.levels[1:], result.label_levels[1:], strict=True):
        labels = halve_mode(labels)
        np.testing.assert_array_equal(np.asarray(wanted), labels)
        known = np.asarray(level)[0][labels != LABEL_NODATA]
        assert (known == value).all()


def test_damage_is_not_taken_for_missing_data(lab: Lab) -> None:
    source = FakeSource(land(), nodata=NODATA, broken=(Box(0, 0, 3, 3),))
    recipe = one_pass("echo", "uint8", tile=TILE, options={"classes": 2})
    result = lab.run(recipe | {"max_bad_tiles": 0.5}, source)
    assert result.status[0, 0] == 255
    assert (labels_of(result)[:TILE, :TILE] == LABEL_UNKNOWN).all()


def test_a_raster_without_any_data_is_answered_nowhere(lab: Lab) -> None:
    source = FakeSource(np.full((48, 48, 3), NODATA, np.uint8), nodata=NODATA)
    result = lab.run(two_passes(normalise={"by": "percentiles"}), source)
    assert (labels_of(result) == LABEL_NODATA).all()
    assert result.summary()["answered"] == 0


def test_an_unfinished_result_knows_what_has_no_data(lab: Lab) -> None:
    result = lab.run(two_passes(), FakeSource(land(), nodata=NODATA))
    finished = labels_of(result)
    unfinished = Result(result._paths, result._run)
    unfinished.facts = {**unfinished.facts, "state": "running"}
    np.testing.assert_array_equal(labels_of(unfinished), finished)
    for found, wanted in zip(unfinished.levels, result.levels, strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    assert unfinished.summary()["answered"] == 0.5
