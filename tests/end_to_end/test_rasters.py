"""Real rasters from file to result: each holds a trap that pathology-minded code falls into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.result import Result, open_result

rasterio = pytest.importorskip("rasterio", reason="needs the extra 'geo'")

EXAMPLES = Path(__file__).parents[2] / "examples" / "rasters"
OPTIONS = RunOptions(workers="local:1", device="cpu")
MODEL = """\
import torch
from torch import nn

class Ramp(nn.Module):
    saccade = {"classes": ("low", "high"), "halo_px": 0, "channels": CHANNELS}

    def forward(self, x):
        high = (x.mean(1, keepdim=True) - MIDDLE).sigmoid()
        return torch.cat([1 - high, high], 1)
"""
RECIPE = """\
version: 1
passes:
  - {name: glance, resolution: {downsample: 4}, model: &ramp {source: 'ramp.py:Ramp', scale: 1}}
  - {name: refine, resolution: {level: 0}, model: *ramp, tile: 256, select: SELECT}
output: {scores: float32}
"""
SOME = "{by: top_fraction, fraction: 0.3, signal: high, statistic: mean}"

Ran = Callable[..., Result]


@pytest.fixture
def rasters(data: Path) -> Path:
    folder = data / "rasters"
    if not folder.is_dir():
        pytest.skip(f"{folder} not found; set SACCADE_TEST_DATA")
    return folder


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """Runs a recipe of two passes that call what is above a middle high."""

    def running(raster: Path, channels: int, middle: float, select: str = "{by: all}") -> Result:
        model = MODEL.replace("CHANNELS", str(channels)).replace("MIDDLE", repr(middle))
        (tmp_path / "ramp.py").write_text(model)
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.replace("SELECT", select))
        return the_result(recipe, raster, tmp_path / "run")

    return running


def the_result(recipe: Path, raster: Path, folder: Path) -> Result:
    done = run(recipe, [raster], folder, OPTIONS)
    assert not done.quarantined, done.quarantined
    return open_result(folder / "results" / f"{done.complete[0]}.ome.zarr")


def masked(raster: Path) -> np.ma.MaskedArray:
    """``(bands, H, W)`` as rasterio reads it, what is no data masked."""
    with rasterio.open(raster) as file:
        return file.read(masked=True)


def expected_high(pixels: np.ma.MaskedArray, middle: float) -> np.ndarray:
    mean = pixels.data.astype(np.float64).mean(axis=0)
    return (mean > middle).astype(np.uint8)


def assert_lies_where_the_file_says(result: Result, raster: Path) -> None:
    with rasterio.open(raster) as file:
        transform, crs, bounds = file.transform, file.crs, file.bounds
    lies = result.plan.georeference
    assert lies is not None and lies.affine is not None and lies.crs is not None
    assert lies.affine.to_tuple() == pytest.approx(tuple(transform)[:6], rel=1e-12)
    assert rasterio.crs.CRS.from_user_input(lies.crs.user_input) == crs
    height, width = result.labels.shape
    corners = lies.at(result.plan.last.score_downsample).affine
    assert corners is not None
    ((left, top), (right, bottom)) = corners.place(np.array([[0, 0], [width, height]]))
    assert (left, bottom, right, top) == pytest.approx(tuple(bounds), rel=1e-9)


# ------------------------------------------------------------------------------------ nodata


@pytest.mark.parametrize(
    ("name", "channels", "middle"),
    [("cog_nodata.tif", 1, 2000.0), ("cog_int16.tif", 1, 500.0), ("RGB.byte.tif", 3, 60.0)],
)
def test_where_there_is_data_labels_are_those_of_the_pixels_as_rasterio_reads_them(
    rasters: Path, ran: Ran, name: str, channels: int, middle: float
) -> None:
    result, pixels = ran(rasters / name, channels, middle), masked(rasters / name)
    valid = ~np.ma.getmaskarray(pixels).any(axis=0)
    labels = np.asarray(result.labels)
    assert valid.any()
    np.testing.assert_array_equal(labels[valid], expected_high(pixels, middle)[valid])


@pytest.mark.parametrize("name", ["cog_nodata.tif", "cog_int16.tif", "RGB.byte.tif"])
def test_the_result_lies_where_the_file_says_also_where_pixels_are_points(
    rasters: Path, ran: Ran, name: str
) -> None:
    channels = 3 if name.startswith("RGB") else 1
    assert_lies_where_the_file_says(ran(rasters / name, channels, 60.0, SOME), rasters / name)
