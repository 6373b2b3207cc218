"""What is exported opens in QGIS in the right place, in the right colours, and without no data."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.jobs.driver import run
from saccade.jobs.exports.exporting import export
from saccade.jobs.exports.options import ExportOptions
from saccade.jobs.options import RunOptions
from saccade.pipeline.palette import class_colours

rasterio = pytest.importorskip("rasterio", reason="needs the extra 'geo'")

PROBE = Path(__file__).parents[1] / "qgis_probe.py"
PYTHON = "/usr/bin/python3"
"""Debian's QGIS belongs to this one."""
QUIET = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
LEFT, TOP, PIXEL = 500_000, 40_000, 10
CLASSES = ("low", "high")
MODEL = """\
import torch
from torch import nn

class Ramp(nn.Module):
    saccade = {"classes": ("low", "high"), "halo_px": 0, "channels": 1}

    def forward(self, x):
        high = (x.mean(1, keepdim=True) - 100).sigmoid()
        return torch.cat([1 - high, high], 1)
"""
RECIPE = """\
version: 1
passes:
  - name: dense
    resolution: {level: 0}
    model: {source: 'ramp.py:Ramp', scale: 1}
    tile: 64
output: {chunk: 64, shard: 128}
"""


def has_qgis() -> bool:
    """Whether this machine has QGIS with its Python."""
    try:
        command = [PYTHON, "-c", "import qgis.core"]
        return (
            subprocess.run(command, env=clean(), capture_output=True, timeout=120).returncode == 0
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def clean() -> dict[str, str]:
    """An environment in which another Python finds its own packages only."""
    return {key: value for key, value in QUIET.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A field of low with a rectangle of high and a corner without data, exported."""
    folder = tmp_path_factory.mktemp("qgis")
    values = np.full((300, 400), 50, np.uint8)
    values[60:180, 100:260] = 200
    values[200:, 300:] = 0
    facts = {"driver": "GTiff", "width": 400, "height": 300, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32636", "transform": rasterio.Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP)}
    with rasterio.open(folder / "in.tif", "w", nodata=0, tiled=True, **facts, **place) as file:
        file.write(values, 1)
    (folder / "ramp.py").write_text(MODEL)
    (folder / "recipe.yaml").write_text(RECIPE)
    options = RunOptions(workers="local:1", device="cpu")
    run(folder / "recipe.yaml", [folder / "in.tif"], folder / "run", options)
    (folder / "out").mkdir()
    for kind in ("cog", "geojson"):
        list(export(folder / "run", ExportOptions(to=kind), folder=folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def said(exports: Path) -> dict[str, Any]:
    """What QGIS says of the exports, at a place that is low, one that is high, and one without."""
    if not has_qgis():
        pytest.skip("needs QGIS and its Python (Debian: python3-qgis)")
    files = [exports / "in.labels.tif", exports / "in.geojson", exports / "map.png"]
    points = ["500500,39800", "501700,38900", "503500,37500"]
    done = subprocess.run(
        [PYTHON, str(PROBE), *map(str, files), *points],
        env=clean(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_labels_lie_where_the_raster_lies(said: dict[str, Any]) -> None:
    raster = said["raster"]
    assert raster["valid"]
    assert raster["crs"] == "EPSG:32636"
    assert raster["extent"] == [LEFT, TOP - 300 * PIXEL, LEFT + 400 * PIXEL, TOP]
    assert raster["values"] == [0, 1, None]


def test_the_legend_has_the_classes_and_nothing_else(said: dict[str, Any]) -> None:
    colours = class_colours(CLASSES)
    expected = {
        str(value): ["#" + bytes(colours[name]).hex(), name] for value, name in enumerate(CLASSES)
    }
    assert said["raster"]["classes"] == expected


def test_polygons_lie_on_the_pixels_that_they_are_of(said: dict[str, Any]) -> None:
    vector = said["vector"]
    assert vector["valid"]
    assert vector["crs"] == "EPSG:4326"
    assert not vector["broken"]
    assert vector["at points"] == [["low"], ["high"], []]


def test_the_map_shows_classes_in_their_colours_and_no_data_as_nothing(
    said: dict[str, Any], exports: Path
) -> None:
    del said
    drawn = np.asarray(Image.open(exports / "map.png").convert("RGB")).astype(int)
    colours = class_colours(CLASSES)
    for (row, column), colour in (
        ((20, 50), colours["low"]),
        ((120, 180), colours["high"]),
        ((250, 350), (255, 255, 255)),
    ):
        assert np.abs(drawn[row, column] - colour).max() <= 3
