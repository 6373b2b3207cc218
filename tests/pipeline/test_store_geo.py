"""A result says where it lies on the ground, and a reader of GeoZarr finds it there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store import ImageStore

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

Make = Callable[[ImagePlan], ImageStore]
UTM = Crs(32636)
AFFINES = {
    "north up": Affine(10, 0, 499980, 0, -10, 60000),
    "south up": Affine(10, 0, 499980, 0, 10, 60000),
    "rotated": Affine(8, -6, 499980, -6, -8, 60000),
}


def finished(
    make_store: Make, plan: ImagePlan, results: Any, place: Georeference | None, folder: Path
) -> Path:
    plan = replace(plan, georeference=place, pixel_size=PixelSize(10, 10, "m"))
    results.write_all(make_store(plan), results.random_answers(plan, 53, (0, 1)))
    return folder / "slide.ome.zarr"


@pytest.fixture(params=AFFINES, ids=lambda name: name.replace(" ", "-"))
def placed(
    request: pytest.FixtureRequest,
    make_store: Make,
    three_passes: ImagePlan,
    results: Any,
    tmp_path: Path,
) -> tuple[Path, Affine]:
    affine = AFFINES[request.param]
    place = Georeference(UTM, affine)
    return finished(make_store, three_passes, results, place, tmp_path), affine


def attributes(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
    return found


def test_every_array_lies_where_its_values_do(placed: tuple[Path, Affine]) -> None:
    path, affine = placed
    stride, tile_px = 2, 32
    wanted = {"0": stride, "1": 2 * stride, "labels/classes/0": stride, "coverage": tile_px}
    wanted |= {"passes/glance/scores": 7, "passes/look/status": 4 * 24, "status": tile_px}
    for array, downsample in wanted.items():
        found = attributes(path / array)
        assert found["spatial:transform"] == list(affine.scaled(downsample, downsample).to_tuple())
        assert found["proj:code"] == "EPSG:32636"
        names = [one["name"] for one in found["zarr_conventions"]]
        assert names == ["spatial:", "proj:"]


def test_rio_tiler_opens_every_level_georeferenced(placed: tuple[Path, Affine]) -> None:
    reader = pytest.importorskip("rio_tiler.experimental.zarr")
    from rasterio.transform import array_bounds

    path, affine = placed
    group = zarr.open_group(path, mode="r")
    for level in ("0", "1", "labels/classes/0", "labels/classes/1"):
        array = group[level]
        opened = reader.ArrayReader(array)
        downsample = 2 * 2 ** int(level.rpartition("/")[2])
        transform = type(opened.transform)(*affine.scaled(downsample, downsample).to_tuple())
        assert opened.crs.to_epsg() == 32636
        assert opened.transform == transform
        assert opened.bounds == array_bounds(*array.shape[-2:], transform)


def test_rio_tiler_reads_the_pixel_at_a_place(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    reader = pytest.importorskip("rio_tiler.experimental.zarr")
    affine = AFFINES["north up"]
    place = Georeference(UTM, affine)
    path = finished(make_store, three_passes, results, place, tmp_path)
    array = zarr.open_group(path, mode="r")["0"]
    values = np.asarray(array[...])
    for row, column in ((3, 5), (97, 101)):
        ((x, y),) = affine.scaled(2, 2).place(np.array([[column + 0.5, row + 0.5]]))
        point = reader.ArrayReader(array).point(x, y, coord_crs="EPSG:32636")
        np.testing.assert_array_equal(point.data, values[:, row, column])


def test_the_group_says_its_bounds_crs_and_pyramid(placed: tuple[Path, Affine]) -> None:
    reader = pytest.importorskip("rio_tiler.experimental.zarr")
    path, affine = placed
    opened = reader.GroupReader(zarr.open_group(path, mode="r"))
    assert opened.crs.to_epsg() == 32636
    found = attributes(path)
    corners = affine.scaled(2, 2).place(
        np.array([[0, 0], [opened.width, 0], [0, opened.height], [opened.width, opened.height]])
    )
    assert opened.bounds == (*corners.min(axis=0), *corners.max(axis=0))
    layout = found["multiscales"]["layout"]
    assert [one["asset"] for one in layout] == [
        one["path"] for one in found["ome"]["multiscales"][0]["datasets"]
    ]
    for one in layout:
        array = attributes(path / one["asset"])
        assert one["spatial:transform"] == array["spatial:transform"]
        assert one["spatial:shape"] == array["spatial:shape"]
    assert [one.get("derived_from") for one in layout] == [
        None,
        *(one["asset"] for one in layout[:-1]),
    ]
    labels = attributes(path / "labels" / "classes")["multiscales"]
    assert labels["resampling_method"] == "mode"
    assert opened.minzoom <= opened.maxzoom


def test_rio_tiler_opens_the_arrays_of_a_pass(placed: tuple[Path, Affine]) -> None:
    reader = pytest.importorskip("rio_tiler.experimental.zarr")
    path, _ = placed
    group = zarr.open_group(path / "passes" / "glance", mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = reader.GroupReader(group).get_group_metadata()["arrays"]
    assert {"scores", "status"} <= set(arrays)


def test_ome_validators_find_a_placed_result_valid(placed: tuple[Path, Affine]) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    models = pytest.importorskip("ome_zarr_models.v05")
    path, _ = placed
    yaozarrs.validate_zarr_store(str(path))
    assert models.Image.from_zarr(zarr.open_group(path, mode="r")).labels is not None


@pytest.mark.parametrize("place", [None, Georeference(UTM, None, (ControlPoint(1, 2, 3, 4),))])
def test_nothing_is_said_without_an_affine(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path, place: Any
) -> None:
    path = finished(make_store, three_passes, results, place, tmp_path)
    for metadata in path.rglob("zarr.json"):
        found = attributes(metadata.parent)
        assert "zarr_conventions" not in found
        assert "multiscales" not in found


def test_a_crs_without_a_number_is_said_as_text(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    place = Georeference(Crs(None, 'PROJCRS["mine"]'), AFFINES["north up"])
    found = attributes(finished(make_store, three_passes, results, place, tmp_path))
    assert found["proj:wkt2"] == 'PROJCRS["mine"]'
    assert "proj:code" not in found
