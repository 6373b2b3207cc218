"""Real rasters from file to result: each holds a trap that pathology-minded code falls into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.image_plan import LABEL_NODATA
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
  - name: glance
    resolution: {downsample: GLANCE}
    model: &ramp {source: 'ramp.py:Ramp', scale: 1}
  - name: refine
    resolution: {level: 0}
    model: *ramp
    tile: 256
    select: {by: top_fraction, fraction: 0.3, signal: high, statistic: mean}
"""


@dataclass(frozen=True)
class Case:
    """A raster, and between which of its values a line is drawn."""

    name: str
    bands: int
    middle: float
    """Of no sample, nor of the mean of a pixel's bands: nothing ties."""
    glance: float = 4


CASES = (
    Case("cog_nodata.tif", 1, 3744.5),
    Case("cog_int16.tif", 1, 95.5),
    Case("RGB.byte.tif", 3, 60.17),
    Case("cog_dateline.tif", 1, 21_952.5, 8),
)


@dataclass(frozen=True)
class Ran:
    """A case, and what a run of two passes left of it."""

    case: Case
    raster: Path
    result: Result

    @property
    def pixels(self) -> np.ma.MaskedArray:
        """``(bands, H, W)`` as rasterio reads them, what is no data masked."""
        with rasterio.open(self.raster) as file:
            return file.read(masked=True)

    @property
    def refined(self) -> np.ndarray:
        """``(H, W)`` bool: where the second pass answered."""
        tiles = np.kron(self.result.coverage == 2, np.ones((256, 256), bool))
        height, width = self.result.labels.shape
        return tiles[:height, :width]


@pytest.fixture(scope="module")
def rasters(data: Path) -> Path:
    folder = data / "rasters"
    if not folder.is_dir():
        pytest.skip(f"{folder} not found; set SACCADE_TEST_DATA")
    return folder


def ran(case: Case, rasters: Path, folder: Path) -> Ran:
    model = MODEL.replace("CHANNELS", str(case.bands)).replace("MIDDLE", repr(case.middle))
    (folder / "ramp.py").write_text(model)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("GLANCE", str(case.glance)))
    raster = rasters / case.name
    return Ran(case, raster, the_result(recipe, raster, folder / "run"))


