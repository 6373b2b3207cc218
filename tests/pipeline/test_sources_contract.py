"""What every source promises, held against every kind of file that can be made here."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from mosaics import cut_up
from PIL import Image

from saccade.pipeline.errors import SaccadeError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.openslide import OpenSlideSource

SHAPE = (211, 157)
BOXES = 23


def texture(channels: int, dtype: str = "uint8", shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Noise on ramps, so that a shift, a flip or a swap of channels shows."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = (y * 3 + x * 5)[:, :, None] + np.arange(channels) * 41
    noisy = ramp + rng.integers(0, 19, (*shape, channels))
    return (noisy % 251).astype(dtype) if dtype != "float32" else (noisy / 13).astype(dtype)


def halves(image: np.ndarray, count: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[:: 2**n, :: 2**n]) for n in range(count)]


Made = tuple[Any, list[np.ndarray]]
"""What to open, and the reference array of each level."""


def numpy_grey(folder: Path) -> Made:
    image = texture(1, "float32")
    return image[:, :, 0], [image]


def numpy_colour(folder: Path) -> Made:
    image = texture(3)[:, ::-1]
    return image, [image]


def png_colour(folder: Path) -> Made:
    image = texture(4)
    Image.fromarray(image).save(folder / "a.png")
    return folder / "a.png", [image]


def png_deep(folder: Path) -> Made:
    image = texture(1, "uint16") * 257
    Image.fromarray(image[:, :, 0]).save(folder / "a.png")
    return folder / "a.png", [image]


def png_palette(folder: Path) -> Made:
    image = texture(1) % 7
    palette = Image.frombytes("P", SHAPE[::-1], image.tobytes())
    palette.putpalette([value for index in range(7) for value in (index * 30, 11, 13)])
    palette.save(folder / "a.png")
    return folder / "a.png", [image]


def jpeg(folder: Path) -> Made:
    Image.fromarray(texture(3)).save(folder / "a.jpg", quality=83)
    return folder / "a.jpg", [np.asarray(Image.open(folder / "a.jpg"))]


def tiff(folder: Path, image: np.ndarray, **options: Any) -> Made:
    tifffile.imwrite(folder / "a.tif", image, **options)
    return folder / "a.tif", [image]


def tiled(folder: Path) -> Made:
    return tiff(folder, texture(3), tile=(48, 32), compression="deflate", predictor=True)


def tiled_raw(folder: Path) -> Made:
    return tiff(folder, texture(3), tile=(48, 32))


def tiled_jpeg(folder: Path) -> Made:
    tiff(folder, texture(3), tile=(64, 32), compression="jpeg", photometric="ycbcr")
    return folder / "a.tif", [tifffile.imread(folder / "a.tif")]


def stripped(folder: Path) -> Made:
    return tiff(folder, texture(3), rowsperstrip=13, compression="zstd")


def one_raw_strip(folder: Path) -> Made:
    return tiff(folder, texture(3, "uint16"), rowsperstrip=SHAPE[0], byteorder=">")


def planar_tiles(folder: Path) -> Made:
    image = texture(3)
    options = {"planarconfig": "separate", "photometric": "rgb", "tile": (32, 48)}
    tiff(folder, image.transpose(2, 0, 1), compression="lzw", **options)
    return folder / "a.tif", [image]


def planar_strips(folder: Path) -> Made:
    image = texture(3, "uint16")
    options = {"planarconfig": "separate", "photometric": "rgb", "rowsperstrip": 17}
    tiff(folder, image.transpose(2, 0, 1), **options)
    return folder / "a.tif", [image]


def deep_big_endian(folder: Path) -> Made:
    options = {"byteorder": ">", "compression": "deflate", "predictor": True}
    return tiff(folder, texture(1, "uint16"), tile=(32, 32), **options)


def floating(folder: Path) -> Made:
    options = {"compression": "deflate", "predictor": True}
    return tiff(folder, texture(1, "float32")[:, :, 0], tile=(32, 32), **options)[0], [
        texture(1, "float32")
    ]


def five_channels(folder: Path) -> Made:
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    return tiff(folder, texture(5), tile=(32, 32), **options)


def bigtiff(folder: Path) -> Made:
    return tiff(folder, texture(3), bigtiff=True, tile=(64, 64))


def bilevel(folder: Path) -> Made:
    image = texture(1) % 2
    tiff(folder, image[:, :, 0].astype(bool), photometric="minisblack")
    return folder / "a.tif", [image]


def sparse(folder: Path) -> Made:
    image = texture(1)
    image[64:128, 64:128] = 9
    empty = {(64, 64)}
    tiles = (
        None if (y, x) in empty else np.pad(tile, [(0, 64 - n) for n in tile.shape])
        for y in range(0, SHAPE[0], 64)
        for x in range(0, SHAPE[1], 64)
        for tile in [image[y : y + 64, x : x + 64, 0]]
    )
    extratags = [(42113, "s", 0, "9", True)]
    options = {"shape": SHAPE, "dtype": "uint8", "tile": (64, 64), "extratags": extratags}
    tifffile.imwrite(folder / "a.tif", tiles, **options)
    return folder / "a.tif", [image]


def loose_pyramid(folder: Path) -> Made:
    levels = halves(texture(3), 3)
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        for level in levels:
            writer.write(level, tile=(32, 32), compression="deflate", metadata=None)
        # a label, as slides have
        writer.write(texture(3, shape=(59, 83)), tile=(32, 32), metadata=None)
    return folder / "a.tif", levels


def ome_pyramid(folder: Path) -> Made:
    levels = halves(texture(3, "uint16"), 3)
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3", "CD20"]}}
    options: dict[str, Any] = {"tile": (32, 32), "compression": "zstd", "photometric": "minisblack"}
    with tifffile.TiffWriter(folder / "a.ome.tif", bigtiff=True) as writer:
        first = levels[0].transpose(2, 0, 1)
        writer.write(first, subifds=2, metadata=metadata, **options)
        for level in levels[1:]:
            writer.write(level.transpose(2, 0, 1), subfiletype=1, **options)
    return folder / "a.ome.tif", levels


def cog(folder: Path) -> Made:
    levels = halves(texture(3), 3)
    geo = [
        (33550, "d", 3, (2.0, 3.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 5000000.0, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
        (42113, "s", 0, "0", True),
    ]
    options: dict[str, Any] = {"tile": (32, 32), "compression": "deflate", "metadata": None}
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        writer.write(levels[0], extratags=geo, **options)
        mask = np.ones(SHAPE, bool)
        writer.write(mask, subfiletype=4, photometric="mask", **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
            writer.write(mask[: len(level)], subfiletype=5, photometric="mask", **options)
    return folder / "a.tif", levels


def zarr_array(folder: Path, zarr_format: Any) -> Made:
    image = texture(3, "int16")
    array = zarr.create_array(
        folder / "a.zarr", shape=image.shape, chunks=(64, 48, 2), dtype="int16",
        zarr_format=zarr_format,
    )  # fmt: skip
    array[...] = image
    return folder / "a.zarr", [image]


def zarr_v2(folder: Path) -> Made:
    return zarr_array(folder, 2)


def zarr_v3(folder: Path) -> Made:
    return zarr_array(folder, 3)


def zarr_named_axes(folder: Path) -> Made:
    image = texture(5)
    array = zarr.create_array(
        folder / "a.zarr", shape=(5, *SHAPE), chunks=(1, 64, 64), shards=(5, 128, 128),
        dtype="uint8", dimension_names=("channel", "y", "x"),
    )  # fmt: skip
    array[...] = image.transpose(2, 0, 1)
    return folder / "a.zarr", [image]


def ome_zarr(folder: Path, version: str, names: str) -> Made:
    levels = halves(texture(3), 3)
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    for number, level in enumerate(levels):
        order = ["yxc".index(name) for name in names if name in "yxc"]
        data = level.transpose(order).reshape([
            1 if name in "tz" else level.shape["yxc".index(name)] for name in names
        ])  # fmt: skip
        group.create_array(str(number), shape=data.shape, chunks=(1,) * (len(names) - 2) + (50, 50),
                           dtype="uint8")[...] = data  # fmt: skip
    axes = [{"name": n, "type": "space", "unit": "micrometer"} if n in "zyx" else {"name": n}
            for n in names]  # fmt: skip
    scale = [{"type": "scale", "scale": [0.5 if n in "yx" else 1 for n in names]}]
    datasets = [{"path": str(n), "coordinateTransformations": scale} for n in range(len(levels))]
    image = {"axes": axes, "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return folder / "a.zarr", levels


def ome_zarr_v04(folder: Path) -> Made:
    return ome_zarr(folder, "0.4", "tczyx")


def ome_zarr_v05(folder: Path) -> Made:
    return ome_zarr(folder, "0.5", "cyx")


def mosaic(folder: Path) -> Made:
    levels = cut_up(folder, rows=3, columns=2, overlap_px=16, holes={(1, 1)}, shape=SHAPE)
    (folder / "a.mosaic.yaml").write_text('mosaic: {files: "tile-*.tif"}')
    return folder / "a.mosaic.yaml", levels


MAKERS: tuple[Callable[[Path], Made], ...] = (
    numpy_grey, numpy_colour, png_colour, png_deep, png_palette, jpeg, tiled, tiled_raw,
    tiled_jpeg, stripped, one_raw_strip, planar_tiles, planar_strips, deep_big_endian, floating,
    five_channels, bigtiff, bilevel, sparse, loose_pyramid, ome_pyramid, cog, zarr_v2, zarr_v3,
    zarr_named_axes, ome_zarr_v04, ome_zarr_v05, mosaic,
)  # fmt: skip


@dataclass
class Case:
    source: Source
    levels: list[np.ndarray]


@pytest.fixture(params=[*(maker.__name__ for maker in MAKERS), "openslide"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "openslide":
        made = slide(request.getfixturevalue("data"))
    else:
        maker = {maker.__name__: maker for maker in MAKERS}[request.param]
        uri, levels = maker(tmp_path)
        made = Case(open_source(uri), levels)
    yield made
    made.source.close()


def slide(data: Path) -> Case:
    """A slide whose second level has a downsample that is no whole number."""
    path = data / "slides" / "tcga-jpeg2000-no-mpp.svs"
    return Case(OpenSlideSource(path), slide_levels(path))


@functools.cache
def slide_levels(path: Path) -> list[np.ndarray]:
    with closing(OpenSlideSource(path)) as source:
        return [tifffile.imread(path, key=0), source.read(1, Box.of(source.levels[1].shape))]


def some_boxes(case: Case, count: int = BOXES) -> list[tuple[int, Box]]:
    rng = np.random.default_rng(11)
    boxes = []
    for _ in range(count):
        level = int(rng.integers(len(case.levels)))
        height, width = (min(side, 700) for side in case.source.levels[level].shape)
        y0, y1 = sorted(rng.integers(0, height + 1, 2))
        x0, x1 = sorted(rng.integers(0, width + 1, 2))
        boxes.append((level, Box(int(y0), int(x0), int(y1), int(x1))))
    return boxes


def test_any_box_is_the_crop_of_the_whole_image(case: Case) -> None:
    for level, box in some_boxes(case):
        assert np.array_equal(case.source.read(level, box), case.levels[level][box.slices])


def test_the_description_is_that_of_the_pixels(case: Case) -> None:
    source = case.source
    assert [level.shape for level in source.levels] == [a.shape[:2] for a in case.levels]
    assert source.channels == case.levels[0].shape[2] == len(source.channel_names)
    assert source.dtype == case.levels[0].dtype.newbyteorder("=")
    assert source.levels[0].downsample == 1
    downsamples = [level.downsample for level in source.levels]
    assert downsamples == sorted(set(downsamples))
    assert isinstance(source, Source)


def test_what_is_read_belongs_to_the_caller(case: Case) -> None:
    box = Box(3, 5, 34, 42)
    first = case.source.read(0, box)
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert first.dtype == case.source.dtype
    first[...] = 0
    assert np.array_equal(case.source.read(0, box), case.levels[0][box.slices])


def test_eight_threads_read_what_one_reads(case: Case) -> None:
    jobs = some_boxes(case, 11)
    start = threading.Barrier(8)

    def read_all(_: int) -> list[np.ndarray]:
        start.wait()
        return [case.source.read(level, box) for level, box in jobs]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read_all, range(8)):
            for pixels, (level, box) in zip(found, jobs, strict=True):
                assert np.array_equal(pixels, case.levels[level][box.slices])


@pytest.mark.parametrize("margin", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_reading_outside_the_image_is_refused(
    case: Case, margin: tuple[int, int, int, int]
) -> None:
    height, width = case.source.levels[0].shape
    box = Box(margin[0], margin[1], height + margin[2], width + margin[3])
    with pytest.raises(ValueError, match="is not inside level 0"):
        case.source.read(0, box)
    with pytest.raises(ValueError, match="levels present"):
        case.source.read(len(case.source.levels), Box(0, 0, 1, 1))


def test_an_empty_box_has_no_pixels(case: Case) -> None:
    assert case.source.read(0, Box(2, 3, 2, 8)).shape == (0, 5, case.source.channels)


def test_a_closed_source_refuses_to_read_and_closes_again(case: Case) -> None:
    case.source.close()
    case.source.close()
    with pytest.raises(ValueError, match="read after close"):
        case.source.read(0, Box(0, 0, 1, 1))


def test_identity_is_stable_and_differs_between_images(tmp_path: Path) -> None:
    seen = set()
    for number, maker in enumerate(MAKERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        uri, _ = maker(folder)
        sources = [open_source(uri), open_source(uri)]
        first, second = (source.identity() for source in sources)
        for source in sources:
            source.close()
        assert first == second
        assert first.nbytes > 0
        seen.add(first.quick_hash)
    assert len(seen) == len(MAKERS)


@pytest.mark.parametrize("maker", [zarr_v3, numpy_grey], ids=["zarr", "array"])
def test_identity_notices_changed_pixels(tmp_path: Path, maker: Callable[[Path], Made]) -> None:
    uri, _ = maker(tmp_path)
    before = open_source(uri).identity()
    pixels = uri if isinstance(uri, np.ndarray) else zarr.open_array(uri, mode="r+")
    pixels[0, 0] = 3
    assert open_source(uri).identity().quick_hash != before.quick_hash


@pytest.mark.parametrize("maker", [m for m in MAKERS if not m.__name__.startswith("numpy")])
def test_a_damaged_file_is_a_named_error(tmp_path: Path, maker: Callable[[Path], Made]) -> None:
    uri, levels = maker(tmp_path)
    victims = [uri] if uri.is_file() else [p for p in uri.rglob("*") if p.is_file()]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(SaccadeError, match=r"a\."), closing(open_source(uri)) as source:
        source.read(0, Box.of(levels[0].shape[:2]))
