"""Polygons on Earth: where pyproj has them, as large as it says; drawn again, the labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import StoreError
from saccade.pipeline.exports.closed_rings import densified
from saccade.pipeline.exports.frame_ground import Ground
from saccade.pipeline.exports.geojson_ground import ground_collection
from saccade.pipeline.exports.geoparquet import EDGES, geo_metadata, write_geoparquet
from saccade.pipeline.exports.labelled_regions import Shapes
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.longitudes import area_m2, continued, cut
from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.store import ImageStore

pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")
geopandas = pytest.importorskip("geopandas")
features = pytest.importorskip("rasterio.features")

HEIGHT, WIDTH = 211, 307  # of level 0; the result is half as large
DEGREES = Crs(4326, geographic=True)
PLACES = {
    "zone 33": Georeference(Crs(32633), Affine(30, 0, 600_000, 0, -30, 5_000_000)),
    "rotated": Georeference(Crs(32633), Affine(30, 12, 600_000, 12, -30, 5_000_000)),
    "south up": Georeference(Crs(32733), Affine(30, 0, 600_000, 0, 30, 7_000_000)),
    "mercator": Georeference(Crs(3857), Affine(0.5, 0, 3_629_000, 0, -0.5, 35_000)),
    "degrees": Georeference(DEGREES, Affine(0.1, 0, -20, 0, -0.1, 70)),
    "dateline": Georeference(Crs(32660), Affine(3000, 0, 300_000, 0, -3000, 6_000_000)),
    "beyond 180": Georeference(DEGREES, Affine(0.1, 0, 165, 0, -0.1, 10)),
    "pole": Georeference(Crs(3031), Affine(30_000, 0, -4_500_000, 0, -30_000, 3_300_000)),
}
WGS84 = pyproj.Geod(ellps="WGS84")


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Georeference:
    return PLACES[request.param]


@pytest.fixture(scope="module")
def result(place: Georeference, results: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two classes in blobs, with holes, at half of level 0's resolution and with odd edges."""
    only = results.layout("only", 0, (HEIGHT, WIDTH), 1, stride=2, window_tiles=0)
    plan = results.plan_of((only,), georeference=place)
    ((scores, status),) = results.random_answers(plan, 5)
    coarse = np.random.default_rng(3).integers(60, 200, (12, 16))
    scores[0] = np.kron(coarse, np.ones((11, 11)))[: scores.shape[1], : scores.shape[2]]
    scores[1] = 255 - scores[0]
    path = tmp_path_factory.mktemp("ground") / "slide.ome.zarr"
    results.write_all(ImageStore.create(path, plan, {"recipe": {}}), [(scores, status)])
    return open_result(path)


def ground_of(result: Result) -> Ground:
    ground = Ground.of(result.plan)
    assert ground is not None
    return ground


def geojson(result: Result) -> list[dict[str, Any]]:
    labelling = Labelling(result, result.classes)
    found = "".join(ground_collection(labelling, ground_of(result), {"state": "x"}))
    return json.loads(found)["features"]  # type: ignore[no-any-return]


def geodesic_m2(geometry: Any) -> float:
    """Square metres by Karney's geodesics, edges no longer than a tenth of a degree."""
    return abs(WGS84.geometry_area_perimeter(shapely.segmentize(geometry, 0.1))[0])


# ----------------------------------------------------------------------------------------- GeoJSON


def test_every_polygon_is_valid_within_180_degrees_and_counterclockwise(result: Result) -> None:
    for feature in geojson(result):
        found = shapely.geometry.shape(feature["geometry"])
        assert found.is_valid, shapely.is_valid_reason(found)
        west, south, east, north = found.bounds
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
        for polygon in getattr(found, "geoms", [found]):
            assert polygon.exterior.is_ccw
            assert not any(ring.is_ccw for ring in polygon.interiors)


