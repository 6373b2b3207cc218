"""A mosaic described from the files that are found: those on one grid, and why others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mosaics import write_tif

from saccade.jobs.manifests.mosaicking import write_mosaic
from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source

SIDE_PX = 64


def tile(path: Path, value: int, **place: float) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    return write_tif(path, [np.full((SIDE_PX, SIDE_PX, 1), value, np.uint8)], **place)  # type: ignore[arg-type]


def test_the_files_on_the_grid_of_most_are_one_image_and_others_are_told(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    tile(scans / "a-off.tif", 1, east=3.0)
    west, east = tile(scans / "b.tif", 2), tile(scans / "c.tif", 3, east=640.0)
    tile(scans / "d-coarse.tif", 4, resolution=20.0)
    path = tmp_path / "all" / "land.mosaic.yaml"
    made = write_mosaic(path, [scans])
    assert made.files == (str(west), str(east))
    told = made.listing.told(None)
    assert "a-off.tif: a file on the grid of" in told
    assert "off by 0.3 px" in told
    assert "with pixels of 20 x 20 instead of 10 x 10" in told
    source = open_source(str(path))
    try:
        assert source.levels[0].shape == (SIDE_PX, 2 * SIDE_PX)
        read = source.read(0, Box(0, 0, 1, 2 * SIDE_PX))[0, :, 0]
    finally:
        source.close()
    assert read.tolist() == [2] * SIDE_PX + [3] * SIDE_PX


def test_files_with_other_bands_are_told(tmp_path: Path) -> None:
    tile(tmp_path / "a.tif", 1)
    tile(tmp_path / "b.tif", 2, east=640.0)
    write_tif(tmp_path / "c.tif", [np.zeros((SIDE_PX, SIDE_PX, 2), np.uint8)], south=640.0)
    made = write_mosaic(tmp_path / "land.mosaic.yaml", [tmp_path])
    assert len(made.files) == 2
    assert "c.tif: 1 bands expected" in made.listing.told(None)


def test_files_that_lie_nowhere_make_no_mosaic(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", [np.zeros((SIDE_PX, SIDE_PX, 1), np.uint8)], crs=None)
    with pytest.raises(UsageError, match=r"says where it lies .* no georeference"):
        write_mosaic(tmp_path / "land.mosaic.yaml", [tmp_path])


def test_a_name_that_is_no_mosaic_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.mosaic\.yaml"):
        write_mosaic(tmp_path / "land.yaml", [tmp_path])
