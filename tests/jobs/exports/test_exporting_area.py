"""Exports cut along an area of interest: the run's own, one that is named, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from exported import RECIPE, square_of_texture

from saccade.jobs.driver import run
from saccade.jobs.exports.exporting import export
from saccade.jobs.exports.options import ExportOptions
from saccade.jobs.options import RunOptions
from saccade.pipeline.area_files import read_area
from saccade.pipeline.errors import StoreError, UsageError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result

if TYPE_CHECKING:
    from object_server import Bucket

rasterio = pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely")
geopandas = pytest.importorskip("geopandas")
rasterize = pytest.importorskip("rasterio.features").rasterize

UTM_33N = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
EAST, NORTH, METRES = 500_000.0, 5_000_000.0, 10.0
DOWNSAMPLE = 2
LOCAL = RunOptions("local:1", device="cpu")
TRIANGLE = [(61.3, 29.1), (133.7, 41.9), (75.1, 103.3)]
ELSEWHERE = [(1000.0, 1000.0), (1100.0, 1000.0), (1000.0, 1100.0)]


def area(folder: Path, corners: list[tuple[float, float]], name: str = "area") -> Path:
    """A polygon, its corners in pixels of level 0, as GeoJSON in the image's CRS."""
    ring = [[EAST + x * METRES, NORTH - y * METRES] for x, y in [*corners, corners[0]]]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    tree = {"type": "Polygon", "coordinates": [ring], "crs": crs}
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an image whole ('whole'), and one with an area of interest ('part')."""
    folder = tmp_path_factory.mktemp("area")
    tags = [
        (33550, "d", 3, (METRES, METRES, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, EAST, NORTH, 0.0), True),
        (34735, "H", len(UTM_33N), UTM_33N, True),
    ]
    image = folder / "here.tif"
    tifffile.imwrite(image, square_of_texture(3), tile=(64, 64), extratags=tags)
    stated = {"area": {"file": str(area(folder, TRIANGLE))}}
    run(Recipe.model_validate(RECIPE), [image], folder / "whole", LOCAL)
    run(Recipe.model_validate(RECIPE | stated), [image], folder / "part", LOCAL)
    return folder


def files(run: Path, to: str, folder: Path, **options: Any) -> list[Path]:
    return list(export(run, ExportOptions(to, **options), folder=folder))  # type: ignore[arg-type]


def inside(shape: tuple[int, int]) -> np.ndarray:
    """Pixels of a result whose centre lies in the triangle, as rasterio burns them."""
    grid = rasterio.Affine(DOWNSAMPLE, 0, 0, 0, DOWNSAMPLE, 0)
    drawn = rasterize([shapely.Polygon(TRIANGLE)], shape, transform=grid)
    return np.asarray(drawn == 1)


def box_of(marked: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize("content", ["labels", "scores"])
@pytest.mark.parametrize("which", ["part", "whole"])
def test_a_cog_covers_the_area_on_the_result_s_grid_and_is_nodata_outside(
    folder: Path, tmp_path: Path, content: str, which: str
) -> None:
    """Of a run with an area by default, of any run along one that is named: the same."""
    named = {"area": str(folder / "area.geojson")} if which == "whole" else {}
    path = files(folder / which, "cog", tmp_path, content=content, **named)[-1]
    result = open_result(folder / which)["here"]
    whole = np.asarray(result.labels)[None] if content == "labels" else np.asarray(result.scores)
    marked = inside(result.plan.shape)
    rows, columns = box_of(marked)
    unknown = np.asarray(result.labels) >= 254
    expected = np.where(marked & ~unknown, whole, 255 if content == "labels" else np.nan)
    with rasterio.open(path) as file:
        read, transform, found = file.read(), file.transform, file.nodata
        west, north = file.bounds.left, file.bounds.top
    assert np.isnan(found) if content == "scores" else found == 255
    assert transform.a == METRES * DOWNSAMPLE
    side = METRES * DOWNSAMPLE
    x, y = round((west - EAST) / side), round((NORTH - north) / side)
    assert (west, north) == (EAST + x * side, NORTH - y * side)
    # the box is that of the polygon, which may reach half a pixel beyond the last centre inside
    assert y <= rows.start <= y + 1
    assert x <= columns.start <= x + 1
    assert rows.stop <= y + read.shape[1] <= rows.stop + 1
    assert columns.stop <= x + read.shape[2] <= columns.stop + 1
    here = expected[:, y : y + read.shape[1], x : x + read.shape[2]]
    np.testing.assert_array_equal(read, here.astype(read.dtype))


@pytest.mark.parametrize("to", ["geojson", "geoparquet"])
def test_polygons_hold_the_pixels_inside_the_area_where_they_lie(
    folder: Path, tmp_path: Path, to: str
) -> None:
    *_, path = files(folder / "part", to, tmp_path)
    table = geopandas.read_file(path) if to == "geojson" else geopandas.read_parquet(path)
    labels = np.asarray(open_result(folder / "part")["here"].labels)
    wanted = (labels == 1) & inside(labels.shape)
    assert table["pixels"].sum() == wanted.sum() > 0
    assert (labels == 1).sum() > wanted.sum()
    side = METRES * DOWNSAMPLE
    grid = rasterio.Affine(side, 0, EAST, 0, -side, NORTH)
    drawn = rasterize(table.geometry.to_crs(32633), labels.shape, transform=grid)
    np.testing.assert_array_equal(drawn == 1, wanted)


def test_a_region_of_a_cut_that_holds_all_has_the_place_and_name_it_has_uncut(
    folder: Path, tmp_path: Path
) -> None:
    everything = area(tmp_path, [(-9, -9), (500, -9), (500, 500), (-9, 500)], "everything")
    cut = json.loads(
        files(folder / "whole", "geojson", tmp_path, area=str(everything))[-1].read_text()
    )
    uncut = json.loads(files(folder / "whole", "geojson", tmp_path)[-1].read_text())
    assert cut["features"] == uncut["features"]


def test_whole_tiles_are_exported_where_no_area_is_asked_for(folder: Path, tmp_path: Path) -> None:
    path = files(folder / "part", "cog", tmp_path, area="none")[-1]
    labels = np.asarray(open_result(folder / "part")["here"].labels)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels)


def test_a_stac_item_lies_where_the_cut_cog_does(folder: Path, tmp_path: Path) -> None:
    cog = files(folder / "part", "cog", tmp_path)[-1]
    item = json.loads(files(folder / "part", "stac", tmp_path)[0].read_text())
    said = item["properties"]
    with rasterio.open(cog) as file:
        assert said["proj:shape"] == list(file.shape)
        assert said["proj:transform"] == list(file.transform)[:6]
        assert said["proj:bbox"] == list(file.bounds)
        expected = rasterio.warp.transform_bounds(file.crs, 4326, *file.bounds)
    assert item["bbox"] == pytest.approx(expected, abs=1e-5)


def test_files_say_which_area_they_were_cut_along(folder: Path, tmp_path: Path) -> None:
    *_, path = files(folder / "part", "geojson", tmp_path)
    plan = open_result(folder / "part")["here"].plan
    assert json.loads(path.read_text())["saccade"]["area"] == plan.area


def test_an_area_that_shares_no_ground_with_any_image_is_told(folder: Path, tmp_path: Path) -> None:
    far = area(tmp_path, ELSEWHERE, "far")
    with pytest.raises(StoreError, match=r"here: the area to cut along shares no ground"):
        files(folder / "whole", "cog", tmp_path, area=str(far))


def test_an_area_that_changed_since_the_run_is_told_with_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "area.geojson"
    before = path.read_bytes()
    area(folder, ELSEWHERE)
    read_area.cache_clear()  # another process has not seen the old one
    try:
        with pytest.raises(StoreError, match=r"changed .* '--area none' exports whole tiles"):
            files(folder / "part", "cog", tmp_path)
    finally:
        path.write_bytes(before)


def test_formats_that_are_not_cut_say_so(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"area: heeded by cog, geojson, geoparquet, stac"):
        ExportOptions("csv", area="area.geojson")


@pytest.mark.parametrize("to", ["geojson", "geoparquet"])
def test_outlines_are_simplified_when_asked(folder: Path, tmp_path: Path, to: str) -> None:
    read = geopandas.read_file if to == "geojson" else geopandas.read_parquet
    exact = read(files(folder / "part", to, tmp_path)[-1]).sort_values("id")
    simple = read(files(folder / "part", to, tmp_path, simplify_px=1.0)[-1]).sort_values("id")
    assert list(simple["pixels"]) == list(exact["pixels"])
    assert list(simple["area_m2"]) == list(exact["area_m2"])
    before, after = exact.get_coordinates(), simple.get_coordinates()
    assert len(after) < len(before) * 0.8
    assert simple.geometry.is_valid.all()


def test_a_run_and_its_exports_take_an_area_from_an_object_store(
    folder: Path, tmp_path: Path, bucket: Bucket
) -> None:
    uri = bucket.put("areas/area.geojson", folder / "area.geojson")
    recipe = Recipe.model_validate(RECIPE | {"area": uri})
    run(recipe, [folder / "here.tif"], tmp_path / "run", LOCAL)
    found = files(tmp_path / "run", "cog", tmp_path)[-1].read_bytes()
    assert found == files(folder / "part", "cog", tmp_path / "part")[-1].read_bytes()