def test_areas_are_those_of_geodesics_within_a_thousandth(result: Result) -> None:
    for feature in geojson(result):
        expected = geodesic_m2(shapely.geometry.shape(feature["geometry"]))
        assert feature["properties"]["area_m2"] == pytest.approx(expected, rel=1e-3)


def test_polygons_cover_the_image_and_nothing_twice(result: Result) -> None:
    shapes = [shapely.geometry.shape(one["geometry"]) for one in geojson(result)]
    whole = shapely.union_all(shapes)
    assert geodesic_m2(whole) == pytest.approx(sum(map(geodesic_m2, shapes)), rel=1e-4)


def test_simplified_polygons_are_valid_and_cover_nothing_twice(result: Result) -> None:
    labelling, shapes = Labelling(result, result.classes), Shapes(simplify_px=9.0)
    text = "".join(ground_collection(labelling, ground_of(result), {"state": "x"}, shapes))
    found, whole = json.loads(text)["features"], geojson(result)
    said = [{one["id"]: one["properties"] for one in features} for features in (found, whole)]
    assert said[0] == said[1]
    told = [shapely.geometry.shape(one["geometry"]) for one in found]
    assert all(one.is_valid for one in told)
    total = geodesic_m2(shapely.union_all(told))
    assert total == pytest.approx(sum(map(geodesic_m2, told)), rel=1e-4)
    # the image's own border stays as it is
    before = shapely.union_all([shapely.geometry.shape(one["geometry"]) for one in whole])
    assert total == pytest.approx(geodesic_m2(before), rel=1e-4)


def test_every_pixel_of_the_result_lies_in_a_polygon_of_its_class(result: Result) -> None:
    labels, ground = np.asarray(result.labels), ground_of(result)
    # centres of pixels, but of those that reach beyond the image
    rows, columns = (one.ravel() for one in np.mgrid[: HEIGHT // 2, : WIDTH // 2])
    at = ground.lonlat(np.stack([columns + 0.5, rows + 0.5], axis=1))
    lon = (at[:, 0] + 180) % 360 - 180
    for value, name in enumerate(result.classes):
        mine = [one for one in geojson(result) if one["properties"]["class"] == name]
        inside = np.zeros(len(lon), bool)
        for feature in mine:
            inside |= shapely.contains_xy(
                shapely.geometry.shape(feature["geometry"]), lon, at[:, 1]
            )
        np.testing.assert_array_equal(inside, labels[rows, columns] == value)


def test_coordinates_are_those_of_pyproj_to_a_thousandth_of_a_pixel(place: Georeference) -> None:
    assert place.crs is not None
    ground = Ground(place, place.crs, 2.0, (HEIGHT, WIDTH))
    corners = np.random.default_rng(1).integers(0, 100, (50, 2))
    found = np.round(ground.lonlat(corners), ground.decimals)
    there = pyproj.Transformer.from_crs(4326, place.crs.epsg, always_xy=True)
    assert place.affine is not None
    x, y = there.transform(found[:, 0], found[:, 1])
    back = place.affine.inverse().place(np.stack([x, y], axis=1)) / 2
    if place is PLACES["beyond 180"]:
        back = place.affine.inverse().place(found) / 2
    np.testing.assert_allclose(back, corners, atol=2e-3)


def test_a_coordinate_system_that_nobody_knows_is_told() -> None:
    place = Georeference(Crs(65535), Affine(10, 0, 5e5, 0, -10, 4e6))
    assert place.crs is not None
    ground = Ground(place, place.crs, 1.0, (HEIGHT, WIDTH))
    with pytest.raises(StoreError, match="EPSG:65535: a coordinate system that PROJ knows"):
        ground.lonlat(np.zeros((1, 2)))
    with pytest.raises(StoreError, match="EPSG:65535: a coordinate system that PROJ knows"):
        geo_metadata(place.crs)


def test_straight_lines_bend_no_more_than_stated(place: Georeference) -> None:
    """Of a ring around the whole image, against the same with a point at every pixel."""
    assert place.crs is not None
    if place is PLACES["pole"]:
        pytest.skip("degrees tell no direction at a pole")
    ground = Ground(place, place.crs, 2.0, (HEIGHT, WIDTH))
    ring = np.array([[0, 0], [153, 0], [153, 105], [0, 105]])
    coarse = shapely.LinearRing(ground.rings([ring])[0])
    dense = shapely.points(continued(ground.lonlat(densified(ring, 1))))
    pixel = np.hypot(*np.diff(continued(ground.lonlat(np.array([[9, 9], [10, 9]]))), axis=0)[0])
    assert shapely.distance(coarse, dense).max() < 0.2 * pixel


def test_control_points_place_polygons_too() -> None:
    corners = ((0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT))
    affine = Affine(0.01, 0.001, 10, 0.002, -0.01, 50)
    points = tuple(
        ControlPoint(c, r, *affine.place(np.array([[c, r]]))[0].tolist()) for c, r in corners
    )
    ground = Ground(Georeference(DEGREES, None, points), DEGREES, 2.0, (HEIGHT, WIDTH))
    found = ground.lonlat(np.array([[3, 7], [50, 90]]))
    np.testing.assert_allclose(found, affine.place(np.array([[6, 14], [100, 180]])), atol=1e-9)


# ------------------------------------------------------------------------------------------ pieces


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 90), st.integers(1, 90))
def test_points_are_added_at_multiples_of_the_step_alone(
    x: int, y: int, width: int, height: int
) -> None:
    ring = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    for turned in (ring, ring[::-1]):
        found = densified(turned, 7)
        given_points, new = {tuple(one) for one in ring}, {tuple(one) for one in found}
        assert given_points <= new
        assert len(new) == len(found)
        assert all(column % 7 == 0 or row % 7 == 0 for column, row in new - given_points)
        steps = np.abs(np.roll(found, -1, axis=0) - found).sum(axis=1)
        assert steps.max() <= 7
        assert steps.sum() == 2 * (width + height)


