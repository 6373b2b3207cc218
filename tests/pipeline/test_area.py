"""An area of interest meets the tiles that share ground with it, in whatever CRS it was drawn."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from saccade.pipeline import area as area_module
from saccade.pipeline.area import Edges, Polygon, tiles_met
from saccade.pipeline.area_files import area_digest, area_place, read_area
from saccade.pipeline.area_wkb import polygons_of_wkb
from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Grid
from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference

if TYPE_CHECKING:
    from object_server import Bucket

shapely = pytest.importorskip("shapely")
UTM = Crs(32632)
PLACE = Georeference(UTM, Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
"""Ten metres per pixel, north up."""


def polygon_of(shape: Any) -> Polygon:
    return tuple(np.asarray(ring.coords) for ring in (shape.exterior, *shape.interiors))


def met(shapes: Any, grid: Grid, downsample: float = 1.0) -> np.ndarray:
    return tiles_met(Edges.of([polygon_of(shape) for shape in shapes]), grid, downsample)


def expected(shapes: Any, grid: Grid, downsample: float = 1.0) -> np.ndarray:
    """Tiles that share ground with a shape, by shapely."""
    whole = shapely.union_all(shapes)
    found = np.zeros((grid.rows, grid.columns), bool)
    for index in range(len(grid)):
        box = grid.box(index)
        sides = (side * downsample for side in (box.x0, box.y0, box.x1, box.y1))
        found[grid.cell(index)] = shapely.box(*sides).intersection(whole).area > 0
    return found


# Places on a lattice of quarters: corners fall on tiles' corners and edges run along their edges.
PLACES = st.integers(-20, 100).map(lambda n: n / 4)


@st.composite
def triangles(draw: st.DrawFn) -> Any:
    shape = shapely.Polygon([(draw(PLACES), draw(PLACES)) for _ in range(3)])
    assume(shape.is_valid and shape.area > 0)
    return shape


SLIVER = shapely.Polygon([(-3.5, 23.75), (5.5, 7.25), (5.25, 7.75)])
"""An edge of it runs through corners of tiles."""


@given(
    st.lists(triangles(), min_size=1, max_size=3),
    st.lists(triangles(), max_size=2),
    st.integers(1, 7),
    st.sampled_from([1.0, 2.0, 2.5]),
)
@example([SLIVER], [], 1, 1.0)
@example([SLIVER], [], 1, 2.0)
@example([SLIVER], [], 1, 2.5)
@example([SLIVER], [], 2, 1.0)
@example([SLIVER], [], 3, 1.0)
@example([SLIVER], [], 5, 1.0)
def test_tiles_are_met_that_share_ground_with_any_polygon(
    shapes: Any, cut: Any, tile_px: int, downsample: float
) -> None:
    left = [shape.difference(shapely.union_all(cut)) for shape in shapes]
    parts = [p for shape in left for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
    parts = [part for part in parts if part.is_valid and part.area > 1e-9]
    grid = Grid((19, 23), tile_px)
    found, right = met(parts, grid, downsample), expected(parts, grid, downsample)
    # where two shapes cut each other, corners are rounded to a millionth of a pixel
    unsure = expected([p.buffer(1e-4) for p in parts], grid, downsample)
    unsure &= ~expected([p.buffer(-1e-4) for p in parts], grid, downsample)
    assert ((found == right) | unsure).all()
    if not cut:
        assert (found == right).all()


def test_an_area_along_tiles_edges_meets_these_tiles_only() -> None:
    grid = Grid((40, 40), 8)
    found = met([shapely.box(8, 16, 24, 32)], grid)
    assert np.argwhere(found).tolist() == [[r, c] for r in (2, 3) for c in (1, 2)]
    nearly = met([shapely.box(8 - 1e-9, 16 + 1e-9, 24 + 1e-9, 32 - 1e-9)], grid)
    assert (found == nearly).all()


def test_holes_are_outside_and_overlapping_polygons_are_inside() -> None:
    grid = Grid((90, 90), 10)
    ring = shapely.Polygon(
        shapely.box(0, 0, 90, 90).exterior, [shapely.box(20, 20, 70, 70).exterior]
    )
    found = met([ring], grid)
    assert not found[2:7, 2:7].any()
    assert found.sum() == 81 - 25
    assert met([ring, shapely.box(0, 0, 60, 60), shapely.box(30, 30, 90, 90)], grid).sum() == 81 - 2


def test_ground_beyond_the_images_edge_meets_nothing() -> None:
    grid = Grid((25, 25), 10)
    assert not met([shapely.box(25, 25, 29, 29)], grid).any()
    assert not met([shapely.box(-50, -50, 0, 0), shapely.box(26, 0, 90, 25)], grid).any()
    assert met([shapely.box(-50, -50, 90, 90)], grid).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_tiles_as_rasterio_burns_pixels_of(seed: int) -> None:
    features = pytest.importorskip("rasterio.features")
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.random(60)) * 2 * np.pi
    radii = generator.uniform(30, 140, 60)
    points = np.stack([150 + radii * np.cos(angles), 150 + radii * np.sin(angles)], axis=1)
    shape = shapely.Polygon(points).buffer(0)
    grid = Grid((300, 300), 16)
    parts = [p for p in shapely.get_parts(shape) if p.area]
    burnt = features.geometry_mask(
        parts, (300, 300), Affine_(1, 0, 0, 0, 1, 0), all_touched=True, invert=True
    )
    found = met(parts, grid)
    tiles = np.array([burnt[grid.box(i).slices].any() for i in range(len(grid))])
    differ = found.ravel() != tiles
    # rasterio leaves out, or adds, what is met by less than a hundredth of a pixel
    sure = expected([p.buffer(-0.02) for p in parts], grid)
    never = ~expected([p.buffer(0.02) for p in parts], grid)
    assert not (differ & (sure | never).ravel()).any()
    assert differ.mean() < 0.01


def Affine_(*numbers: float) -> Any:  # noqa: N802 - rasterio's own class, by another name
    return pytest.importorskip("rasterio").Affine(*numbers)


def test_a_million_vertices_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.linspace(0, 2 * np.pi, 1_000_001)
    points = np.stack([500 + 400 * np.cos(angles), 500 + 400 * np.sin(angles)], axis=1)
    points[-1] = points[0]
    grid = Grid((1000, 1000), 10)
    found = tiles_met(Edges.of([(points,)]), grid, 1.0)
    assert (found == expected([shapely.Polygon(points[::1000])], grid)).mean() > 0.999
    monkeypatch.setattr(area_module, "MOST_CROSSINGS", 1009)
    few = Edges.of([(points[::1000],)])
    in_parts = tiles_met(few, grid, 1.0)
    monkeypatch.setattr(area_module, "MOST_CROSSINGS", 1 << 21)
    assert (tiles_met(few, grid, 1.0) == in_parts).all()


# ------------------------------------------------------------------------------------------- files


def written(folder: Path, tree: Any, name: str = "area.geojson") -> Path:
    (folder / name).write_text(json.dumps(tree))
    return folder / name


def geojson(*shapes: Any, crs: str | None = None) -> dict[str, Any]:
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for shape in shapes
    ]
    tree: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs is not None:
        tree["crs"] = {"type": "name", "properties": {"name": crs}}
    return tree


def edges_of(path: Path, place: Georeference | None = PLACE) -> Edges:
    return read_area(str(path), area_digest(path)).over(place, "image.tif")


SHAPE = shapely.Polygon(
    [(501_000, 4_999_000), (503_000, 4_998_000), (502_000, 4_997_000)],
    [[(501_900, 4_998_400), (502_100, 4_998_300), (502_000, 4_998_000)]],
)
"""In UTM."""


@pytest.mark.parametrize("crs", ["EPSG:32632", "urn:ogc:def:crs:EPSG::32632"])
def test_geojson_in_the_images_crs_needs_no_other_package(tmp_path: Path, crs: str) -> None:
    edges = edges_of(written(tmp_path, geojson(SHAPE, crs=crs)))
    assert len(edges.starts) == 6
    assert sorted(edges.starts.tolist())[0] == [100.0, 100.0]


def test_an_area_in_another_crs_lies_where_proj_says(tmp_path: Path) -> None:
    warp = pytest.importorskip("rasterio.warp")
    there = shapely.geometry.shape(
        warp.transform_geom("EPSG:32632", "EPSG:4326", shapely.geometry.mapping(SHAPE))
    )
    own = edges_of(written(tmp_path, geojson(SHAPE, crs="EPSG:32632")))
    for path in (
        written(tmp_path, geojson(there), "a.geojson"),
        written(tmp_path, shapely.geometry.mapping(there), "b.json"),
        geopackage(tmp_path / "c.gpkg", [there], 4326),
        geopackage(tmp_path / "d.gpkg", [shapely.MultiPolygon([SHAPE])], 32632),
    ):
        found = edges_of(path)
        grid = Grid((400, 400), 7)
        assert (tiles_met(found, grid, 1.0) == tiles_met(own, grid, 1.0)).mean() > 0.999
        assert abs(found.starts[0] - own.starts[0]).max() < 1e-3


def test_long_edges_bend_as_they_do_on_the_ground(tmp_path: Path) -> None:
    """A parallel is straight in longitude and latitude and is none in UTM."""
    warp = pytest.importorskip("rasterio.warp")
    edges = edges_of(written(tmp_path, geojson(shapely.box(6.0, 44.0, 12.0, 45.0))))
    longitudes = np.linspace(6.0, 12.0, 1001)
    x, y = warp.transform("EPSG:4326", "EPSG:32632", longitudes, np.full(1001, 45.0))
    assert PLACE.affine is not None
    true = PLACE.affine.inverse().place(np.stack([x, y], axis=1))
    ring = shapely.LineString([*edges.starts, edges.ends[-1]])
    assert max(shapely.distance(ring, shapely.points(true))) < 0.1


def geopackage(path: Path, shapes: Any, epsg: int, more: str = "") -> Path:
    """The few tables of a GeoPackage that say where its features lie."""
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id)")
    base.execute(
        "CREATE TABLE gpkg_spatial_ref_sys "
        "(srs_id, organization, organization_coordsys_id, definition)"
    )
    base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (7, 'EPSG', ?, '')", (epsg,))
    base.execute("INSERT INTO gpkg_geometry_columns VALUES ('a \"b\"', 'geom', 7)")
    base.execute('CREATE TABLE "a ""b""" (fid INTEGER, geom BLOB)')
    for shape in shapes:
        envelope = struct.pack("<4d", *(shape.bounds[i] for i in (0, 2, 1, 3)))
        header = b"GP" + bytes([0, 0b0011]) + struct.pack("<i", 7) + envelope
        base.execute('INSERT INTO "a ""b""" VALUES (1, ?)', (header + shapely.to_wkb(shape),))
    base.execute('INSERT INTO "a ""b""" VALUES (2, NULL)')
    base.commit()
    base.close()
    return path


