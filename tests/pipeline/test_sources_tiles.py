"""Tiles of a TIFF: decoded directly as tifffile decodes them, once, and kept within a bound."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.tiff import TiffSource
from saccade.pipeline.sources.tiff_decoder import TileDecoder
from saccade.pipeline.sources.tiff_segments import compact
from saccade.pipeline.sources.tile_cache import TileBroken, TileCache, cache_limit, held_nbytes

SHAPE = (211, 157)


def texture(channels: int, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = (y * 3 + x * 5)[:, :, None] + np.arange(channels) * 41
    noisy = (values + rng.integers(0, 19, (*SHAPE, channels))) % 251
    pixels = (noisy / 13 if dtype.startswith("float") else noisy).astype(dtype)
    return pixels[:, :, 0] if channels == 1 else pixels


def tiff(folder: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(folder / "a.tif", pixels, metadata=None, **options)
    return folder / "a.tif"


def refuse(data: bytes, index: int) -> np.ndarray:
    raise AssertionError("tifffile was asked")


def assert_decoded_alike(path: Path, most: int = 23) -> int:
    """Every directory's tiles, directly and by tifffile; returns how many were compared."""
    compared = 0
    with tifffile.TiffFile(path) as tif:
        for page in tif.pages:
            decoder = TileDecoder.of(page)
            direct = replace(decoder, otherwise=refuse)
            stored = np.flatnonzero(page.databytecounts)
            for index in stored[:: max(1, len(stored) // most)]:
                expected, data = decode_both(tif, page, int(index), decoder)
                found = direct.decode(data, int(index), len(expected))
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)
                compared += 1
    return compared


def decode_both(
    tif: tifffile.TiffFile, page: Any, index: int, decoder: TileDecoder
) -> tuple[np.ndarray, bytes]:
    tif.filehandle.seek(page.dataoffsets[index])
    data = tif.filehandle.read(page.databytecounts[index])
    return decoder.otherwise(data, index), data


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (48, 32)},
    "strips": {"rowsperstrip": 13},
    "planar": {"tile": (32, 48), "planarconfig": "separate"},
}


PREDICTORS = {"uint8": 2, "int16": 2, "uint32": 2, "float32": 3, "float64": 3}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("codec", [None, "lzw", "deflate", "zstd"])
def test_sample_bytes_are_decoded_as_tifffile_does(
    tmp_path: Path, layout: str, byteorder: Any, codec: str | None
) -> None:
    for dtype, predictor in PREDICTORS.items():
        for applied in (1, predictor) if codec else (1,):
            pixels = texture(3, dtype)
            path = tiff(
                tmp_path, pixels.transpose(2, 0, 1) if layout == "planar" else pixels,
                photometric="rgb", compression=codec, predictor=applied, byteorder=byteorder,
                **LAYOUTS[layout],
            )  # fmt: skip
            assert assert_decoded_alike(path, 5) > 3
            with closing(open_source(path)) as source:
                assert np.array_equal(source.read(0, Box.of(SHAPE)), pixels)


@pytest.mark.parametrize("layout", ["tiles", "strips"])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"compression": "jpeg", "photometric": "minisblack"}),
        (1, {"compression": "jpeg", "photometric": "miniswhite"}),
        (3, {"compression": "jpeg", "photometric": "ycbcr"}),
        (3, {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}),
        (3, {"compression": "jpeg", "photometric": "rgb",
             "compressionargs": {"outcolorspace": "RGB"}}),
        (1, {"compression": "jpeg2000"}),
        (3, {"compression": "jpeg2000", "photometric": "rgb"}),
        (3, {"compression": "aperio_jp2000_rgb", "photometric": "rgb"}),
        (3, {"compression": "webp", "photometric": "rgb"}),
        (4, {"compression": "webp", "photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)  # fmt: skip
def test_pictures_are_decoded_as_tifffile_does(
    tmp_path: Path, layout: str, channels: int, options: dict[str, Any]
) -> None:
    place = {"tile": (64, 32)} if layout == "tiles" else {"rowsperstrip": 32}
    path = tiff(tmp_path, texture(channels), **options, **place)
    assert assert_decoded_alike(path) > 3
    with closing(open_source(path)) as source:
        expected = tifffile.imread(path).reshape(*SHAPE, channels)
        assert np.array_equal(source.read(0, Box.of(SHAPE)), expected)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (texture(1) % 2 == 0, {"photometric": "minisblack"}),
        (texture(4), {"compression": "jpeg", "photometric": "separated"}),
        (texture(1), {"compression": "packbits"}),
        (texture(3), {"compression": "lzma", "photometric": "rgb"}),
        (texture(3), {"compression": "png", "photometric": "rgb"}),
    ],
)
def test_what_is_unusual_is_left_to_tifffile(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any]
) -> None:
    path = tiff(tmp_path, pixels, tile=(32, 48), **options)
    with tifffile.TiffFile(path) as tif:
        assert TileDecoder.of(tif.pages[0]).fill is None
    with closing(open_source(path)) as source:
        found = source.read(0, Box.of(SHAPE))
    assert np.array_equal(found, tifffile.imread(path).reshape(found.shape))