def test_a_cell_of_degrees_is_as_large_as_pyproj_says() -> None:
    for south in (-90, -60, 0, 45, 89):
        cell = np.array([[10, south], [11, south], [11, south + 1], [10, south + 1]], float)
        expected = abs(
            WGS84.geometry_area_perimeter(shapely.segmentize(shapely.Polygon(cell), 0.001))[0]
        )
        assert area_m2([cell]) == pytest.approx(expected, rel=1e-6)


def test_a_ring_across_the_antimeridian_becomes_two_polygons() -> None:
    ring = np.array([[179.0, 0], [-179.0, 0], [-179.0, 1], [179.0, 1]])
    one, other = sorted(cut([continued(ring)]), key=lambda part: part[0][:, 0].min())
    assert (one[0][:, 0].min(), one[0][:, 0].max()) == (-180, -179)
    assert (other[0][:, 0].min(), other[0][:, 0].max()) == (179, 180)


def test_holes_stay_holes_on_both_sides_of_the_antimeridian() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    outer = square * (7, 7) + (177, 0)
    corners = [(x, y) for x in (178, 179.5, 181, 182.5) for y in (1, 3, 5)]
    parts = cut([outer, *(square + corner for corner in corners)])
    assert sorted(len(part) - 1 for part in parts) == [3, 6]
    shapes = [shapely.Polygon(part[0], part[1:]) for part in parts]
    assert sum(shape.area for shape in shapes) == pytest.approx(49 - len(corners))
    assert all(shape.is_valid for shape in shapes)


