"""How many metres on the ground a pixel covers, against geodesics by pyproj."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from saccade.pipeline.georeference import Affine, Crs
from saccade.pipeline.sources.ground_size import MERCATOR_NOTE, size_on_ground
from saccade.pipeline.sources.rasterio_file import RasterioSource
from saccade.pipeline.sources.tiff import TiffSource

pyproj = pytest.importorskip("pyproj")
SHAPE = (307, 211)


def geodesic_sides(affine: Affine, epsg: int) -> tuple[float, float]:
    """Height and width of the middle pixel, in metres."""
    turn = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform
    row, column = SHAPE[0] / 2, SHAPE[1] / 2
    corners = [(column, row), (column, row + 1), (column + 1, row)]
    places = [
        turn(affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f)
        for x, y in corners
    ]
    geod = pyproj.Geod(ellps="WGS84")
    down, right = (geod.inv(*places[0], *other)[2] for other in places[1:])
    return down, right


@pytest.mark.parametrize("north_m", [0.0, 3e6, -5.2e6, 8.4e6, 15e6])
def test_web_mercator_is_told_in_metres_on_the_ground(north_m: float) -> None:
    """To the difference between the ellipsoid and the sphere that the projection takes it for."""
    affine = Affine(7.0, 0, 1e6, 0, -7.0, north_m)
    size = size_on_ground(affine, Crs(3857), SHAPE)
    assert size is not None
    assert (size.y, size.x) == pytest.approx(geodesic_sides(affine, 3857), rel=0.007)


def test_other_projections_are_told_in_their_own_metres() -> None:
    affine = Affine(7.0, 0, 5e5, 0, -7.0, 5e6)
    size = size_on_ground(affine, Crs(32633), SHAPE)
    assert size is not None
    assert (size.y, size.x) == (7.0, 7.0)
    assert (size.y, size.x) == pytest.approx(geodesic_sides(affine, 32633), rel=0.001)


def test_both_readers_tell_it_alike_and_say_so(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "mercator.tif"
    grid = rasterio.Affine(7.0, 0, 1e6, 0, -7.0, 6e6)
    profile = {"width": 32, "height": 32, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", crs="EPSG:3857", transform=grid, **profile) as file:
        file.write(np.ones((1, 32, 32), np.uint8))
    with closing(TiffSource(path)) as one, closing(RasterioSource(path)) as other:
        assert one.pixel_size == other.pixel_size
        assert one.pixel_size is not None
        assert one.pixel_size.y == pytest.approx(7 / np.cosh((6e6 - 112) / 6_378_137))
        assert one.notes == other.notes == (MERCATOR_NOTE,)
