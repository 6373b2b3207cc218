"""Overviews in a file beside a TIFF, against rasterio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.pipeline.errors import BrokenImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.averaged import leaves_pixels_out
from saccade.pipeline.sources.identities import moved_on
from saccade.pipeline.sources.rasterio_file import RasterioSource
from saccade.pipeline.sources.tiff import TiffSource

rasterio = pytest.importorskip("rasterio")
SHAPE = (311, 257)


@pytest.fixture(params=["nearest", "average"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two bands, tiled, with overviews at 1/2 and 1/4 beside it."""
    path = tmp_path / "image.tif"
    write(path)
    add_overviews(path, request.param)
    return path


def write(path: Path, **more: Any) -> None:
    pixels = np.random.default_rng(3).integers(0, 2000, (2, *SHAPE), np.uint16)
    profile = {"width": SHAPE[1], "height": SHAPE[0], "count": 2, "dtype": "uint16"}
    grid = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32633", transform=grid, **profile, **tiles, **more
    ) as file:
        file.write(pixels)


def add_overviews(path: Path, how: str) -> None:
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling[how])
    assert path.with_name(f"{path.name}.ovr").is_file()


def test_they_are_levels_with_the_pixels_that_rasterio_reads(image: Path) -> None:
    with closing(TiffSource(image)) as source:
        assert [level.downsample for level in source.levels] == [1, 2, 4]
        for number in (1, 2):
            with rasterio.open(image, overview_level=number - 1) as file:
                expected = np.moveaxis(file.read(), 0, -1)
            box = Box(0, 0, *source.levels[number].shape)
            np.testing.assert_array_equal(source.read(number, box), expected)


def test_both_readers_agree_on_levels_and_how_they_were_made(image: Path) -> None:
    with closing(TiffSource(image)) as one, closing(RasterioSource(image)) as other:
        assert [level.shape for level in one.levels] == [level.shape for level in other.levels]
        assert [x.resampling for x in one.levels] == [x.resampling for x in other.levels]
        assert leaves_pixels_out(one) == leaves_pixels_out(other)
        assert one.identity() == other.identity()


@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: p.write_bytes(b"x" * 99)])
def test_an_image_whose_overviews_changed_is_another_one(
    image: Path, change: Callable[[Path], Any]
) -> None:
    with closing(TiffSource(image)) as source:
        then = source.identity()
    assert not moved_on(then, str(image))
    change(image.with_name(f"{image.name}.ovr"))
    assert moved_on(then, str(image))


def test_a_file_that_holds_reduced_images_is_read_with_those_alone(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    write(path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([8], rasterio.enums.Resampling.average)
    path.with_name("image.tif.ovr").write_bytes(b"not looked into")
    with closing(TiffSource(path)) as source:
        assert [level.downsample for level in source.levels] == [1, 8]


def test_overviews_that_are_damaged_are_told_by_their_own_name(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    write(path)
    path.with_name("image.tif.ovr").write_bytes(b"not a TIFF")
    with pytest.raises(BrokenImage, match=r"image\.tif\.ovr: a TIFF of overviews was expected"):
        TiffSource(path)
