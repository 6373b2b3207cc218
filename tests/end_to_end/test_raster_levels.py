"""Runs over rasters: which bands and overviews a pass reads, and what holds no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import Lab, pass_of, several_passes
from rasterio.enums import Resampling
from rasterio.transform import Affine

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import Result, open_result
from saccade.workers.tasks import ImageEntry

SIDE = 512


def raster(folder: Path, *, resampling: Resampling = Resampling.nearest, count: int = 1) -> Path:
    """Sparse bright pixels on even ground, none of them where nearest resampling looks."""
    pixels = np.full((count, SIDE, SIDE), 10, np.uint8)
    pixels[:, 5::16, 7::16] = 250
    path = folder / "raster.tif"
    options = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": count, "dtype": "uint8"}
    options |= {"crs": "EPSG:32618", "transform": Affine(10, 0, 5e5, 0, -10, 4.6e6)}
    tiling = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **options, **tiling) as dataset:
        for band in range(count):
            dataset.write(pixels[band] + band, band + 1)
        dataset.build_overviews([2, 4, 8, 16], resampling)
    return path


def recipe(**details: Any) -> dict[str, Any]:
    """A glance at 1/16 and a look at the finest, with a model that gives back what it sees."""
    glance = pass_of("glance", "echo", 16, tile=16)
    return several_passes([glance, pass_of("look", "echo", 1, tile=64)], **details)


def run_over(lab: Lab, path: Path, tree: dict[str, Any], workers: str = "local:1") -> Result:
    folder = lab.folder / f"run-{len(list(lab.folder.iterdir()))}"
    options = RunOptions(workers=workers, device="cpu")
    entries = [ImageEntry("one", str(path))]
    summary = run(Recipe.model_validate(tree), entries, folder, options, model_folder=lab.models)
    assert summary.complete == ("one",), summary.quarantined
    return open_result(folder)


def glance_of(result: Result) -> np.ndarray:
    return np.asarray(result.passes["glance"].scores)[0]


def test_a_glance_over_nearest_overviews_sees_means_and_the_run_says_so(
    lab: Lab, tmp_path: Path
) -> None:
    path = raster(tmp_path)
    result = run_over(lab, path, recipe())
    mean = np.float32(np.rint((255 * 10 + 250) / 256) / 255)
    assert glance_of(result) == pytest.approx(mean)
    assert [tuple(shape) for shape in result.plan.level_shapes] == [
        (SIDE // d, SIDE // d) for d in (1, 2, 4, 8, 16)
    ]
    notes = [r["notes"] for r in receipts(lab) if "notes" in r]
    assert len(notes) == 1
    assert "NEAREST" in notes[0][0]


def receipts(lab: Lab) -> list[dict[str, Any]]:
    (journal,) = lab.folder.rglob("000001.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_stored_overviews_are_taken_where_the_recipe_says_so(lab: Lab, tmp_path: Path) -> None:
    result = run_over(lab, raster(tmp_path), recipe(overviews="stored"))
    assert glance_of(result) == pytest.approx(10 / 255)
    assert not any("notes" in record for record in receipts(lab))


def test_average_overviews_are_read_as_they_are(lab: Lab, tmp_path: Path) -> None:
    path = raster(tmp_path, resampling=Resampling.average)
    result = run_over(lab, path, recipe())
    with rasterio.open(path, overview_level=3) as oracle:
        stored = oracle.read(1) / np.float32(255)
    assert np.array_equal(glance_of(result), stored.astype(np.float32))
    assert not any("notes" in record for record in receipts(lab))


def test_averaged_levels_lie_in_the_run_until_its_result_is_complete(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    from saccade.pipeline.sources.averaged import AveragedSource

    make = AveragedSource.make

    def watched(self: AveragedSource, levels: Any) -> None:
        make(self, levels)
        seen.extend(p.relative_to(lab.folder).as_posix() for p in lab.folder.rglob("averaged-*"))

    monkeypatch.setattr(AveragedSource, "make", watched)
    run_over(lab, raster(tmp_path), recipe())
    assert seen
    assert all("/cache/one/averaged-16-" in name for name in seen)
    assert not list(lab.folder.rglob("averaged-*"))


def test_the_bands_that_a_pass_names_are_what_its_model_is_given(lab: Lab, tmp_path: Path) -> None:
    path = raster(tmp_path, count=3, resampling=Resampling.average)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("blue", "green", "red")
    tree = recipe()
    tree["passes"][1] |= {"bands": ["red", 1], "model": two_channels()}
    result = run_over(lab, path, tree)
    assert [one.bands for one in result.plan.passes] == [None, (2, 0)]
    with rasterio.open(path) as oracle:
        stored = oracle.read([3, 1]).astype(np.float32) / np.float32(255)
    assert np.array_equal(np.asarray(result.passes["look"].scores), stored)


def two_channels() -> dict[str, Any]:
    return {"source": "fake_models.py:echo", "options": {"classes": 2}}


def test_masked_ground_is_not_valid_for_a_model_at_any_resolution(lab: Lab, tmp_path: Path) -> None:
    path, mask = raster(tmp_path, resampling=Resampling.average), np.full((SIDE, SIDE), 255)
    mask[:128, 192:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask.astype(np.uint8))
    passes = [pass_of("glance", "echo_valid", 16, tile=16), pass_of("look", "echo_valid", 1)]
    result = run_over(lab, path, several_passes(passes))
    answers = np.where(mask == 255, 1.0, np.nan)
    looked = np.asarray(result.passes["look"].scores)[0]
    assert np.array_equal(glance_of(result), answers[::16, ::16], equal_nan=True)
    assert np.array_equal(looked, answers, equal_nan=True)


@pytest.mark.parametrize("workers", ["local:1", "local:2"])
def test_a_scaled_glance_sees_shares_where_the_raster_is_a_mask_of_0_and_1(
    lab: Lab, tmp_path: Path, workers: str
) -> None:
    path = raster(tmp_path)
    with rasterio.open(path, "r+") as dataset:
        land = (dataset.read(1) > 100).astype(np.uint8)
        dataset.write(land, 1)
        dataset.build_overviews([2, 4, 8, 16], Resampling.nearest)
    seen = {}
    for scaled in (False, True):
        tree = recipe()
        for one in tree["passes"]:
            one["scaled"] = scaled
        result = run_over(lab, path, tree, workers)
        seen[scaled] = glance_of(result)
        looked = np.asarray(result.passes["look"].scores)[0]
        assert np.array_equal(looked, land.astype(np.float32) / (1 if scaled else 255))
    assert not seen[False].any()
    assert (seen[True] == 1 / 256).all()
