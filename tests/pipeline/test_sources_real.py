"""Real slides and rasters against independent readers: OpenSlide, and tifffile decoding whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from saccade.pipeline.errors import BrokenImage, ReadError, SourceError, UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import PixelSize, Source
from saccade.pipeline.sources.openslide import OpenSlideSource
from saccade.pipeline.sources.tiff import TiffSource

RASTERS = {
    "RGB.byte.tif": [0],
    "cog_dateline.tif": [0, 1, 2, 3],
    "cog_gcps.tif": [0, 1, 2, 3],
    "cog_int16.tif": [0, 1, 2, 3],
    "cog_nodata.tif": [0, 1, 2, 3],
    "cog_uint8_rgb_mask.tif": [0, 2, 3],
    "cog_world.tif": [3, 4, 5, 6],
    "kampala_buildings.tif": [0, 1, 2, 3],
    "kampala_rgb.tif": [0, 1, 2, 3],
    "mosaic_cog1.tif": [0, 1, 2],
    "mosaic_cog2.tif": [0, 1, 2],
}
"""Directories that hold the coarsest levels; the finest of ``cog_world`` are too large here."""

SLIDES = {
    "cmu-1-small-region.svs": [0],
    "tcga-jpeg2000-no-mpp.svs": [0, 2],
    "small.svs": [0],
    "boxes.tiff": [0, 1, 2, 3],
}


def boxes(shape: tuple[int, int], count: int = 7) -> Iterator[Box]:
    rng = np.random.default_rng(13)
    for _ in range(count):
        y0, x0 = (int(rng.integers(0, side)) for side in shape)
        y1, x1 = min(shape[0], y0 + 613), min(shape[1], x0 + 419)
        yield Box(y0, x0, y1, x1)


def assert_same(source: Source, level: int, reference: np.ndarray) -> None:
    height, width = source.levels[level].shape
    assert reference.shape[:2] == (height, width)
    reference = reference.reshape(height, width, source.channels)
    for box in boxes((height, width)):
        assert np.array_equal(source.read(level, box), reference[box.slices])


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    with closing(open_source(path)) as source:
        yield source


@pytest.mark.parametrize("name", RASTERS)
def test_rasters_are_what_tifffile_decodes(data: Path, name: str) -> None:
    path = data / "rasters" / name
    with opened(path) as source, tifffile.TiffFile(path) as tif:
        first = len(source.levels) - len(RASTERS[name])
        for level, page in enumerate(RASTERS[name], start=first):
            assert_same(source, level, tif.pages[page].asarray())


def test_masks_are_not_levels(data: Path) -> None:
    with opened(data / "rasters" / "cog_uint8_rgb_mask.tif") as source:
        assert [level.shape for level in source.levels] == [(256, 256), (128, 128), (64, 64)]


def test_a_box_of_a_large_raster_is_what_openslide_draws(data: Path) -> None:
    """Its finest level, too large to decode whole; OpenSlide repeats grey three times."""
    path = data / "rasters" / "cog_world.tif"
    with opened(path) as source, openslide.OpenSlide(path) as slide:
        assert [level.downsample for level in source.levels] == [1, 2, 4, 8, 16, 32, 64]
        for box in boxes(source.levels[0].shape):
            drawn = slide.read_region((box.x0, box.y0), 0, (box.width, box.height))
            assert np.array_equal(source.read(0, box)[:, :, 0], np.asarray(drawn)[:, :, 0])


@pytest.mark.parametrize("name", SLIDES)
def test_slides_are_what_openslide_draws(data: Path, name: str) -> None:
    path = data / "slides" / name
    with opened(path) as source, openslide.OpenSlide(path) as slide:
        for level, size in enumerate(slide.level_dimensions):
            drawn = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
            assert_same(source, level, drawn)
        assert len(source.levels) == slide.level_count == len(SLIDES[name])


@pytest.mark.parametrize("name", SLIDES)
def test_slides_are_what_tifffile_decodes(data: Path, name: str) -> None:
    path = data / "slides" / name
    with opened(path) as source, tifffile.TiffFile(path) as tif:
        for level, page in enumerate(SLIDES[name]):
            assert_same(source, level, tif.pages[page].asarray())


@pytest.mark.parametrize("name", ["boxes_0.dcm", "boxes_1.dcm"])
def test_dicom_is_read_through_openslide(data: Path, name: str) -> None:
    path = data / "slides" / name
    with opened(path) as source, openslide.OpenSlide(path) as slide:
        drawn = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
        assert_same(source, 0, np.asarray(drawn))
        assert source.format == "DICOM"
        assert source.pixel_size == PixelSize(0.499, 0.499, "um")


def test_both_readers_of_aperio_agree_on_what_they_describe(data: Path) -> None:
    for name in ("cmu-1-small-region.svs", "tcga-jpeg2000-no-mpp.svs"):
        path = data / "slides" / name
        with closing(TiffSource(path)) as direct, closing(OpenSlideSource(path)) as through:
            assert direct.pixel_size == through.pixel_size
            assert direct.identity() == through.identity()
            for one, other in zip(direct.levels, through.levels, strict=True):
                assert (one.shape, one.tile) == (other.shape, other.tile)
                assert one.downsample == other.downsample


def aperio(folder: Path, pixels: np.ndarray, **options: Any) -> Path:
    described = "Aperio Image Library v11\r\n|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(folder / "a.svs") as writer:
        for step in (1, 4):
            part = pixels[::step, ::step]
            text = {"description": described} if step == 1 else {}
            writer.write(part, tile=(256, 256), metadata=None, **text, **options)
    return folder / "a.svs"


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_subsampled_chroma_is_decoded_as_openslide_does(
    data: Path, tmp_path: Path, subsampling: tuple[int, int]
) -> None:
    with opened(data / "slides" / "cmu-1-small-region.svs") as slide:
        pixels = slide.read(0, Box(0, 0, 911, 773))
    options = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": subsampling}
    path = aperio(tmp_path, pixels, **options)
    with opened(path) as source, closing(OpenSlideSource(path)) as reference:
        assert isinstance(source, TiffSource)
        for level, found in enumerate(reference.levels):
            box = Box.of(found.shape)
            assert np.array_equal(source.read(level, box), reference.read(level, box))


def test_an_aperio_slide_that_lacks_a_tile_is_left_to_openslide(tmp_path: Path) -> None:
    path = aperio(tmp_path, np.full((600, 700, 3), 90, np.uint8), compression="jpeg")
    with opened(path) as source:
        assert isinstance(source, TiffSource)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        tag.overwrite((*tag.value[:-1], 0))
    with opened(path) as source:
        assert isinstance(source, OpenSlideSource)
        assert source.read(0, Box(0, 0, 600, 700)).shape == (600, 700, 3)


def test_levels_say_how_they_were_made(data: Path) -> None:
    with opened(data / "rasters" / "cog_world.tif") as source:
        assert [level.resampling for level in source.levels] == [None] + ["NEAREST"] * 6
    with opened(data / "rasters" / "cog_uint8_rgb_mask.tif") as source:
        assert [level.resampling for level in source.levels] == [None, "BILINEAR", "BILINEAR"]


def test_photographs_are_what_pillow_decodes(data: Path) -> None:
    for name in ("IDRiD_01.jpg", "IDRiD_01_bits.png"):
        path = data / "idrid" / name
        with opened(path) as source, Image.open(path) as image:
            assert_same(source, 0, np.asarray(image))
            assert source.pixel_size is None


KAMPALA_M = 0.07464553543474244 * math.cos(math.radians(0.35087))
"""A pixel of Web Mercator on the ground, at the latitude of the photograph's middle."""


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("slides/cmu-1-small-region.svs", PixelSize(0.499, 0.499, "um")),
        ("slides/tcga-jpeg2000-no-mpp.svs", None),
        ("slides/boxes.tiff", None),
        ("rasters/cog_gcps.tif", None),
        ("rasters/kampala_rgb.tif", PixelSize(KAMPALA_M, KAMPALA_M, "m")),
        ("rasters/RGB.byte.tif", PixelSize(300.041782729805, 300.0379266750948, "m")),
        ("rasters/cog_world.tif", PixelSize(1113.2, 1113.2, "m")),
    ],
)
def test_pixel_sizes_of_real_files(data: Path, name: str, size: PixelSize | None) -> None:
    with opened(data / name) as source:
        found = source.pixel_size
    if size is None or found is None:
        assert found is size
    else:
        assert (found.y, found.x, found.unit) == (
            pytest.approx(size.y),
            pytest.approx(size.x),
            size.unit,
        )


