"""What files say besides pixels: pixel size, channels, axes, and what is refused."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from saccade.pipeline.errors import BrokenImage, UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import PixelSize, Source
from saccade.pipeline.sources.openslide import _composite
from saccade.pipeline.sources.reader import is_reduction
from saccade.pipeline.sources.tiff_geo import DEGREES_PER_ANGULAR_UNIT

PIXELS = np.arange(60 * 50, dtype=np.uint16).reshape(60, 50)


def opened(uri: Any) -> Source:
    """A source whose file is released; what it says of itself stays."""
    with closing(open_source(uri)) as source:
        return source


def assert_close(found: PixelSize | None, expected: PixelSize | None) -> None:
    if found is None or expected is None:
        assert found is expected
    else:
        assert (found.y, found.x) == (pytest.approx(expected.y), pytest.approx(expected.x))
        assert found.unit == expected.unit


def tiff(folder: Path, pixels: np.ndarray = PIXELS, **options: Any) -> Path:
    tifffile.imwrite(folder / "a.tif", pixels, **options)
    return folder / "a.tif"


def ome_tiff(folder: Path, pixels: np.ndarray, metadata: dict[str, Any]) -> Path:
    tifffile.imwrite(folder / "a.ome.tif", pixels, metadata=metadata, photometric="minisblack")
    return folder / "a.ome.tif"


def geotiff(folder: Path, keys: dict[int, int], **tags: tuple[float, ...]) -> Path:
    codes = {"scale": 33550, "tie": 33922, "matrix": 34264}
    directory = [1, 1, 0, len(keys)]
    for key, value in sorted(keys.items()):
        directory += [key, 0, 1, value]
    extratags: list[tuple[Any, ...]] = [(34735, "H", len(directory), tuple(directory), True)]
    extratags += [(codes[name], "d", len(v), v, True) for name, v in tags.items()]
    return tiff(folder, extratags=extratags, metadata=None, resolution=(9000, 9000))


@pytest.mark.parametrize(
    ("per_unit", "unit", "um"),
    [
        (20000, 3, 0.5),
        (50800, 2, 0.5),
        (2400, 2, 25400 / 2400),
        (72, 2, None),
        (96, 2, None),
        (72 / 2.54, 3, None),
        (1, 3, None),
        (20000, 1, None),
        (1e9, 3, None),
    ],
)
def test_resolution_tags_count_where_they_are_no_printing_default(
    tmp_path: Path, per_unit: float, unit: int, um: float | None
) -> None:
    path = tiff(tmp_path, resolution=(per_unit, per_unit), resolutionunit=unit, metadata=None)
    assert_close(opened(path).pixel_size, None if um is None else PixelSize(um, um, "um"))


@pytest.mark.parametrize(
    ("keys", "tags", "y", "x"),
    [
        ({1024: 1, 3076: 9001}, {"scale": (3.0, 5.0, 0.0)}, 5.0, 3.0),
        ({1024: 1, 3076: 9002}, {"scale": (10.0, 10.0, 0.0)}, 3.048, 3.048),
        (
            {1024: 1},
            {"matrix": (3.0, 4.0, 0, 0, 4.0, -3.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)},
            5.0,
            5.0,
        ),
        (
            {1024: 2, 2054: 9102},
            {"scale": (0.001, 0.001, 0.0), "tie": (0, 0, 0, 7.0, 60.03, 0)},
            111.32,
            111.32 * 0.5,
        ),
        (
            {1024: 2},
            {"matrix": (0.001, 0, 0, 7.0, 0, -0.001, 0, 60.03, 0, 0, 0, 0, 0, 0, 0, 1.0)},
            111.32,
            111.32 * 0.5,
        ),
    ],
)
def test_georeferences_give_metres(
    tmp_path: Path, keys: dict[int, int], tags: dict[str, Any], y: float, x: float
) -> None:
    found = opened(geotiff(tmp_path, keys, **tags)).pixel_size
    assert found is not None
    assert (found.y, found.x, found.unit) == (pytest.approx(y), pytest.approx(x), "m")


@pytest.mark.parametrize("keys", [{1024: 1, 3076: 9999}, {1024: 2, 2054: 9999}, {1024: 1}])
def test_an_unknown_ground_unit_is_no_pixel_size(tmp_path: Path, keys: dict[int, int]) -> None:
    tags: dict[str, Any] = {"scale": (3.0, 5.0, 0.0), "tie": (0,) * 6} if len(keys) == 2 else {}
    assert opened(geotiff(tmp_path, keys, **tags)).pixel_size is None


def test_a_radian_is_more_degrees_than_57() -> None:
    assert DEGREES_PER_ANGULAR_UNIT[9101] == pytest.approx(math.degrees(1))


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("µm", PixelSize(0.7, 0.3, "um")),
        ("nm", PixelSize(0.0007, 0.0003, "um")),
        ("mm", PixelSize(700, 300, "um")),
        ("m", PixelSize(0.7, 0.3, "m")),
        ("pixel", None),
    ],
)
def test_ome_xml_states_lengths_with_units(
    tmp_path: Path, unit: str, size: PixelSize | None
) -> None:
    metadata = {
        "axes": "YX",
        "PhysicalSizeX": 0.3,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": 0.7,
        "PhysicalSizeYUnit": unit,
    }
    assert_close(opened(ome_tiff(tmp_path, PIXELS, metadata)).pixel_size, size)


def test_ome_xml_names_channels(tmp_path: Path) -> None:
    stack = np.stack([PIXELS, PIXELS + 1])
    path = ome_tiff(tmp_path, stack, {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}})
    assert opened(path).channel_names == ("DAPI", "CD3")


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_more_than_one_plane_is_refused_by_the_name_of_its_axis(tmp_path: Path, axis: str) -> None:
    stack = np.stack([PIXELS] * 3)
    with pytest.raises(UnsupportedImage, match=f"axis '{axis.lower()}' has length 3"):
        open_source(ome_tiff(tmp_path, stack, {"axes": f"{axis}YX"}))
    with pytest.raises(UnsupportedImage, match=f"axis '{axis.lower()}' has length 3"):
        open_source(tiff(tmp_path, stack, imagej=True, metadata={"axes": f"{axis}YX"}))
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(3, 5, 7), dtype="u1", dimension_names=(axis, "Y", "X")
    )
    assert array.ndim == 3
    with pytest.raises(UnsupportedImage, match=f"axis '{axis.lower()}' has length 3"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
def test_declared_channels_are_read_from_their_own_directories(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    stack = np.stack([PIXELS, PIXELS + 7])
    path = tiff(tmp_path, stack, metadata={"axes": "CYX"}, photometric="minisblack", **options)
    with closing(open_source(path)) as source:
        pixels = source.read(0, Box(0, 0, 60, 50))
    assert np.array_equal(pixels, stack.transpose(1, 2, 0))


def test_pages_that_nothing_declares_are_refused(tmp_path: Path) -> None:
    stack = np.stack([PIXELS, PIXELS])
    with pytest.raises(UnsupportedImage, match="axis 'i' has length 2"):
        open_source(tiff(tmp_path, stack, metadata=None, photometric="minisblack"))


def test_an_ome_tiff_whose_pixels_are_elsewhere_is_refused(tmp_path: Path) -> None:
    path = ome_tiff(tmp_path, PIXELS, {"axes": "YX"})
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata
    assert text is not None
    other = text.replace("</TiffData>", '<UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData>')
    other = other.replace(
        'PlaneCount="1"/>',
        'PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData>',
    )
    assert other != text
    tifffile.imwrite(path, PIXELS, description=other.encode(), metadata=None)
    with pytest.raises(UnsupportedImage, match=r"pixels are in 'b\.ome\.tif'"):
        open_source(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_states_pixel_size_and_channels(tmp_path: Path, version: str) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    for number, side in enumerate((64, 32)):
        group.create_array(str(number), shape=(2, side, side), chunks=(1, 16, 32), dtype="u1")
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": "nanometer"} for name in "yx"
    ]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [1, 500 * n, 250 * n]}],
        }
        for number, n in enumerate((1, 2))
    ]
    whole = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    image = {"axes": axes, "datasets": datasets, "coordinateTransformations": whole}
    document = {
        "multiscales": [{**image, "version": version}],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "CD3"}]},
    }
    group.attrs.update({"ome": document} if version == "0.5" else document)
    source = opened(tmp_path / "a.zarr")
    assert source.format == f"OME-Zarr {version}"
    assert source.pixel_size == PixelSize(1.0, 0.5, "um")
    assert source.channel_names == ("DAPI", "CD3")
    assert [level.tile for level in source.levels] == [(16, 32), (16, 32)]


@pytest.mark.parametrize("version", [2, 3])
def test_the_first_image_of_a_bioformats2raw_folder_is_opened(tmp_path: Path, version: Any) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    image = group.create_group("0")
    image.create_array("full", shape=(7, 11), dtype="u1")[...] = 5
    inner = {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "full"}]}]}
    image.attrs.update(inner if version == 2 else {"ome": inner})
    outer = {"bioformats2raw.layout": 3}
    group.attrs.update(outer if version == 2 else {"ome": outer})
    with closing(open_source(tmp_path / "a.zarr")) as source:
        assert source.read(0, Box(0, 0, 7, 11)).tolist() == [[[5]] * 11] * 7


def test_a_zarr_group_that_is_no_image_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_group("inside")
    with pytest.raises(UnsupportedImage, match="inside"):
        open_source(tmp_path / "a.zarr")


def test_an_array_that_looks_channels_first_and_does_not_say_so_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(5, 60, 70), dtype="u1")
    with pytest.raises(UnsupportedImage, match="name the array's dimensions"):
        open_source(tmp_path / "a.zarr")


def test_damaged_zarr_metadata_is_a_broken_image(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(60, 70), dtype="u1")
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BrokenImage, match="does not open"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((0, 5)), np.zeros((5, 5), complex)])
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedImage, match="expected"):
        open_source(array)


def test_the_content_counts_before_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.svs")
    assert opened(path).format == "PNG"


def test_a_photograph_too_large_to_decode_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((53, 61), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnsupportedImage, match="tiled TIFF"):
        open_source(tmp_path / "a.png")


def test_a_file_cut_before_its_last_directory_does_not_open(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for step in (1, 2):
            writer.write(PIXELS[::step, ::step], metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        end = tif.pages[1].offset
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:end])
    with pytest.raises(BrokenImage, match=f"directory at {end} expected"):
        open_source(tmp_path / "a.tif")


def test_transparent_pixels_show_the_background() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    mixed = _composite(rgba, np.array([10, 20, 30], np.uint8))
    assert mixed[0].tolist() == [[200, 100, 0], [10, 20, 30], [48, 36, 24]]


@pytest.mark.parametrize(
    ("reduced", "expected"),
    [
        ((504, 405), True),
        ((500, 405), False),
        ((505, 406), True),
        ((63, 50), True),
        ((250, 405), False),
        ((1009, 811), False),
        ((768, 574), False),
        ((2018, 1622), False),
    ],
)
def test_a_reduction_has_one_factor(reduced: tuple[int, int], expected: bool) -> None:
    assert is_reduction((1009, 811), reduced) is expected