def test_a_geopackage_written_by_others_is_read(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"name": ["x"]}, geometry=[SHAPE], crs="EPSG:32632")
    try:
        frame.to_file(tmp_path / "x.gpkg", driver="GPKG")
    except ImportError:
        pytest.skip("geopandas has no writer of files here")
    assert len(edges_of(tmp_path / "x.gpkg").starts) == 6


@given(triangles(), st.booleans(), st.booleans(), st.sampled_from(["iso", "extended"]))
def test_well_known_binary_is_read_in_all_its_forms(
    shape: Any, big: bool, deep: bool, flavour: str
) -> None:
    other = shapely.MultiPolygon([shape, shapely.box(0, 0, 1, 1)])
    flat = shapely.force_3d(other, 5.0) if deep else other
    data = shapely.to_wkb(flat, byte_order=0 if big else 1, flavor=flavour)
    found = polygons_of_wkb(data)
    assert len(found) == 2
    assert (found[0][0] == np.asarray(shape.exterior.coords)).all()
    with pytest.raises(ValueError, match="well-known binary expected"):
        polygons_of_wkb(data[:-1])


# ----------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "polygons and multipolygons expected; found Po"),
        ({"type": "FeatureCollection", "features": []}, "an area has a polygon; found none"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}, "4 positions or more"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [0, 2]]]}, "ends where it"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 2], [0, 0]]]}, "no ground"),
        ({"type": "Polygon", "coordinates": [[[0, 0], ["x"], [2, 2], [0, 0]]]}, "positions"),
        ({"type": "Polygon", "coordinates": []}, "it has no ring"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 1], [0, 0]]]},
            "polygon 1 of 1 is not valid: Self-intersection",
        ),
        (geojson(SHAPE, crs="local grid"), "found 'local grid'"),
        ([1], "GeoJSON is an object"),
    ],
)
def test_what_is_no_area_is_refused_with_the_reason(tmp_path: Path, tree: Any, said: str) -> None:
    path = written(tmp_path, tree)
    with pytest.raises(UsageError, match=said) as caught:
        edges_of(path)
    assert str(path) in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.shp").write_bytes(b"\0\0\x27\x0a")
    with pytest.raises(UsageError, match="GeoJSON or a GeoPackage; found neither"):
        edges_of(tmp_path / "a.shp")
    with pytest.raises(UsageError, match=r"gone\.gpkg: an area .* can't be read: No such file"):
        area_digest(tmp_path / "gone.gpkg")
    points = geopackage(tmp_path / "p.gpkg", [shapely.LineString([(0, 0), (1, 1)])], 4326)
    with pytest.raises(UsageError, match="polygons expected; found LineString"):
        edges_of(points)


