"""What a model sees of samples: numbers of the whole raster, the same in every tile and pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, pass_of, several_passes

from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import Result

NODATA = 60000
HOLE = np.s_[5:40, 11:60]
GLANCE = 4


def raster(bands: int = 2) -> np.ndarray:
    """Reflectances with a hole, whose sides are multiples of the glance's pixels."""
    pixels = (noise(96, 128, bands, "uint16") // 7).astype(np.uint16)
    pixels += np.arange(bands, dtype=np.uint16) * 1000
    pixels[HOLE] = NODATA
    return pixels


def recipe(normalise: Any, nodata: str = "fill", **model: Any) -> dict[str, Any]:
    """Two passes that answer with what they see; the second visits everything."""
    passes = [
        pass_of("glance", "echo", GLANCE, tile=16, options={"classes": 2}),
        pass_of("fine", "echo", 1, tile=16, select={"by": "all"}, options={"classes": 2}),
    ]
    for one in passes:
        one["model"] |= {"normalise": normalise, "nodata": nodata, **model}
    return several_passes(passes)


def averaged(pixels: np.ndarray) -> np.ndarray:
    """The glance's plane: means of valid pixels, rounded; NaN where there are none. Oracle."""
    values = np.where(pixels == NODATA, np.nan, pixels.astype(np.float64))
    height, width, bands = values.shape
    blocks = values.reshape(height // GLANCE, GLANCE, width // GLANCE, GLANCE, bands)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="empty slice"):
        means: np.ndarray = np.rint(np.nanmean(blocks, axis=(1, 3)))
    return means


def seen(result: Result, name: str) -> np.ndarray:
    """``(h, w, bands)``: what the model of a pass was given."""
    return np.moveaxis(np.asarray(result.passes[name].scores), 0, -1)


def where_data_is() -> np.ndarray:
    valid: np.ndarray = (raster() != NODATA).any(axis=-1)
    return valid


@pytest.mark.parametrize("workers", ["local:1", "local:3"])
def test_percentiles_are_those_of_valid_pixels_of_the_glance_in_every_pass(
    lab: Lab, workers: str
) -> None:
    pixels, valid = raster(), where_data_is()
    normalise = {"by": "percentiles", "low": 3, "high": 97}
    result = lab.run(recipe(normalise), FakeSource(pixels, nodata=NODATA), workers)
    low, high = np.nanpercentile(averaged(pixels), (3, 97), axis=(0, 1))
    wanted = np.clip((pixels - low) / (high - low), 0, 1)
    np.testing.assert_allclose(seen(result, "fine")[valid], wanted[valid], atol=2e-6)
    known = result.plan.statistics
    assert known is not None
    assert [dict(band.percentiles) for band in known] == [
        {3: pytest.approx(low[i]), 97: pytest.approx(high[i])} for i in range(2)
    ]


def test_standard_is_by_mean_and_deviation_and_replaces_the_models_own(lab: Lab) -> None:
    pixels, valid = raster(), where_data_is()
    result = lab.run(recipe({"by": "standard"}), FakeSource(pixels, nodata=NODATA))
    glance = averaged(pixels)
    mean, std = np.nanmean(glance, axis=(0, 1)), np.nanstd(glance, axis=(0, 1))
    np.testing.assert_allclose(
        seen(result, "fine")[valid], ((pixels - mean) / std)[valid], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("fixed", "wanted"),
    [
        ({"low": [100, 200], "high": [5000, 9000]}, lambda p: np.clip((p - 100) / 4900, 0, 1)),
        ({"mean": [1000], "std": [500]}, lambda p: (p - 1000.0) / 500),
    ],
)
def test_fixed_numbers_are_taken_as_they_are(lab: Lab, fixed: Any, wanted: Any) -> None:
    pixels, valid = raster(), where_data_is()
    source = FakeSource(pixels, nodata=NODATA)
    result = lab.run(recipe({"by": "fixed", **fixed}), source)
    found = seen(result, "fine")[valid][:, 0]
    np.testing.assert_allclose(
        found, wanted(pixels[valid][:, 0].astype(float)), rtol=1e-4, atol=1e-5
    )


def test_a_raster_without_gaps_and_normalisation_is_read_only_once(lab: Lab) -> None:
    source = FakeSource(noise(64, 64))
    result = lab.run(several_passes([pass_of("glance", "echo", 1, tile=16)], "uint8"), source)
    assert result.plan.statistics is None
    assert sum(box.area for box in source.reads) == 64 * 64


def test_the_plan_keeps_the_numbers(lab: Lab) -> None:
    result = lab.run(recipe({"by": "standard"}), FakeSource(raster(), nodata=NODATA))
    plan = result.plan
    assert type(plan).from_json(plan.to_json()) == plan
    assert len({layout.inputs for layout in plan.passes}) == 1
    assert plan.passes[0].inputs.zero == tuple(band.mean for band in plan.statistics or ())


def test_an_image_for_which_there_is_not_one_fixed_value_per_band_is_set_aside(lab: Lab) -> None:
    three = {"by": "fixed", "mean": [1, 2, 3], "std": [1, 1, 1]}
    summary = lab.run_all(recipe(three), {"two": FakeSource(raster(), nodata=NODATA)})
    assert "one per band (2) expected; found 3" in summary.quarantined["two"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"normalise": {"by": "standard"}, "mean": [0.5]}, "normalise takes the place of mean"),
        ({"normalise": {"by": "percentiles"}, "scale": 255}, "takes the place of scale"),
        ({"normalise": {"by": "fixed", "low": [0], "std": [1]}}, "low and high, or mean and std"),
        ({"normalise": {"by": "fixed", "low": [3], "high": [2]}}, "low is below high"),
        ({"normalise": {"by": "percentiles", "low": 9, "high": 9}}, "low is below high"),
        ({"normalise": {"by": "fixed", "mean": [3], "std": [0]}}, "std is positive"),
    ],
)
def test_what_contradicts_itself_is_refused(model: dict[str, Any], message: str) -> None:
    one = {"name": "one", "resolution": {"level": 0}, "model": {"source": "a.py:b", **model}}
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"passes": [one]})