@pytest.mark.parametrize(
    ("name", "nodata"),
    [
        ("cog_world.tif", 0.0),
        ("cog_nodata.tif", 1.0),
        ("cog_int16.tif", -32768.0),
        ("kampala_rgb.tif", None),
    ],
)
def test_nodata_of_zero_is_told_from_none(data: Path, name: str, nodata: float | None) -> None:
    with opened(data / "rasters" / name) as source:
        assert source.nodata == nodata
        assert (source.nodata is None) == (nodata is None)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("broken.svs", BrokenImage, r"a \.svs file expected, but it begins with"),
        ("unopenable.tiff", UnsupportedImage, "no decoder .* 52479"),
    ],
)
def test_a_broken_file_does_not_open(
    data: Path, name: str, error: type[SourceError], words: str
) -> None:
    with pytest.raises(error, match=f"{name}.*{words}"):
        open_source(data / "broken" / name)


@pytest.mark.parametrize("reader", [open_source, OpenSlideSource])
def test_an_undecodable_region_names_image_level_and_box(data: Path, reader: type) -> None:
    with closing(reader(data / "broken" / "unreadable.svs")) as source:
        for _ in range(3):
            with pytest.raises(ReadError, match=r"unreadable.svs: level 0, Box\(y0=0.*Bogus"):
                source.read(0, Box(0, 0, 16, 16))


def test_a_slide_goes_on_after_a_tile_that_fails(data: Path, tmp_path: Path) -> None:
    """OpenSlide's handles refuse everything after one error; the source's do not."""
    path = data / "slides" / "cmu-1-small-region.svs"
    damaged = tmp_path / "damaged.svs"
    with tifffile.TiffFile(path) as tif:
        offset, tile = tif.pages[0].dataoffsets[0], tif.pages[0].tilewidth
        raw = bytearray(path.read_bytes())
    raw[offset : offset + 600] = bytes(600)
    damaged.write_bytes(raw)
    bad, good = Box(0, 0, 50, 50), Box(tile, tile, tile + 50, tile + 50)
    for reader in (TiffSource, OpenSlideSource):
        with closing(reader(damaged)) as source, opened(path) as whole:
            with pytest.raises(ReadError, match=r"damaged\.svs: level 0, Box\(y0=0"):
                source.read(0, bad)
            assert np.array_equal(source.read(0, good), whole.read(0, good))


def test_neither_a_missing_file_nor_an_unknown_format_has_a_reader(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_source(tmp_path / "gone.svs")
    with pytest.raises(UnsupportedImage, match="zarr metadata"):
        open_source(tmp_path)
    with pytest.raises(UnsupportedImage, match=r"OME-Zarr 0\.4 and 0\.5"):
        open_source(data / "rasters" / "sentinel2_clouds.npz")