def test_an_area_that_changed_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, geojson(SHAPE))
    digest = area_digest(path)
    written(tmp_path, geojson(shapely.box(0, 0, 1, 1)))
    with pytest.raises(UsageError, match="the area changed while the run was going on"):
        read_area(str(path), digest)


@pytest.mark.parametrize(
    "place",
    [None, Georeference(None, PLACE.affine), Georeference(UTM, None, (ControlPoint(0, 0, 1, 1),))],
)
def test_an_image_that_lies_nowhere_has_no_area(tmp_path: Path, place: Georeference | None) -> None:
    path = written(tmp_path, geojson(SHAPE))
    with pytest.raises(UsageError, match=r"image\.tif: an area of interest needs an image with"):
        edges_of(path, place)


def test_a_coordinate_system_that_nobody_knows_is_told(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    path = written(tmp_path, geojson(shapely.box(0, 0, 1, 1), crs="EPSG:999999"))
    with pytest.raises(UsageError, match=r"EPSG:999999: a coordinate system that PROJ knows"):
        edges_of(path)


def test_places_that_the_images_crs_does_not_have_are_told(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    path = written(tmp_path, geojson(shapely.box(0, -95, 10, 10)))
    with pytest.raises(UsageError, match=r"in EPSG:4326 can't be told in EPSG:32632: .*; cut the"):
        edges_of(path)


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_an_area_in_an_object_store_is_that_of_the_file(
    tmp_path: Path, bucket: Bucket, kind: str
) -> None:
    path = tmp_path / f"area.{kind}"
    if kind == "geojson":
        written(tmp_path, geojson(SHAPE, crs="EPSG:32632"))
    else:
        geopackage(path, [SHAPE], 32632)
    uri = bucket.put(f"areas/area.{kind}", path)
    assert area_digest(uri) == area_digest(path)
    assert area_place(tmp_path, uri) == uri
    found = read_area(uri, area_digest(uri)).over(PLACE, "image.tif")
    np.testing.assert_array_equal(found.starts, edges_of(path).starts)
    bucket.put(f"areas/area.{kind}", b"another")
    read_area.cache_clear()
    with pytest.raises(UsageError, match="the area changed while the run was going on"):
        read_area(uri, area_digest(path))


def test_an_area_that_is_not_in_its_object_store_is_told(bucket: Bucket) -> None:
    uri = bucket.put("areas/there.geojson", b"{}").replace("there", "gone")
    with pytest.raises(UsageError, match=r"gone\.geojson"):
        area_digest(uri)
