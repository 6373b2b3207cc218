"""Exports of images that lie somewhere on Earth, over real runs of georeferenced files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from exported import MODEL, RECIPE, SIDE, square_of_texture

from saccade.jobs.driver import run
from saccade.jobs.exports.exporting import export
from saccade.jobs.exports.options import ExportOptions
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import StoreError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result

rasterio = pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")
pystac = pytest.importorskip("pystac")
stac_validator = pytest.importorskip("pystac.validation.stac_validator")
geopandas = pytest.importorskip("geopandas")
rasterize = pytest.importorskip("rasterio.features").rasterize
transform_bounds = pytest.importorskip("rasterio.warp").transform_bounds
cog_validate = pytest.importorskip("rio_cogeo.cogeo").cog_validate

UTM_33N = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a square of texture at 10 m in UTM zone 33, and one that lies nowhere."""
    folder = tmp_path_factory.mktemp("ground")
    pixels = square_of_texture(3)
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


LABEL_FILES = ["here.labels.tif.aux.xml", "here.labels.qml", "here.labels.tif"]


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
    assert [path.name for path in found] == LABEL_FILES
    assert "<Category>tissue</Category>" in found[0].read_text()


def test_a_cog_of_an_image_that_lies_nowhere_is_refused_with_what_to_do(
    finished: Path, tmp_path: Path
) -> None:
    done = []
    with pytest.raises(StoreError, match=r"nowhere\.tif states no georeference; export ome-tiff"):
        done.extend(export(finished, ExportOptions("cog"), folder=tmp_path))
    assert [path.name for path in done] == LABEL_FILES


def test_regions_are_told_in_longitude_and_latitude(finished: Path, tmp_path: Path) -> None:
    *_, path = files(finished, "geojson", tmp_path, "here")
    table = geopandas.read_file(path)
    assert set(table["class"]) == {"tissue"}
    (metres,) = geopandas.GeoSeries([table.union_all()], crs=4326).to_crs(32633)
    labels = np.asarray(open_result(finished)["here"].labels)
    with rasterio.open(files(finished, "cog", tmp_path, "here")[-1]) as file:
        transform = file.transform
    drawn = rasterize([metres], labels.shape, transform=transform)
    np.testing.assert_array_equal(drawn == 1, labels == 1)


def test_regions_asked_for_as_objects_of_qupath_are_told_in_pixels(
    finished: Path, tmp_path: Path
) -> None:
    *_, path = files(finished, "geojson", tmp_path, "here", object_type="annotation")
    (feature, *_) = json.loads(path.read_text())["features"]
    assert feature["properties"]["objectType"] == "annotation"
    assert np.max(feature["geometry"]["coordinates"][0]) <= SIDE


def test_the_same_regions_are_a_geoparquet_in_the_image_s_crs(
    finished: Path, tmp_path: Path
) -> None:
    *_, path = files(finished, "geoparquet", tmp_path, "here")
    table = geopandas.read_parquet(path)
    assert path.name == "here.regions.parquet"
    assert table.crs.to_epsg() == 32633
    # a transverse Mercator's areas are true to a thousandth near its central meridian
    np.testing.assert_allclose(table.area, table["area_m2"], rtol=1e-3)
    assert (table.area / 400 == table["pixels"]).all()


@pytest.mark.parametrize("to", ["geojson", "geoparquet", "cog", "stac"])
def test_exporting_again_replaces_by_the_same(finished: Path, tmp_path: Path, to: str) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    files(finished, to, tmp_path, "here")
    first = contents()
    files(finished, to, tmp_path, "here")
    assert contents() == first


# ------------------------------------------------------------------------------------------- STAC


def item_of(path: Path) -> pystac.Item:
    """An item that the specification's own schema, which pystac carries, accepts."""
    tree = json.loads(path.read_text())
    validator = stac_validator.JsonSchemaSTACValidator()
    validator.validate_core(tree, pystac.STACObjectType.ITEM, "1.1.0", str(path))
    return pystac.Item.from_dict(tree)


def test_a_stac_item_names_what_was_exported_before_and_the_result(
    finished: Path, tmp_path: Path
) -> None:
    for to in ("cog", "geojson", "geoparquet"):
        files(finished, to, tmp_path, "here")
    (path,) = files(finished, "stac", tmp_path, "here")
    item = item_of(path)
    item.set_self_href(str(path))
    assert set(item.assets) == {"labels", "geojson", "geoparquet", "result"}
    for asset in item.assets.values():
        assert Path(str(asset.get_absolute_href())).exists()
    (link,) = item.links[:1]
    assert (link.rel, Path(str(link.href)).name) == ("derived_from", "here.tif")