def the_result(recipe: Path, raster: Path, folder: Path) -> Result:
    done = run(recipe, [raster], folder, OPTIONS)
    assert not done.quarantined, done.quarantined
    return open_result(folder / "results" / f"{done.complete[0]}.ome.zarr")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def done(
    request: pytest.FixtureRequest, rasters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """Every case, run once."""
    return ran(request.param, rasters, tmp_path_factory.mktemp("rasters"))


# ------------------------------------------------------------------------------- values and place


def test_where_there_is_data_labels_are_those_of_the_pixels_as_rasterio_reads_them(
    done: Ran,
) -> None:
    pixels = done.pixels
    there = done.refined & ~np.ma.getmaskarray(pixels).any(axis=0)
    high = pixels.data.astype(np.float64).mean(axis=0) > done.case.middle
    assert there.any()
    np.testing.assert_array_equal(np.asarray(done.result.labels)[there], high[there])


def test_a_result_lies_where_the_file_says_also_where_pixels_are_points(done: Ran) -> None:
    with rasterio.open(done.raster) as file:
        transform, crs, bounds = file.transform, file.crs, file.bounds
    lies = done.result.plan.georeference
    assert lies is not None
    assert lies.affine is not None
    assert lies.crs is not None
    assert lies.affine.to_tuple() == pytest.approx(tuple(transform)[:6], rel=1e-12)
    assert rasterio.crs.CRS.from_user_input(lies.crs.user_input) == crs
    height, width = done.result.labels.shape
    corners = lies.at(done.result.plan.last.score_downsample).affine
    assert corners is not None
    ((left, top), (right, bottom)) = corners.place(np.array([[0, 0], [width, height]]))
    assert (left, bottom, right, top) == pytest.approx(tuple(bounds), rel=1e-9)


# ---------------------------------------------------------------------------------------- no data


def test_a_value_that_marks_no_data_is_not_averaged_into_the_glance(
    rasters: Path, tmp_path: Path
) -> None:
    case = Case("cog_int16.tif", 1, 0.5, 1.5)  # real values are 69 to 201, no data is -32768
    one = ran(case, rasters, tmp_path)
    halves = (~np.ma.getmaskarray(one.pixels)[0]).repeat(2, 0).repeat(2, 1)
    height, width = (-(-side // 3) for side in halves.shape)
    padded = np.zeros((height * 3, width * 3), bool)
    padded[: halves.shape[0], : halves.shape[1]] = halves
    shares = padded.reshape(height, 3, width, 3).mean(axis=(1, 3))
    assert ((shares > 0) & (shares < 0.9)).any()
    high = np.asarray(one.result.passes["glance"].scores[1])
    assert high.shape == shares.shape
    assert (high[shares > 0] == 255).all()


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_what_has_no_data_has_a_label_of_its_own_and_is_no_class(
    case: Case, rasters: Path, tmp_path: Path
) -> None:
    one = ran(case, rasters, tmp_path)
    labels, absent = np.asarray(one.result.labels), np.ma.getmaskarray(one.pixels).all(axis=0)
    assert (one.refined & absent).any()
    np.testing.assert_array_equal(labels[one.refined] == LABEL_NODATA, absent[one.refined])
    assert len(one.result.classes) < LABEL_NODATA


def test_an_internal_mask_is_no_data_whatever_the_samples_under_it_say(
    rasters: Path, tmp_path: Path
) -> None:
    one = ran(Case("cog_uint8_rgb_mask.tif", 3, 0.5), rasters, tmp_path)
    absent = np.ma.getmaskarray(one.pixels).all(axis=0)
    assert absent.any()
    expected = np.where(absent, LABEL_NODATA, 1)
    np.testing.assert_array_equal(np.asarray(one.result.labels), expected)


# ------------------------------------------------------------------------------- control points


def test_of_control_points_alone_no_affine_is_made_up(rasters: Path, tmp_path: Path) -> None:
    one = ran(Case("cog_gcps.tif", 1, 110.5), rasters, tmp_path)
    with rasterio.open(one.raster) as file:
        points, crs = file.gcps
    lies = one.result.plan.georeference
    assert lies is not None
    assert lies.crs is not None
    assert lies.affine is None
    assert rasterio.crs.CRS.from_user_input(lies.crs.user_input) == crs
    ours = [(p.column, p.row, p.x, p.y) for p in lies.control_points]
    np.testing.assert_allclose(ours, [(p.col, p.row, p.x, p.y) for p in points], rtol=1e-12)


# ---------------------------------------------------------------------------------- many bands


def test_six_bands_of_reflectance_give_the_clouds_and_shadows_of_the_reference(
    rasters: Path, tmp_path: Path
) -> None:
    scene = np.load(rasters / "sentinel2_clouds.npz")
    raster = write_reflectance(tmp_path / "scene.tif", scene["img"])
    recipe = EXAMPLES / "clouds.yaml"
    result = the_result(recipe, raster, tmp_path / "run")
    refined = open_result(tmp_path / "run")["scene"].summary()["refined"]
    assert refined == pytest.approx(0.5, abs=0.02)
    labels, truth = np.asarray(result.labels), scene["msk"][:, :, 0]
    assert iou(labels == 1, truth == 4) > 0.79
    assert iou(labels == 2, (truth == 0) | (truth == 1)) > 0.69


def write_reflectance(path: Path, reflectance: np.ndarray) -> Path:
    """``(H, W, bands)`` reflectances as uint16 times 10000, as they are published."""
    stored = np.rint(reflectance * 10_000).astype(np.uint16)
    height, width, bands = stored.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": "uint16",
        "tiled": True, "blockxsize": 256, "blockysize": 256, "crs": "EPSG:32632",
        "transform": rasterio.Affine(10, 0, 600_000, 0, -10, 5_400_000),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(stored, 2, 0))
    return path


def iou(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours & theirs).sum() / (ours | theirs).sum())