@pytest.mark.parametrize("folder", ["slides", "rasters"])
def test_tiles_of_real_files_are_decoded_as_tifffile_does(data: Path, folder: str) -> None:
    paths = [p for p in sorted((data / folder).iterdir()) if p.suffix in (".svs", ".tif", ".tiff")]
    assert len(paths) >= 4
    assert sum(assert_decoded_alike(path, 7) for path in paths if usual(path)) > 50


def usual(path: Path) -> bool:
    """Whether every directory of a file is decoded without tifffile."""
    with tifffile.TiffFile(path) as tif:
        return all(TileDecoder.of(page).fill is not None for page in tif.pages)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_tiles_are_exactly_what_openslide_draws(
    tmp_path: Path, subsampling: tuple[int, int]
) -> None:
    """The bound on chroma rounding is 0: both upsample chroma in the same way."""
    path = tiff(
        tmp_path, texture(3), tile=(64, 32), compression="jpeg", photometric="ycbcr",
        subsampling=subsampling,
    )  # fmt: skip
    with closing(open_source(path)) as source, openslide.OpenSlide(path) as slide:
        drawn = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[:, :, :3]
        assert np.array_equal(source.read(0, Box.of(SHAPE)), drawn)


def test_a_generated_slide_is_exactly_what_openslide_draws(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_sample_slide(path, 1024)
    with closing(open_source(path)) as source, openslide.OpenSlide(path) as slide:
        for level, size in enumerate(slide.level_dimensions):
            drawn = np.asarray(slide.read_region((0, 0), level, size))[:, :, :3]
            assert np.array_equal(source.read(level, Box.of(size[::-1])), drawn)


# ------------------------------------------------------------------------------- decoded once


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """How often each tile was decoded."""
    counts: Counter[int] = Counter()
    original = TileDecoder.decode

    def counted(self: TileDecoder, data: bytes, index: int, height: int) -> np.ndarray:
        counts[index] += 1
        return original(self, data, index, height)

    monkeypatch.setattr(TileDecoder, "decode", counted)
    return counts


def windows(shape: tuple[int, int], core_px: int, halo_px: int) -> list[Box]:
    return [box.grow(halo_px).clip(shape) for box in Grid(shape, core_px)]


@pytest.mark.parametrize("threads", [1, 5])
def test_windows_with_halos_decode_each_tile_once(
    tmp_path: Path, decoded: Counter[int], threads: int
) -> None:
    path = tiff(tmp_path, texture(3), tile=(32, 32), compression="deflate", photometric="rgb")
    boxes = windows(SHAPE, 37, 11)
    with closing(open_source(path)) as source, ThreadPoolExecutor(threads) as pool:
        read = list(pool.map(lambda box: source.read(0, box), boxes))
    for pixels, box in zip(read, boxes, strict=True):
        assert np.array_equal(pixels, texture(3)[box.slices])
    assert decoded == dict.fromkeys(range(7 * 5), 1)


def test_tiles_of_equal_bytes_are_decoded_once(tmp_path: Path, decoded: Counter[int]) -> None:
    pixels = np.full((640, 512, 3), 243, np.uint8)
    pixels[:128, :128] = np.random.default_rng(3).integers(0, 255, (128, 128, 3))
    path = tiff(tmp_path, pixels, tile=(128, 128), compression="jpeg", photometric="ycbcr")
    with closing(TiffSource(path)) as source:
        found = source.read(0, Box.of(pixels.shape[:2]))
        assert np.array_equal(found, tifffile.imread(path))
        assert source._cache.nbytes == 128 * 128 * 3 + 128 * 3
    assert decoded == {0: 1, 1: 1}


def test_equal_bytes_of_strips_of_different_height_are_told_apart(tmp_path: Path) -> None:
    """Deflate does not say how large the pixels are; the last strip has fewer rows."""
    pixels = np.full((100, 640), 7, np.uint8)
    path = tiff(tmp_path, pixels, rowsperstrip=64, compression="deflate")
    with closing(open_source(path)) as source:
        assert (source.read(0, Box.of(pixels.shape)) == 7).all()
        assert source.read(0, Box(63, 0, 100, 640)).shape == (37, 640, 1)


def test_tiles_that_are_left_out_are_neither_decoded_nor_kept(
    tmp_path: Path, decoded: Counter[int]
) -> None:
    tiles = iter([np.full((64, 64), 5, np.uint8), None, None, None])
    options: dict[str, Any] = {"shape": (128, 128), "dtype": "uint8", "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "a.tif", tiles, **options)
    with closing(TiffSource(tmp_path / "a.tif")) as source:
        assert source.read(0, Box(0, 0, 128, 128)).sum() == 5 * 64 * 64
        assert source._cache.nbytes == 64 * 64
    assert decoded == {0: 1}


def test_a_tile_that_fails_is_not_kept_and_fails_again(
    tmp_path: Path, decoded: Counter[int]
) -> None:
    path = tiff(tmp_path, texture(3), tile=(64, 64), compression="deflate", photometric="rgb")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 99] = bytes(99)
    path.write_bytes(raw)
    with closing(open_source(path)) as source:
        for _ in range(2):
            with pytest.raises(ReadError, match=r"level 0, Box\(y0=0"):
                source.read(0, Box(0, 0, 8, 8))
        assert np.array_equal(source.read(0, Box(64, 64, 99, 99)), texture(3)[64:99, 64:99])
    assert decoded[0] == 2


def test_a_tile_that_holds_too_few_bytes_is_an_error(tmp_path: Path) -> None:
    tiles = iter([imagecodecs.zlib_encode(bytes(64 * 64 - 1))])
    options = {"shape": (64, 64), "dtype": "uint8", "tile": (64, 64), "compression": "deflate"}
    tifffile.imwrite(tmp_path / "a.tif", tiles, **options)
    with closing(open_source(tmp_path / "a.tif")) as source, pytest.raises(ReadError):
        source.read(0, Box(0, 0, 8, 8))


# -------------------------------------------------------------------------------------- cache


def tile_of(nbytes: int, value: int = 1) -> np.ndarray:
    return np.full(nbytes, value, np.uint8)


@settings(max_examples=60)
@given(st.integers(1, 97), st.lists(st.tuples(st.integers(0, 11), st.just(0)), max_size=60))
def test_a_cache_gives_the_right_tile_and_holds_no_more_than_its_limit(
    limit: int, wanted: list[tuple[int, int]]
) -> None:
    cache = TileCache(limit)
    for key, _ in wanted:
        found = cache.get(key, lambda key=key: tile_of(key * 3 + 1, key))
        assert found.tolist() == [key] * (key * 3 + 1)
        assert cache.nbytes == sum(held_nbytes(tile) for tile in cache._tiles.values()) <= limit
        assert (key in cache._tiles) == (key * 3 + 1 <= limit)


def test_the_tile_used_longest_ago_goes_first() -> None:
    cache, made = TileCache(3 * 7), Counter[str]()

    def get(key: str) -> None:
        cache.get(key, lambda: (made.update([key]), tile_of(7))[1])

    for key in ["a", "b", "c", "a", "d", "a", "c", "b"]:
        get(key)
    assert made == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_threads_that_want_one_tile_wait_for_the_one_that_makes_it() -> None:
    cache, started, go = TileCache(99), threading.Event(), threading.Event()
    made = []

    def make() -> np.ndarray:
        started.set()
        assert go.wait(60)
        made.append(threading.get_ident())
        return tile_of(5)

    with ThreadPoolExecutor(7) as pool:
        first = pool.submit(cache.get, "a", make)
        assert started.wait(60)
        others = [pool.submit(cache.get, "a", make) for _ in range(6)]
        go.set()
        tiles = [future.result(60) for future in (first, *others)]
    assert len(made) == 1
    assert all(tile is tiles[0] for tile in tiles)


def test_a_thread_that_waited_for_a_failure_tries_itself() -> None:
    cache, started, go = TileCache(99), threading.Event(), threading.Event()

    def fail() -> np.ndarray:
        started.set()
        assert go.wait(60)
        raise RuntimeError("damaged")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", fail)
        assert started.wait(60)
        second = pool.submit(cache.get, "a", lambda: tile_of(5))
        go.set()
        with pytest.raises(RuntimeError, match="damaged"):
            first.result(60)
        assert second.result(60).size == 5
    assert cache.nbytes == 5


def test_a_tile_larger_than_the_limit_is_made_and_not_kept() -> None:
    cache = TileCache(10)
    assert cache.get("a", lambda: tile_of(11)).size == 11
    assert cache.nbytes == 0


def test_a_kept_tile_can_not_be_changed() -> None:
    tile = TileCache(10).get("a", lambda: tile_of(3))
    with pytest.raises(ValueError, match="read-only"):
        tile[0] = 2


def test_a_closed_source_keeps_nothing(tmp_path: Path) -> None:
    source = TiffSource(tiff(tmp_path, texture(1), tile=(32, 32)))
    source.read(0, Box.of(SHAPE))
    assert source._cache.nbytes > 0
    source.close()
    assert source._cache.nbytes == 0


def test_one_row_is_kept_of_equal_rows_only() -> None:
    pixels = np.broadcast_to(np.arange(33, dtype=np.uint16).reshape(1, 11, 3), (7, 11, 3)).copy()
    assert held_nbytes(compact(pixels)) == 11 * 3 * 2
    assert np.array_equal(compact(pixels), pixels)
    pixels[3, 5, 1] = 99
    assert compact(pixels) is pixels


@pytest.mark.parametrize(
    ("tile_mib", "limit_mib"), [(0, 64), (10, 64), (11, 66), (48, 288), (100, 512), (600, 600)]
)
def test_a_cache_holds_what_neighbouring_windows_share(tile_mib: int, limit_mib: int) -> None:
    assert cache_limit(tile_mib << 20) == limit_mib << 20


@pytest.mark.parametrize(
    ("error", "tried"), [(ValueError("bad"), 2), (OSError("cut"), 2), (OSError(5, "I/O"), 5)]
)
def test_what_is_broken_is_tried_twice_and_what_storage_refused_again_and_again(
    error: Exception, tried: int
) -> None:
    cache, tries = TileCache(10), Counter[str]()

    def fail() -> np.ndarray:
        tries["all"] += 1
        raise error

    for _ in range(5):
        with pytest.raises((TileBroken, type(error)), match=str(error.args[-1])):
            cache.get("a", fail)
    assert tries["all"] == tried


def test_a_tile_that_could_be_made_the_second_time_is_kept() -> None:
    cache, made = TileCache(10), iter([ValueError("a hiccup"), tile_of(3)])

    def make() -> np.ndarray:
        made_now = next(made)
        if isinstance(made_now, Exception):
            raise made_now
        return made_now

    with pytest.raises(ValueError, match="hiccup"):
        cache.get("a", make)
    assert cache.get("a", make).size == 3
    assert cache.get("a", make).size == 3


def test_a_damaged_photograph_is_decoded_twice_however_often_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(texture(3)).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:-5000])
    with closing(open_source(cut)) as source:
        opened = Counter[str]()
        real = Image.open
        monkeypatch.setattr(Image, "open", lambda *a, **k: opened.update(["it"]) or real(*a, **k))
        for _ in range(9):
            with pytest.raises(ReadError, match="truncated"):
                source.read(0, Box(0, 0, 4, 4))
        assert opened["it"] == 2