def test_a_stac_item_lies_where_the_cog_does(finished: Path, tmp_path: Path) -> None:
    cog = files(finished, "cog", tmp_path, "here")[-1]
    item = item_of(files(finished, "stac", tmp_path, "here")[0])
    said = item.properties
    with rasterio.open(cog) as file:
        assert said["proj:code"] == f"EPSG:{file.crs.to_epsg()}"
        assert said["proj:shape"] == list(file.shape)
        assert said["proj:transform"] == list(file.transform)[:6]
        assert said["proj:bbox"] == list(file.bounds)
        expected = transform_bounds(file.crs, 4326, *file.bounds)
    assert item.bbox == pytest.approx(expected, abs=1e-5)
    assert shapely.geometry.shape(item.geometry).bounds == pytest.approx(item.bbox)


def test_a_stac_item_says_what_values_mean(finished: Path, tmp_path: Path) -> None:
    for content in ("labels", "scores"):
        files(finished, "cog", tmp_path, "here", content=content)
    item = item_of(files(finished, "stac", tmp_path, "here")[0])
    (labels,) = item.assets["labels"].extra_fields["bands"]
    assert (labels["data_type"], labels["nodata"]) == ("uint8", 255)
    classes = {one["value"]: one for one in labels["classification:classes"]}
    assert set(classes) == {0, 1, 255}
    assert all(re.fullmatch("[0-9A-Za-z_-]+", one["name"]) for one in classes.values())
    assert all(re.fullmatch("[0-9A-F]{6}", one["color_hint"]) for one in classes.values())
    assert [value for value, one in classes.items() if one.get("nodata")] == [255]
    (scores,) = item.assets["scores"].extra_fields["bands"]
    assert (scores["name"], scores["data_type"], scores["nodata"]) == ("tissue", "float32", "nan")
    assert item.properties["processing:software"] == {"saccade": version("saccade")}


def test_a_stac_item_says_when_as_far_as_it_is_known(finished: Path, tmp_path: Path) -> None:
    unknown = item_of(files(finished, "stac", tmp_path, "here")[0])
    assert unknown.datetime is None
    assert unknown.properties["start_datetime"] == "1970-01-01T00:00:00Z"
    assert unknown.properties["end_datetime"] > "2000"
    taken = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert item_of(files(finished, "stac", tmp_path, "here", taken=taken)[0]).datetime == taken


# ------------------------------------------------------------------------------------- real files


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Callable[[str, float], Path]:
    """Runs of one pass of tissue finding over real rasters, each made once."""
    folder, made = tmp_path_factory.mktemp("real"), dict[str, Path]()

    def run_of(name: str, downsample: float) -> Path:
        path = data / "rasters" / f"{name}.tif"
        if name not in made:
            one = {"name": "look", "resolution": {"downsample": downsample}, "model": MODEL}
            recipe = Recipe.model_validate({"passes": [one | {"tile": 128}]})
            run(recipe, [path], folder / name, RunOptions("local:1", device="cpu"))
            made[name] = folder / name
        return made[name]

    return run_of


REAL = {"kampala_rgb": (4.0, 3857), "cog_dateline": (4.0, 32660), "cog_world": (64.0, 4326)}


@pytest.mark.parametrize("name", REAL)
def test_real_rasters_are_exported_to_where_they_lie(
    real: Callable[[str, float], Path], data: Path, tmp_path: Path, name: str
) -> None:
    downsample, epsg = REAL[name]
    folder = real(name, downsample)
    cog = files(folder, "cog", tmp_path)[-1]
    assert cog_validate(cog, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(cog) as file, rasterio.open(data / "rasters" / f"{name}.tif") as image:
        assert file.crs.to_epsg() == epsg
        assert file.bounds[0] == pytest.approx(image.bounds[0])
        assert file.bounds[3] == pytest.approx(image.bounds[3])
        labels, transform = file.read(1), file.transform
    native = geopandas.read_parquet(files(folder, "geoparquet", tmp_path)[-1])
    drawn = rasterize(native.geometry, labels.shape, transform=transform)
    inside = (slice(0, labels.shape[0] - 1), slice(0, labels.shape[1] - 1))
    np.testing.assert_array_equal((drawn == 1)[inside], (labels == 1)[inside])
    degrees = geopandas.read_file(files(folder, "geojson", tmp_path)[-1])
    assert degrees.geometry.is_valid.all()
    geod = pyproj.Geod(ellps="WGS84")
    expected = sum(
        abs(geod.geometry_area_perimeter(shapely.segmentize(one, 0.05))[0])
        for one in degrees.geometry
    )
    assert native["area_m2"].sum() == pytest.approx(expected, rel=1e-3)
    item_of(files(folder, "stac", tmp_path)[0])


def test_what_crosses_the_antimeridian_is_cut_there(
    real: Callable[[str, float], Path], tmp_path: Path
) -> None:
    (path,) = files(real("cog_dateline", 4.0), "stac", tmp_path)
    item = item_of(path)
    west, _, east, _ = item.bbox or ()
    assert west > 0 > east
    assert item.geometry is not None
    assert item.geometry["type"] == "MultiPolygon"
    found = shapely.geometry.shape(item.geometry)
    assert found.is_valid
    assert (found.bounds[0], found.bounds[2]) == (-180, 180)