@pytest.mark.parametrize("hole", [False, True])
def test_a_ring_around_a_pole_holds_it(hole: bool) -> None:
    lon = np.arange(0, 360, 10.0)
    lon = np.where(lon > 180, lon - 360, lon)
    rings = [continued(np.stack([lon, np.full(36, -70.0)], axis=1))]
    if hole:
        rings.append(continued(np.stack([np.roll(lon, 5), np.full(36, -80.0)], axis=1)))
    shape = shapely.union_all([shapely.Polygon(part[0], part[1:]) for part in cut(rings)])
    assert shape.covers(shapely.Point(0.5, -75))
    assert shape.covers(shapely.Point(-179.5, -89)) != hole
    expected = area_m2([np.array([[0, -90], [360, -90], [360, -70], [0, -70]], float)])
    if hole:
        expected -= area_m2([np.array([[0, -90], [360, -90], [360, -80], [0, -80]], float)])
    assert area_m2(rings) == pytest.approx(expected)


# -------------------------------------------------------------------------------------- GeoParquet


def parquet(result: Result, path: Path, **more: Any) -> Any:
    labelling = Labelling(result, result.classes)
    write_geoparquet(path, labelling, ground_of(result), {"state": "x"}, **more)
    return geopandas.read_parquet(path)


def test_geopandas_reads_polygons_in_the_crs_of_the_image(result: Result, tmp_path: Path) -> None:
    assert result.plan.georeference is not None
    place = result.plan.georeference
    table = parquet(result, tmp_path / "x.parquet")
    assert table.crs.to_epsg() == place.crs.epsg  # type: ignore[union-attr]
    assert table.geometry.is_valid.all()
    assert table.geometry.exterior.is_ccw.all()
    assert (table.geom_type == "Polygon").all()
    assert set(table["class"]) == set(result.classes)


def test_polygons_drawn_again_are_the_labels(result: Result, tmp_path: Path) -> None:
    from affine import Affine as Transform

    table = parquet(result, tmp_path / "x.parquet")
    assert result.plan.georeference is not None
    place = result.plan.georeference.at(2.0).affine
    assert place is not None
    values = {name: index for index, name in enumerate(result.classes)}
    shapes = [(row.geometry, values[row["class"]]) for _, row in table.iterrows()]
    labels = np.asarray(result.labels)
    whole = (HEIGHT // 2, WIDTH // 2)  # a last pixel that is cut off may miss its centre
    drawn = features.rasterize(shapes, whole, fill=255, transform=Transform(*place.to_tuple()))
    np.testing.assert_array_equal(drawn, labels[: whole[0], : whole[1]])


def test_rows_say_the_same_as_features(result: Result, tmp_path: Path) -> None:
    table = parquet(result, tmp_path / "x.parquet").set_index("id")
    told = geojson(result)
    assert len(table) == len(told)
    for feature in told:
        row, said = table.loc[feature["id"]], feature["properties"]
        assert (row["class"], row["score"], row["pixels"]) == (
            *(said["class"], said["score"]),
            said["pixels"],
        )
        assert row["area_m2"] == pytest.approx(said["area_m2"])


def test_boxes_cover_geometries_and_the_file_says_so(result: Result, tmp_path: Path) -> None:
    import pyarrow.parquet

    table = parquet(result, tmp_path / "x.parquet")
    bounds = table.geometry.bounds.to_numpy()
    boxes = pyarrow.parquet.read_table(tmp_path / "x.parquet")["bbox"].to_pylist()
    boxes = np.array([[one[edge] for edge in EDGES] for one in boxes])
    np.testing.assert_array_equal(boxes, bounds)
    told = json.loads(pyarrow.parquet.read_schema(tmp_path / "x.parquet").metadata[b"geo"])
    column = told["columns"]["geometry"]
    assert (told["version"], column["encoding"]) == ("1.1.0", "WKB")
    west, south, east, north = table.total_bounds
    inside = (west, south, (west + east) / 2, (south + north) / 2)
    part = geopandas.read_parquet(tmp_path / "x.parquet", bbox=inside)
    assert 0 < len(part) < len(table)


def test_a_result_without_regions_is_a_table_without_rows(result: Result, tmp_path: Path) -> None:
    table = parquet(result, tmp_path / "x.parquet", shapes=Shapes(least_px=10**6))
    assert len(table) == 0
    assert table.crs is not None
