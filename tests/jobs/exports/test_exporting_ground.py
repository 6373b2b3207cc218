"""Exports of images that lie somewhere on Earth, over real runs of georeferenced files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from saccade.jobs.driver import run
from saccade.jobs.exports.exporting import export
from saccade.jobs.exports.options import ExportOptions
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import StoreError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result

rasterio = pytest.importorskip("rasterio")

MODEL = {"source": "builtin:tissue", "options": {"rgb": False}}
RECIPE: dict[str, Any] = {
    "passes": [
        {"name": "glance", "resolution": {"downsample": 8}, "model": MODEL, "tile": 8},
        {
            "name": "look",
            "resolution": {"downsample": 2},
            "model": MODEL,
            "tile": 32,
            "select": {"by": "top_k", "k": 4},
        },
    ],
    "output": {"chunk": 32, "shard": 32},
}
SIDE = 192
UTM_33N = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a square of texture at 10 m in UTM zone 33, and one that lies nowhere."""
    folder = tmp_path_factory.mktemp("ground")
    pixels = np.full((SIDE, SIDE), 120, np.uint8)
    coarse = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    pixels[32:96, 64:128] = np.kron(coarse, np.ones((8, 8), np.uint8))
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
        (34735, "H", len(UTM_33N), UTM_33N, True),
    ]
    tifffile.imwrite(folder / "here.tif", pixels, tile=(64, 64), extratags=tags)
    tifffile.imwrite(folder / "nowhere.tif", pixels, tile=(64, 64))
    images = [folder / "here.tif", folder / "nowhere.tif"]
    run(Recipe.model_validate(RECIPE), images, folder / "run", RunOptions("local:1", device="cpu"))
    return folder / "run"


def files(run: Path, to: str, folder: Path, *images: str, **options: Any) -> list[Path]:
    return list(export(run, ExportOptions(to, **options), images, folder))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["labels", "scores"])
def test_a_cog_lies_where_the_image_does_at_the_result_s_resolution(
    finished: Path, tmp_path: Path, content: str
) -> None:
    path = files(finished, "cog", tmp_path, "here", content=content)[-1]
    assert path == tmp_path / f"here.{content}.tif"
    result = open_result(finished)["here"]
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == (20, 0, 500_000, 0, -20, 5_000_000)
        read = file.read()
        assert file.tags(ns="saccade")["state"] == "complete"
    expected = np.asarray(result.labels)[None] if content == "labels" else np.asarray(result.scores)
    np.testing.assert_array_equal(read, expected)


def test_labels_come_with_the_names_of_classes_beside_them(finished: Path, tmp_path: Path) -> None:
    found = files(finished, "cog", tmp_path, "here")
    assert [path.name for path in found] == ["here.labels.tif.aux.xml", "here.labels.tif"]
    assert "<Category>tissue</Category>" in found[0].read_text()


def test_a_cog_of_an_image_that_lies_nowhere_is_refused_with_what_to_do(
    finished: Path, tmp_path: Path
) -> None:
    done = []
    with pytest.raises(StoreError, match=r"nowhere\.tif states no georeference; export ome-tiff"):
        done.extend(export(finished, ExportOptions("cog"), folder=tmp_path))
    assert [path.name for path in done] == ["here.labels.tif.aux.xml", "here.labels.tif"]
