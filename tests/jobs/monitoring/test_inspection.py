"""What `saccade inspect` says of rasters: their place, their nodata, how overviews were made."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeSource
from mosaics import write_tif
from rich.console import Console

from saccade.jobs.monitoring.inspection import inspect_image, nodata_text, place, scales
from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.sources.bands import Band

UTM = Crs(32632)


def inspected(path: Path) -> str:
    console = Console(width=200)
    with console.capture() as text:
        for part in inspect_image(str(path)):
            console.print(part)
    return text.get()


def test_a_raster_tells_its_crs_corner_nodata_and_what_its_overviews_are(tmp_path: Path) -> None:
    pixels = np.ones((128, 128, 1), np.uint8)
    told = inspected(write_tif(tmp_path / "a.tif", [pixels, pixels[::2, ::2]], nodata=7))
    for words in ("EPSG:32632", "from x 500000, y 5000000; pixels 10, -10", "resampling"):
        assert words in told
    assert any(line.split() == ["nodata", "7"] for line in told.splitlines())
    assert "not stated" in told
    assert "overviews are of unknown resampling" in told


@pytest.mark.parametrize(
    ("lies", "words"),
    [
        (Georeference(UTM, Affine(2, 0, 5, 0, -2, 9)), "from x 5, y 9; pixels 2, -2"),
        (Georeference(UTM, Affine(2, 0, 5, 0, 2, 9)), "from x 5, y 9; pixels 2, 2, not north up"),
        (Georeference(UTM, Affine(2, 1, 5, 1, -2, 9)), ", turned (b 1, d 1)"),
        (Georeference(UTM, None, (ControlPoint(0, 0, 5, 9),)), "by 1 control points"),
    ],
)
def test_where_an_image_lies_is_told_as_the_file_says_it(lies: Georeference, words: str) -> None:
    assert place(lies)["CRS"] == "EPSG:32632"
    assert words in place(lies)["lies"]


def test_of_an_image_that_lies_nowhere_no_place_is_told() -> None:
    assert place(None) == {}


@pytest.mark.parametrize(
    ("values", "dtype", "told"),
    [
        ((0.0, 0.0), np.uint8, "0"),
        ((0.0, 255.0), np.uint8, "a: 0, b: 255"),
        ((None, 255.0), np.uint8, "b: 255"),
        ((math.nan, math.nan), np.float32, "nan"),
        ((None, None), np.float32, "NaN"),
        ((None, None), np.uint8, "none stated"),
    ],
)
def test_nodata_is_told_once_or_by_band(
    values: tuple[float | None, ...], dtype: type[np.generic], told: str
) -> None:
    bands = tuple(Band(name, value) for name, value in zip("ab", values, strict=True))
    source = FakeSource(np.zeros((8, 8, 2), dtype))
    source._bands = bands
    assert nodata_text(source) == told


def test_bands_whose_samples_are_scaled_say_how() -> None:
    bands = (Band("red", scale=0.0001, offset=-0.1, unit="W"), Band("grey"))
    assert scales(bands) == {"scaled": "red: sample * 0.0001 + -0.1 W"}
    assert scales(bands[1:]) == {}
