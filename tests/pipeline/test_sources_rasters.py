"""Rasters: what rasterio says of a file, exactly. Each trap is a test, its rule the name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from fakes import FakeSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.shutil import copy as gdal_copy
from rasterio.transform import Affine as Transform

from saccade.pipeline.errors import ReadError, RecipeError, UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source, rasterio_crs
from saccade.pipeline.sources.array import ArraySource
from saccade.pipeline.sources.averaged import AveragedSource, Need, leaves_pixels_out
from saccade.pipeline.sources.base import Level, Source
from saccade.pipeline.sources.plane import Plane, PlaneSpec, locate
from saccade.pipeline.sources.rasterio_file import RasterioSource
from saccade.pipeline.sources.some_bands import find_channels, seen_through
from saccade.pipeline.sources.tiff import TiffSource

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # of the oracle
)
SHAPE = (211, 307)
NORTH_UP = Transform(10.0, 0.0, 500000.0, 0.0, -10.0, 4600000.0)
UTM = "EPSG:32618"
"""Of a zone in the northern hemisphere."""
OWN = "+proj=laea +lat_0=13 +lon_0=17 +x_0=19 +datum=WGS84 +units=m +no_defs"
"""A projection to which nobody gave a number."""


def noise(count: int, dtype: str = "uint8", shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """``(count, h, w)``, none of them 0."""
    values = np.random.default_rng(count).integers(1, 251, (count, *shape))
    return values.astype(dtype)


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """A tiled GeoTIFF of ``(bands, h, w)``; ``options`` for rasterio replace what is usual."""
    count, height, width = pixels.shape
    usual = {"driver": "GTiff", "crs": UTM, "transform": NORTH_UP}
    usual |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    usual |= {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **usual | options) as dataset:
        dataset.write(pixels)
    return path


@contextmanager
def opened(path: Path, kind: type[Source] = TiffSource) -> Iterator[Source]:
    with closing(open_source(path)) as source:
        assert isinstance(source, kind), type(source)
        yield source


def some_boxes(shape: tuple[int, int]) -> list[Box]:
    """The whole of what is small, and four boxes of odd places."""
    rng = np.random.default_rng(shape[0])
    height, width = (min(side, 700) for side in shape)
    corners = [(0, 0), (shape[0] - height, shape[1] - width)]
    corners += [(int(rng.integers(shape[0])), int(rng.integers(shape[1]))) for _ in range(3)]
    return [Box(y, x, y + height, x + width).clip(shape) for y, x in corners]


def assert_reads_as_rasterio(source: Source, path: Path) -> None:
    """Pixels of every level, and which of them hold data."""
    for level, found in enumerate(source.levels):
        options = {} if level == 0 else {"overview_level": level - 1}
        with rasterio.open(path, **options) as oracle:
            assert found.shape == oracle.shape
            for box in some_boxes(found.shape):
                window = ((box.y0, box.y1), (box.x0, box.x1))
                expected = np.moveaxis(oracle.read(window=window), 0, -1)
                samples = source.read_valid(level, box)
                assert np.array_equal(
                    samples.pixels, expected, equal_nan=expected.dtype.kind == "f"
                )
                assert np.array_equal(source.read(level, box), samples.pixels, equal_nan=True)
                valid = np.asarray(oracle.dataset_mask(window=window)) != 0
                if expected.dtype.kind == "f":
                    valid &= ~np.isnan(expected).all(axis=2)
                assert np.array_equal(valid_of(source, level, box), valid)


def valid_of(source: Source, level: int, box: Box) -> np.ndarray:
    """``(h, w)`` bool."""
    valid = source.read_valid(level, box).where_any()
    return np.ones(box.shape, bool) if valid is None else valid


def assert_describes_as_rasterio(source: Source, path: Path) -> None:
    """Samples, bands, place on the ground."""
    with rasterio.open(path) as oracle:
        assert (source.channels, str(source.dtype)) == (oracle.count, oracle.dtypes[0])
        for band, value in zip(source.bands, oracle.nodatavals, strict=True):
            assert same_value(band.nodata, value)
        assert [band.scale for band in source.bands] == list(oracle.scales)
        assert [band.offset for band in source.bands] == list(oracle.offsets)
        assert [band.unit for band in source.bands] == list(oracle.units)
        for band, text in zip(source.bands, oracle.descriptions, strict=True):
            assert text in (None, band.name)
        assert_lies_as_rasterio_says(source, oracle)


def same_value(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours == theirs or (math.isnan(ours) and math.isnan(theirs))


def assert_lies_as_rasterio_says(source: Source, oracle: Any) -> None:
    place, (points, points_crs) = source.georeference, oracle.gcps
    if oracle.transform.is_identity and not points:
        assert place is None
        return
    assert place is not None
    if points:
        assert place.affine is None
        ours = [(p.column, p.row, p.x, p.y, p.z) for p in place.control_points]
        theirs = [(p.col, p.row, p.x, p.y, p.z) for p in points]
        assert np.array(ours) == pytest.approx(np.array(theirs))
    else:
        assert place.affine is not None
        assert place.affine.to_tuple() == pytest.approx(oracle.transform[:6], rel=1e-14)
    crs = oracle.crs or points_crs
    if not crs or not (crs.is_geographic or crs.is_projected):
        # GDAL makes a local system up where there is none
        assert place.crs is None
        return
    assert place.crs is not None
    assert rasterio.crs.CRS.from_user_input(place.crs.user_input) == crs
    assert place.crs.geographic == crs.is_geographic
    if crs.is_projected:
        assert place.crs.unit_m == pytest.approx(crs.linear_units_factor[1])


# ------------------------------------------------------------------------------------- real files

REAL = ("RGB.byte", "cog_dateline", "cog_gcps", "cog_int16", "cog_nodata", "cog_uint8_rgb_mask")
REAL += ("cog_world", "kampala_buildings", "kampala_rgb", "mosaic_cog1", "mosaic_cog2")


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("reader", [TiffSource, RasterioSource])
def test_every_real_raster_is_what_rasterio_says(
    name: str, reader: type[Source], data: Path
) -> None:
    path = data / "rasters" / f"{name}.tif"
    with closing(reader(path)) as source:  # type: ignore[call-arg]
        assert source.is_raster
        assert_describes_as_rasterio(source, path)
        assert_reads_as_rasterio(source, path)


@pytest.mark.parametrize("name", REAL)
def test_what_tiff_tiles_give_needs_no_rasterio(
    name: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "rasters" / f"{name}.tif"
    monkeypatch.setattr(rasterio_crs, "import_module", missing)
    with opened(path) as source:
        assert source.read(0, Box(0, 0, 7, 11)).shape == (7, 11, source.channels)


def missing(name: str) -> Any:
    raise ImportError(f"No module named {name!r}")


# ------------------------------------------------------------------------------- samples and bands

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dtype=st.sampled_from(DTYPES),
    count=st.sampled_from([1, 2, 3, 4, 7]),
    interleave=st.sampled_from(["pixel", "band"]),
    layout=st.sampled_from([{}, {"tiled": False, "blockysize": 13, "blockxsize": None}]),
    nodata=st.sampled_from([None, 0, 100, "nan"]),
)
def test_any_type_and_number_of_bands_in_any_layout(
    dtype: str,
    count: int,
    interleave: str,
    layout: dict[str, Any],
    nodata: Any,
    tmp_path: Path,
) -> None:
    pixels = noise(count, dtype)
    pixels[:, 20:60, 30:80] = 0 if nodata is None or nodata == "nan" else nodata
    pixels[0, 60:90] = pixels[0, 30, 40]
    if dtype.startswith("float"):
        pixels[:, 100:110] = math.nan
    value = (math.nan if dtype.startswith("float") else 0) if nodata == "nan" else nodata
    plain = {"photometric": "MINISBLACK", "alpha": "NO", "interleave": interleave}
    path = write(tmp_path / "any.tif", pixels, nodata=value, **plain, **layout)
    with opened(path) as source:
        assert_describes_as_rasterio(source, path)
        assert_reads_as_rasterio(source, path)


def test_descriptions_scale_offset_and_units_are_told_per_band(tmp_path: Path) -> None:
    path = write(tmp_path / "told.tif", noise(3, "uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "near infrared", "height")
        dataset.scales, dataset.offsets = (1e-4, 1e-4, 0.1), (-0.1, -0.1, 7.0)
        dataset.units = ("", "", "m")
    with opened(path) as source:
        assert source.channel_names == ("red", "near infrared", "height")
        assert [band.scale for band in source.bands] == [1e-4, 1e-4, 0.1]
        assert [band.offset for band in source.bands] == [-0.1, -0.1, 7.0]
        assert [band.unit for band in source.bands] == [None, None, "m"]


def test_a_palette_is_told_and_samples_stay_its_indices(tmp_path: Path) -> None:
    table = {index: (index, 255 - index, index // 2, 255) for index in range(256)}
    path = write(tmp_path / "palette.tif", noise(1), nodata=3)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, table)
    with opened(path) as source, rasterio.open(path) as oracle:
        assert source.palette is not None
        assert dict(enumerate(source.palette)) == oracle.colormap(1)
        assert_reads_as_rasterio(source, path)
    with opened(write(tmp_path / "grey.tif", noise(1))) as source:
        assert source.palette is None


# ------------------------------------------------------------------------------- what holds no data


def test_a_fourth_band_of_bytes_is_no_alpha_unless_the_file_says_so(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[3, 10:50] = 0
    unsaid = write(tmp_path / "infrared.tif", pixels, photometric="RGB", alpha="NO")
    said = write(tmp_path / "alpha.tif", pixels, photometric="RGB", alpha="YES")
    whole = Box(0, 0, *SHAPE)
    with opened(unsaid) as source:
        assert valid_of(source, 0, whole).all()
        assert source.bands[3].colour is None
        assert_reads_as_rasterio(source, unsaid)
    with opened(said) as source:
        assert np.array_equal(valid_of(source, 0, whole), pixels[3] != 0)
        assert source.bands[3].colour == "alpha"
        assert_reads_as_rasterio(source, said)


def test_transparent_pixels_do_not_weigh_in_an_average(tmp_path: Path) -> None:
    pixels = np.full((2, 64, 64), 200, np.uint8)
    pixels[0, :, ::2], pixels[1, :, ::2] = 10, 0
    path = write(tmp_path / "alpha.tif", pixels, alpha="YES", photometric="MINISBLACK")
    with opened(path) as source:
        plane = Plane(source, locate(source, downsample=4))
        assert (plane.read(Box.of(plane.shape))[..., 0] == 200).all()


@pytest.mark.parametrize("overviews", [(), (2, 4)])
def test_a_mask_inside_the_file_says_what_holds_data_on_every_level(
    overviews: tuple[int, ...], tmp_path: Path
) -> None:
    pixels, mask = noise(3, "uint16"), np.full(SHAPE, 255, np.uint8)
    mask[40:150, 33:200] = 0
    path = tmp_path / "masked.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, pixels)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
            if overviews:
                dataset.build_overviews(overviews, Resampling.nearest)
    with opened(path) as source:
        assert len(source.levels) == 1 + len(overviews)
        assert_reads_as_rasterio(source, path)
        plane = Plane(source, locate(source, downsample=8))
        valid = plane.read_valid(Box.of(plane.shape)).where_any()
        assert valid is not None
        expected = np.add.reduceat(
            np.add.reduceat(mask > 0, np.arange(0, SHAPE[0], 8), axis=0, dtype=int),
            np.arange(0, SHAPE[1], 8),
            axis=1,
        )
        if not overviews:
            assert np.array_equal(valid, expected > 0)


def test_a_level_without_a_mask_of_its_own_has_that_of_level_0(tmp_path: Path) -> None:
    image, mask = noise(1)[0], np.zeros(SHAPE, bool)
    mask[50:91, 20:200] = True
    path = tmp_path / "mask_only_below.tif"
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"tile": (64, 64), "metadata": None}
        writer.write(image, photometric="minisblack", **options)
        writer.write(mask, photometric="mask", subfiletype=4, **options)
        writer.write(image[::2, ::2], photometric="minisblack", subfiletype=1, **options)
    with opened(path) as source:
        assert len(source.levels) == 2
        rows, columns = (-(-side // 2) for side in SHAPE)
        padded = np.pad(mask, ((0, 2 * rows - SHAPE[0]), (0, 2 * columns - SHAPE[1])))
        expected = padded.reshape(rows, 2, columns, 2).any(axis=(1, 3))
        box = Box(3, 5, 101, 150)
        assert np.array_equal(valid_of(source, 1, box), expected[box.slices])


def test_a_mask_in_a_file_beside_is_read_by_rasterio(tmp_path: Path) -> None:
    mask = np.full(SHAPE, 255, np.uint8)
    mask[:, 100:] = 0
    path = tmp_path / "beside.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        write(path, noise(1))
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
    assert (tmp_path / "beside.tif.msk").exists()
    with opened(path, RasterioSource) as source:
        assert_reads_as_rasterio(source, path)


def test_nodata_of_each_band_is_its_own_and_a_pixel_holds_data_where_any_band_does(
    tmp_path: Path,
) -> None:
    pixels = noise(2)
    pixels[0, :100], pixels[1, 50:] = 7, 9
    path = two_nodata(tmp_path, pixels)
    with opened(path, RasterioSource) as source:
        assert [band.nodata for band in source.bands] == [7, 9]
        assert source.nodata is None
        valid = source.read_valid(0, Box(0, 0, *SHAPE)).valid
        assert valid is not None
        assert np.array_equal(valid[..., 0], pixels[0] != 7)
        assert np.array_equal(valid[..., 1], pixels[1] != 9)
        assert np.array_equal(valid_of(source, 0, Box(0, 0, *SHAPE)), valid.any(axis=2))
        reduced = Plane(source, locate(source, downsample=2)).read(Box(10, 10, 20, 20))
        assert (reduced[..., 0] == 7).all()


def two_nodata(folder: Path, pixels: np.ndarray) -> Path:
    """A VRT whose bands have nodata values of their own: a GeoTIFF has one for all."""
    height, width = pixels.shape[1:]
    parts = []
    for number, (band, value) in enumerate(zip(pixels, (7, 9), strict=True), 1):
        write(folder / f"{number}.tif", band[None])
        parts.append(
            f'<VRTRasterBand dataType="Byte" band="{number}"><NoDataValue>{value}</NoDataValue>'
            f'<SimpleSource><SourceFilename relativeToVRT="1">{number}.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    path = folder / "two.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{"".join(parts)}</VRTDataset>'
    )
    return path


@pytest.mark.parametrize("text", ["-3.40282346600000016e+38", "-3.4028234663852886e+38"])
def test_the_lowest_float_is_nodata_however_it_is_written(text: str, tmp_path: Path) -> None:
    pixels = noise(1, "float32")[0]
    pixels[:30] = np.finfo(np.float32).min
    path = tmp_path / "lowest.tif"
    tag = (42113, "s", len(text) + 1, text, True)
    tifffile.imwrite(path, pixels, tile=(64, 64), extratags=[tag], metadata=None)
    with opened(path) as source:
        assert np.array_equal(valid_of(source, 0, Box(0, 0, *SHAPE)), pixels > 0)
        assert_reads_as_rasterio(source, path)


@pytest.mark.parametrize(("dtype", "value"), [("uint8", -9999), ("uint8", 256), ("int16", 0.5)])
def test_a_value_that_no_sample_can_have_is_no_nodata(
    dtype: str, value: float, tmp_path: Path
) -> None:
    text = str(value)
    path, tag = tmp_path / "never.tif", (42113, "s", len(text) + 1, text, True)
    tifffile.imwrite(path, noise(1, dtype)[0], tile=(64, 64), extratags=[tag], metadata=None)
    with opened(path) as source:
        assert source.nodata is None
        assert valid_of(source, 0, Box(0, 0, *SHAPE)).all()


# ------------------------------------------------------------------------------ place on the ground

PLACES = {
    "north up": NORTH_UP,
    "south up": Transform(10.0, 0.0, 500000.0, 0.0, 10.0, 4600000.0),
    "rotated": Transform.translation(5e5, 4.6e6) @ Transform.rotation(17) @ Transform.scale(3, -7),
    "flipped": Transform(-10.0, 0.0, 500000.0, 0.0, -10.0, 4600000.0),
}
SYSTEMS = {"utm": UTM, "degrees": "EPSG:4326", "feet": "EPSG:2263", "own": OWN, "none": None}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("point", [False, True])
def test_pixels_lie_where_rasterio_says(
    place: str, system: str, point: bool, tmp_path: Path
) -> None:
    path = tmp_path / "lies.tif"
    crs, transform = SYSTEMS[system], PLACES[place]
    if system == "degrees":
        transform = Transform.translation(3, 46) @ Transform.scale(1e-4) @ transform
    write(path, noise(1), crs=crs, transform=transform)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point" if point else "Area")
    with opened(path) as source, rasterio.open(path) as oracle:
        assert oracle.tags().get("AREA_OR_POINT", "Area") == ("Point" if point else "Area")
        assert_lies_as_rasterio_says(source, oracle)


@pytest.mark.parametrize("point", [1, 2])
@pytest.mark.parametrize("scale", [(10.0, 10.0, 0.0), (10.0, -10.0, 0.0)])
def test_a_tiepoint_anywhere_in_the_image_is_taken(
    point: int, scale: tuple[float, float, float], tmp_path: Path
) -> None:
    path = tmp_path / "tied.tif"
    keys = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, point, 3072, 0, 1, 32618]
    tags = [
        (33550, "d", 3, scale, True),
        (33922, "d", 6, (17.0, 5.0, 0.0, 5e5, 4.6e6, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
    tifffile.imwrite(path, noise(1)[0], tile=(64, 64), extratags=tags, metadata=None)
    with opened(path) as source, rasterio.open(path) as oracle:
        assert_lies_as_rasterio_says(source, oracle)


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_control_points_are_kept_where_there_is_no_affine(point: str, tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 1e5 + 7 * c, 2e5 - 5 * r, 3.0) for r, c in CORNERS]
    path = tmp_path / "points.tif"
    write(path, noise(1), transform=None, crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT=point)
        dataset.gcps = (points, rasterio.crs.CRS.from_string(UTM))
    for reader in (TiffSource, RasterioSource):
        with closing(reader(path)) as source, rasterio.open(path) as oracle:
            assert_lies_as_rasterio_says(source, oracle)


CORNERS = [(0.0, 0.0), (0.0, 300.0), (200.0, 0.0), (200.0, 300.0), (100.0, 150.0)]


def test_a_place_by_rpcs_alone_is_said_and_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "rpcs.tif"
    numbers = [0.5] * 92
    tags = [(50844, "d", 92, numbers, True)]
    tifffile.imwrite(path, noise(1)[0], tile=(64, 64), extratags=tags, metadata=None)
    with rasterio.open(path) as oracle:
        assert oracle.rpcs is not None
    for reader in (TiffSource, RasterioSource):
        with closing(reader(path)) as source:
            assert source.georeference is None
            assert "RPC" in source.notes[0]


def test_a_system_without_a_number_needs_rasterio_and_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "own.tif", noise(1), crs=OWN)
    monkeypatch.setattr(rasterio_crs, "import_module", missing)
    with pytest.raises(UnsupportedImage, match=r"pip install 'saccade\[geo\]'"):
        open_source(path)


# ----------------------------------------------------------------------------- what only GDAL reads


def only_gdal(folder: Path, kind: str) -> Path:
    pixels = noise(3, "uint16")
    if kind == "jp2":
        return write(
            folder / "a.jp2", pixels, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"
        )
    inner = write(folder / "inner.tif", pixels, nodata=3)
    with rasterio.open(inner, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    path = folder / "a.vrt"
    gdal_copy(inner, path, driver="VRT")
    scaling = "<ScaleOffset>0</ScaleOffset><ScaleRatio>1</ScaleRatio></ComplexSource>"
    text = path.read_text().replace("</SimpleSource>", scaling)  # a plain one is read as a mosaic
    path.write_text(text.replace("<SimpleSource>", "<ComplexSource>"))
    return path


@pytest.mark.parametrize("kind", ["jp2", "vrt"])
def test_what_only_gdal_reads_is_read_like_any_other(kind: str, tmp_path: Path) -> None:
    path = only_gdal(tmp_path, kind)
    with opened(path, RasterioSource) as source:
        assert_describes_as_rasterio(source, path)
        assert_reads_as_rasterio(source, path)
        with pytest.raises(ValueError, match="not inside level 0"):
            source.read(0, Box(0, 0, SHAPE[0] + 1, 5))
        assert source.read(0, Box(3, 3, 3, 9)).shape == (0, 6, 3)
        source.close()
        with pytest.raises(ValueError, match="read after close"):
            source.read(0, Box(0, 0, 5, 5))
        source.close()


@pytest.mark.parametrize("kind", ["jp2", "vrt"])
def test_what_only_gdal_reads_names_the_extra_without_rasterio(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = only_gdal(tmp_path, kind)
    monkeypatch.setattr(rasterio_crs, "import_module", missing)
    with pytest.raises(UnsupportedImage, match=r"pip install 'saccade\[geo\]'"):
        open_source(path)


def test_threads_may_read_a_raster_of_gdal_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = only_gdal(tmp_path, "vrt")
    boxes = [Box(y, x, y + 50, x + 50) for y, x in itertools.product(range(0, 150, 25), repeat=2)]
    with opened(path, RasterioSource) as source, ThreadPoolExecutor(8) as pool:
        expected = [source.read(0, box) for box in boxes]
        found = list(pool.map(lambda box: source.read(0, box), boxes * 5))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 5, strict=True))


def test_a_damaged_raster_of_gdal_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "broken.jp2"
    path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64))
    with pytest.raises(Exception, match=r"broken\.jp2: a raster was expected"):
        open_source(path)


# ------------------------------------------------------------------------------------------- bands


def named(tmp_path: Path, **options: Any) -> Path:
    path = write(tmp_path / "named.tif", noise(4, "uint16"), **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("blue", "green", "red", "nir")
        dataset.scales, dataset.offsets = (0.5, 0.5, 0.5, 0.25), (1.0, 1.0, 1.0, -3.0)
    return path


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("asked", [[4, 3, 2], ["nir", "red", "green"], [4, "red", 2]])
def test_bands_are_chosen_by_name_or_by_number_from_1_in_the_order_asked(
    asked: list[int | str], interleave: str, tmp_path: Path
) -> None:
    path = named(tmp_path, interleave=interleave)
    with opened(path) as source, rasterio.open(path) as oracle:
        seen = seen_through(source, find_channels(source, asked), scaled=False)
        assert seen.channel_names == ("nir", "red", "green")
        whole = seen.read(0, Box(0, 0, *SHAPE))
        assert np.array_equal(whole, np.moveaxis(oracle.read([4, 3, 2]), 0, -1))


@pytest.mark.parametrize("asked", [0, 5, "swir", "Red"])
def test_a_band_that_is_not_there_is_named_beside_those_that_are(
    asked: int | str, tmp_path: Path
) -> None:
    with opened(named(tmp_path)) as source, pytest.raises(RecipeError, match="1 'blue', 2 'green'"):
        find_channels(source, [asked])


def test_scaled_samples_are_measurements_and_nan_where_there_are_none(tmp_path: Path) -> None:
    path = named(tmp_path, nodata=17)
    with opened(path) as source, rasterio.open(path) as oracle:
        seen = seen_through(source, [3, 0], scaled=True)
        pixels, valid = seen.read_valid(0, Box(0, 0, *SHAPE))
        stored = np.moveaxis(oracle.read([4, 1]), 0, -1)
    expected = stored * np.array([0.25, 0.5]) + np.array([-3.0, 1.0])
    expected[stored == 17] = math.nan
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, expected.astype(np.float32), equal_nan=True)
    assert valid is not None
    assert np.array_equal(valid, stored != 17)


def test_the_alpha_of_an_image_counts_also_where_it_is_not_chosen(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[3, 10:50] = 0
    with opened(write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")) as source:
        seen = seen_through(source, [1], scaled=False)
        assert np.array_equal(valid_of(seen, 0, Box(0, 0, *SHAPE)), pixels[3] != 0)


def test_nothing_chosen_is_the_image_itself() -> None:
    source = ArraySource(noise(3).transpose(1, 2, 0))
    assert seen_through(source, None, scaled=False) is source


# --------------------------------------------------------------------------------------- overviews


def with_overviews(path: Path, how: Resampling | None, factors: tuple[int, ...] = (2, 4)) -> Path:
    """Overviews by a method that the file names, or hides where that is None."""
    method = Resampling.nearest if how is None else how
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(factors, method)
        if how is None:
            dataset.update_tags(ns="rio_overview", resampling="")
    return path


@pytest.mark.parametrize(
    ("how", "left_out"),
    [
        (Resampling.nearest, True),
        (Resampling.mode, True),
        (None, True),
        (Resampling.average, False),
        (Resampling.bilinear, False),
    ],
)
def test_overviews_are_taken_only_where_they_are_known_to_weigh_all_pixels(
    how: Resampling | None, left_out: bool, tmp_path: Path
) -> None:
    with opened(with_overviews(write(tmp_path / "o.tif", noise(1)), how)) as source:
        assert len(source.levels) == 3
        assert leaves_pixels_out(source) is left_out


def test_a_palette_is_never_averaged_and_slides_are_not_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tif", noise(1))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {index: (index,) * 3 + (255,) for index in range(256)})
    with opened(with_overviews(path, Resampling.nearest)) as source:
        assert not leaves_pixels_out(source)
    slide = tmp_path / "slide.tif"
    with tifffile.TiffWriter(slide) as writer:
        for level in (noise(3)[0], noise(3)[0][::2, ::2]):
            writer.write(level, tile=(64, 64), metadata=None)
    with opened(slide) as source:
        assert len(source.levels) == 2
        assert not leaves_pixels_out(source)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_averaged_levels_are_what_a_plane_averages_of_level_0(
    dtype: str, nodata: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.pipeline.sources.level_sweep.SWEEP_NBYTES", 3 * 64 * 64)
    pixels = noise(3, dtype)
    pixels[:, 30:101, 40:90] = 0
    path = with_overviews(write(tmp_path / "n.tif", pixels, nodata=nodata), Resampling.nearest)
    with opened(path) as plain, closing(AveragedSource(plain, tmp_path / "cache")) as source:
        assert [level.shape for level in source.levels] == [level.shape for level in plain.levels]
        source.make([Need(1), Need(2)])
        for index, factor in ((1, 2), (2, 4)):
            spec = locate(ArraySource(pixels.transpose(1, 2, 0)), downsample=factor)
            expected = Plane(plain, spec).read_valid(Box.of(spec.shape))
            found = source.read_valid(index, Box.of(spec.shape))
            assert np.array_equal(found.pixels, expected.pixels)
            assert np.array_equal(valid_or_all(found), valid_or_all(expected))


@pytest.mark.parametrize("factors", [(3, 7), (2, 3, 5), (6,)])
def test_averaged_levels_of_any_whole_factor_are_what_a_plane_averages(
    factors: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.pipeline.sources.level_sweep.SWEEP_NBYTES", 50 * 50)
    path = with_overviews(write(tmp_path / "n.tif", noise(1)), Resampling.nearest, factors)
    with opened(path) as plain, closing(AveragedSource(plain, tmp_path / "cache")) as source:
        assert [level.downsample for level in source.levels] == [1, *factors]
        source.make([Need(index) for index in range(1, len(source.levels))])
        for index, factor in enumerate(factors, 1):
            spec = PlaneSpec(0, factor, source.levels[index].shape, factor, None)
            whole = Box.of(spec.shape)
            assert np.array_equal(source.read(index, whole), Plane(plain, spec).read(whole))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("nodata", [None, 0])
def test_ground_that_nobody_wanted_is_not_swept_and_reads_the_same(
    nodata: int | None, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.pipeline.sources.level_sweep.SWEEP_NBYTES", 2 * 32 * 32)
    pixels = noise(1, "uint16")[0][..., None]
    pixels[20:90, 30:77] = 0
    plain = FakeSource(pixels, nodata=nodata)
    plain.levels = (plain.levels[0], Level((53, 77), 4.0))
    with closing(AveragedSource(plain.opened(), tmp_path / "all")) as source:
        whole = Box.of(source.levels[1].shape)
        expected = source.read_means(1, whole) if exact else source.read_valid(1, whole)
        marked = np.zeros((source.blocks.rows, source.blocks.columns), bool)
    marked[1:3, 2:4] = True
    some = plain.opened()
    some.reads = []
    with closing(AveragedSource(some, tmp_path / "some")) as source:
        source.expect([Need(1, exact, marked)])
        source.make([Need(1, exact, marked)])
        assert {(box.y0 // 32, box.x0 // 32) for box in some.reads} == {
            (1, 2), (1, 3), (2, 2), (2, 3)
        }  # fmt: skip
        for box in (whole, Box(8, 16, 24, 32), Box(3, 40, 41, 70), Box(0, 0, 3, 3)):
            found = source.read_means(1, box) if exact else source.read_valid(1, box)
            assert np.array_equal(found.pixels, expected.pixels[box.slices])
            assert np.array_equal(valid_or_all(found), valid_or_all(expected)[box.slices])


def test_means_of_integers_are_not_rounded_for_a_pass_whose_samples_are_scaled(
    tmp_path: Path,
) -> None:
    land = (noise(1) % 37 == 0).astype(np.uint8)
    path = with_overviews(write(tmp_path / "land.tif", land), Resampling.nearest)
    with opened(path) as plain, closing(AveragedSource(plain, tmp_path / "cache")) as source:
        scaled = seen_through(source, None, scaled=True)
        spec = PlaneSpec(0, 4, source.levels[2].shape, 4, None)
        exact = Plane(seen_through(plain, None, scaled=True), spec).read(Box.of(spec.shape))
        found = scaled.read(2, Box.of(spec.shape))
        assert 0 < found[found > 0].min() < 0.1 < found.max()
        assert np.array_equal(found, exact)
        assert np.array_equal(scaled.read(0, Box(0, 0, 9, 9)), land[0, :9, :9, None])
        assert not source.read(2, Box.of(spec.shape)).any()


def valid_or_all(samples: Any) -> np.ndarray:
    shape = samples.pixels.shape
    return np.ones(shape, bool) if samples.valid is None else np.broadcast_to(samples.valid, shape)


def test_a_level_is_averaged_once_and_found_again(tmp_path: Path) -> None:
    path = with_overviews(write(tmp_path / "n.tif", noise(1)), Resampling.nearest)
    whole = Box(0, 0, 106, 154)
    with closing(AveragedSource(open_source(path), tmp_path / "cache")) as source:
        first = source.read(1, whole)
        written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert len(written) == 1
    with closing(AveragedSource(open_source(path), tmp_path / "cache")) as source:
        source.make([Need(1)])
        assert np.array_equal(source.read(1, whole), first)
        assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == written


def test_a_sweep_that_is_cut_short_leaves_nothing_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_overviews(write(tmp_path / "n.tif", noise(1)), Resampling.nearest)
    plain = open_source(path)
    with closing(AveragedSource(plain, tmp_path / "cache")) as source:
        with monkeypatch.context() as patch:
            patch.setattr(plain, "read_valid", cut_short)
            with pytest.raises(KeyboardInterrupt):
                source.make([Need(1)])
        assert not list((tmp_path / "cache").iterdir())
        assert source.read(1, Box(0, 0, 5, 5)).shape == (5, 5, 1)


def test_damage_of_level_0_is_damage_of_the_averaged_levels_there_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.pipeline.sources.level_sweep.DAMAGE_PX", 64)
    pixels = noise(1)[0][..., None]
    source = FakeSource(pixels, broken=(Box(70, 70, 71, 71),))
    source.levels = (source.levels[0], Level((106, 154), 2.0))
    sound = ArraySource(pixels)
    plane = Plane(sound, locate(sound, downsample=2))
    with closing(AveragedSource(source, tmp_path / "cache")) as averaged:
        with pytest.raises(ReadError, match="damaged"):
            averaged.read(1, Box(33, 33, 40, 40))
        for box in (Box(0, 0, 32, 154), Box(64, 0, 106, 154), Box(0, 64, 106, 154)):
            assert np.array_equal(averaged.read(1, box), plane.read(box))


def cut_short(*_: Any) -> Any:
    raise KeyboardInterrupt
