"""COGs as others read them: rasterio finds place, values and colours, rio-cogeo no fault."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from saccade.pipeline.exports import cog as module
from saccade.pipeline.exports.cog import CogFacts, write_cog
from saccade.pipeline.exports.gdal_xml import auxiliary, gdal_metadata
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.rasters import NODATA, answers_raster, probabilities_raster
from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.resampling import halve_mean, halve_mode
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources import open_source
from saccade.pipeline.store import ImageStore

rasterio = pytest.importorskip("rasterio")
cogeo = pytest.importorskip("rio_cogeo.cogeo")

HEIGHT, WIDTH = 1101, 541
NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
UTM = Georeference(Crs(32633), NORTH_UP)
LEGEND = {0: ("a", (255, 0, 1), 255), 1: ("<b> & ü", (3, 255, 4), 255)}


@pytest.fixture(scope="module", params=["uint8", "float16"])
def result(
    request: pytest.FixtureRequest, results: Any, tmp_path_factory: pytest.TempPathFactory
) -> Result:
    """Three levels, several tiles along each axis, cut off at both edges; a part not answered."""
    only = results.layout("only", 0, (HEIGHT, WIDTH), 1, tile=256, chunk=512, shard=1024)
    plan = results.plan_of((only,), scores=request.param)
    path = tmp_path_factory.mktemp("cog") / "slide.ome.zarr"
    store = ImageStore.create(path, plan, {"recipe": {}})
    results.write_all(store, results.random_answers(plan, 11, (1, 1, 1, 0)))
    return open_result(path)


def write(result: Result, content: str, path: Path, place: Georeference = UTM) -> Path:
    labelling, labels = Labelling(result, result.classes), content == "labels"
    raster = (answers_raster if labels else probabilities_raster)(labelling)
    legend = LEGEND if labels else {}
    told = gdal_metadata({"state": "x"}, "MODE" if labels else "AVERAGE", raster.channels, legend)
    palette = {value: colour for value, (_, colour, _) in legend.items()}
    write_cog(path, raster, CogFacts(place, str(NODATA) if labels else "nan", told, palette))
    return path


def expected(result: Result, content: str) -> list[np.ndarray]:
    """The pyramid as it should be, computed on the whole image at once."""
    labels = np.asarray(result.labels)
    if content == "labels":
        levels, halve = [labels[None]], lambda one: halve_mode(one[0])[None]
    else:
        scores = np.where(labels == NODATA, np.float32(np.nan), np.asarray(result.scores))
        levels, halve = [scores], halve_mean
    while max(levels[-1].shape[1:]) > 512:
        levels.append(halve(levels[-1]))
    return levels


@pytest.mark.parametrize("content", ["labels", "scores"])
def test_it_is_valid_without_a_warning(result: Result, content: str, tmp_path: Path) -> None:
    path = write(result, content, tmp_path / "x.tif")
    assert cogeo.cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize("content", ["labels", "scores"])
def test_rasterio_reads_every_level_as_it_was_computed(
    result: Result, content: str, tmp_path: Path
) -> None:
    path = write(result, content, tmp_path / "x.tif")
    for level, values in enumerate(expected(result, content)):
        options = {} if level == 0 else {"overview_level": level - 1}
        with rasterio.open(path, **options) as file:
            np.testing.assert_array_equal(file.read(), values)
            assert file.block_shapes[0] == (512, 512)
            assert file.compression.name == "deflate"


def test_what_was_not_answered_is_nodata_and_no_class_is(result: Result, tmp_path: Path) -> None:
    unknown = np.asarray(result.labels) == NODATA
    assert unknown.any()
    for content in ("labels", "scores"):
        with rasterio.open(write(result, content, tmp_path / f"{content}.tif")) as file:
            for band in file.indexes:
                np.testing.assert_array_equal(file.read_masks(band) == 0, unknown)


@pytest.mark.parametrize(
    "affine",
    [
        NORTH_UP,
        Affine(10.0, 0.0, 500_000.0, 0.0, 10.0, 4_000_000.0),  # south up
        Affine(7.0, 3.0, 500_000.0, 3.0, -7.0, 4_000_000.0),  # rotated
    ],
)
@pytest.mark.parametrize("crs", [Crs(32633), Crs(3857), Crs(4326, geographic=True)])
def test_it_lies_where_the_image_does(
    result: Result, tmp_path: Path, affine: Affine, crs: Crs
) -> None:
    scale = 1e-5 if crs.geographic else 1.0
    place = Georeference(crs, Affine(*(scale * one for one in affine.to_tuple())))
    path = write(result, "labels", tmp_path / "x.tif", place)
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == crs.epsg
        assert place.affine is not None
        assert tuple(file.transform)[:6] == pytest.approx(place.affine.to_tuple(), rel=1e-12)
    source = open_source(str(path))
    assert source.georeference == place
    source.close()


def test_a_crs_without_a_number_is_described_by_its_text(result: Result, tmp_path: Path) -> None:
    wkt = rasterio.crs.CRS.from_proj4(
        "+proj=laea +lat_0=10.5 +lon_0=20.25 +datum=WGS84 +units=m"
    ).to_wkt()
    path = write(result, "labels", tmp_path / "x.tif", Georeference(Crs(None, wkt), NORTH_UP))
    with rasterio.open(path) as file:
        assert file.crs.to_dict()["proj"] == "laea"
        assert (file.crs.to_dict()["lat_0"], file.crs.to_dict()["lon_0"]) == (10.5, 20.25)
        assert tuple(file.transform)[:6] == NORTH_UP.to_tuple()


def test_control_points_stay_control_points(result: Result, tmp_path: Path) -> None:
    points = (
        ControlPoint(0, 0, 10.0, 50.0),
        ControlPoint(WIDTH, 0, 11.0, 50.1),
        ControlPoint(0, HEIGHT, 10.1, 49.0),
        ControlPoint(WIDTH, HEIGHT, 11.2, 49.1),
    )
    place = Georeference(Crs(4326, geographic=True), None, points)
    with rasterio.open(write(result, "labels", tmp_path / "x.tif", place)) as file:
        found, crs = file.gcps
        assert crs.to_epsg() == 4326
        assert {(p.col, p.row, p.x, p.y) for p in found} == {
            (p.column, p.row, p.x, p.y) for p in points
        }


def test_labels_have_colours_and_names(result: Result, tmp_path: Path) -> None:
    path = write(result, "labels", tmp_path / "x.tif")
    beside = tmp_path / "x.tif.aux.xml"
    beside.write_bytes(auxiliary(LEGEND))
    with rasterio.open(path) as file:
        colours = file.colormap(1)
        assert (colours[0], colours[1]) == ((255, 0, 1, 255), (3, 255, 4, 255))
        assert colours[NODATA][3] == 0
        assert file.colorinterp[0].name == "palette"
        assert file.tags(1) | {"CLASS_0": "a", "CLASS_1": "<b> & ü"} == file.tags(1)
        assert str(beside) in file.files
    root = ElementTree.fromstring(beside.read_bytes())
    assert [one.text for one in root.iter("Category")] == ["a", "<b> & ü"]
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert rows[1] == ["1", "<b> & ü", "3", "255", "4", "255"]


def test_scores_have_a_band_per_class(result: Result, tmp_path: Path) -> None:
    with rasterio.open(write(result, "scores", tmp_path / "x.tif")) as file:
        assert file.descriptions == ("a", "b")
        assert file.dtypes == ("float32", "float32")
        assert file.tags(ns="saccade")["state"] == "x"


def test_a_file_says_how_its_overviews_were_made(result: Result, tmp_path: Path) -> None:
    for content, word in (("labels", "MODE"), ("scores", "AVERAGE")):
        with rasterio.open(write(result, content, tmp_path / "x.tif")) as file:
            assert file.tags()["OVR_RESAMPLING_ALG"] == word


def test_a_file_that_would_grow_too_large_is_a_bigtiff(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = write(result, "labels", tmp_path / "small.tif")
    monkeypatch.setattr(module, "CLASSIC_NBYTES", small.stat().st_size - 1)
    big = write(result, "labels", tmp_path / "big.tif")
    assert (small.read_bytes()[2], big.read_bytes()[2]) == (42, 43)
    assert cogeo.cog_validate(big, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(small) as one, rasterio.open(big) as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_tiles_stand_as_the_structure_says(result: Result, tmp_path: Path) -> None:
    path = write(result, "labels", tmp_path / "x.tif")
    data = path.read_bytes()
    said = b"GDAL_STRUCTURAL_METADATA_SIZE=000140 bytes\n"
    assert data[8:].startswith(said)
    assert data[8 + len(said) + 140 - 2 : 8 + len(said) + 140] == b"\n "
    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
        places = [list(zip(p.dataoffsets, p.databytecounts, strict=True)) for p in pages]
        assert [page.offset for page in pages] == sorted(page.offset for page in pages)
    for offset, size in (tile for page in reversed(places) for tile in page):
        assert struct.unpack("<I", data[offset - 4 : offset]) == (size,)
        assert data[offset + size : offset + size + 4] == data[offset + size - 4 : offset + size]
    begins = [offset for page in reversed(places) for offset, _ in page]
    assert begins == sorted(begins)
    assert pages[-1].offset < begins[0]


def test_the_same_raster_gives_the_same_bytes_and_leaves_nothing_else(
    result: Result, tmp_path: Path
) -> None:
    one = write(result, "scores", tmp_path / "one.tif").read_bytes()
    assert one == write(result, "scores", tmp_path / "two.tif").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"one.tif", "two.tif"}
