"""One resolution of an image: where its pixels come from and what they are worth."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.pipeline.errors import MissingPixelSize, ResolutionUnavailable
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import plane as plane_module
from saccade.pipeline.sources import reduce as reduce_module
from saccade.pipeline.sources.array import ArraySource
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Level, PixelSize
from saccade.pipeline.sources.plane import Plane, PlaneSpec, locate

FACTORS = [1.5, 2.0, math.pi, 5.0, 7.3, 13.0]
DTYPES = ["uint8", "int16", "uint16", "float32"]


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(5).normal(100, 40, shape).clip(2, 250)
    return values.astype(dtype)


def plane_of(pixels: np.ndarray, factor: float, nodata: float | None = None) -> Plane:
    source = ArraySource(pixels, nodata=nodata)
    return Plane(source, locate(source, downsample=factor, tolerance=0))


def whole(plane: Plane) -> np.ndarray:
    return plane.read(Box.of(plane.shape))


def pyramid(*downsamples: float, pixel_size: PixelSize | None = None) -> ArraySource:
    source = ArraySource(noise((1009, 811, 3)), "slide", pixel_size)
    source.levels = tuple(Level((math.ceil(1009 / d), math.ceil(811 / d)), d) for d in downsamples)
    return source


@settings(max_examples=60, deadline=None)
@given(
    factor=st.one_of(st.sampled_from(FACTORS), st.floats(1.01, 17)),
    dtype=st.sampled_from(DTYPES),
    holes=st.booleans(),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_pixel_does_not_depend_on_the_box_it_is_read_in(
    factor: float, dtype: str, holes: bool, corners: tuple[float, ...]
) -> None:
    pixels = noise((101, 89, 2), dtype)
    if holes:
        pixels[30:50, 20:70] = 1
    plane = plane_of(pixels, factor, nodata=1)
    (y0, y1), (x0, x1) = (
        sorted(round(share * side) for share in pair)
        for pair, side in zip((corners[:2], corners[2:]), plane.shape, strict=True)
    )
    box = Box(y0, x0, y1, x1)
    assert np.array_equal(plane.read(box), whole(plane)[box.slices])


@pytest.mark.parametrize("factor", FACTORS)
def test_missing_data_elsewhere_does_not_change_the_last_bit(factor: float) -> None:
    """Every bit of a double shows; the box holds all its data, the whole image does not."""
    pixels = np.random.default_rng(3).normal(size=(101, 89, 2))
    pixels[:20] = np.nan
    plane = plane_of(pixels, factor)
    box = Box(math.ceil(20 / factor), 0, *plane.shape)
    assert np.array_equal(plane.read(box), whole(plane)[box.slices])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_image_stays_constant(factor: float, dtype: str) -> None:
    assert (whole(plane_of(np.full((97, 61, 3), 113, dtype), factor)) == 113).all()


@pytest.mark.parametrize("factor", [2, 3, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_factors_are_block_means(factor: int, dtype: str) -> None:
    pixels = noise((factor * 11, factor * 13, 3), dtype)
    blocks = pixels.reshape(11, factor, 13, factor, 3).mean((1, 3), dtype=np.float64)
    expected = blocks if dtype == "float32" else np.rint(blocks)
    np.testing.assert_allclose(whole(plane_of(pixels, factor)), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32"])
@pytest.mark.parametrize("factor", [2, 3, 16, 31, 307])
def test_whole_factors_average_every_integer_type_to_its_limits(factor: int, dtype: str) -> None:
    """Also the last row and column of blocks, which have fewer pixels."""
    rng = np.random.default_rng(17)
    kind = np.dtype("uint8" if dtype == "bool" else dtype)
    limits = (0, 1) if dtype == "bool" else (np.iinfo(kind).min, np.iinfo(kind).max)
    pixels = rng.integers(*limits, (337, 323, 3), endpoint=True).astype(kind)
    pixels[:factor, :factor] = limits[0]
    pixels[:factor, factor:] = limits[1]
    exact = np.empty((math.ceil(337 / factor), math.ceil(323 / factor), 3))
    for y, x in np.ndindex(exact.shape[:2]):
        block = pixels[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        exact[y, x] = block.sum((0, 1), dtype=np.int64) / (block.shape[0] * block.shape[1])
    assert np.array_equal(whole(plane_of(pixels, factor)), np.rint(exact).astype(kind))


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
@pytest.mark.parametrize("factor", [2, 3, 2.5])
def test_64_bit_integers_are_averaged_as_floats_are(factor: float, dtype: str) -> None:
    limits = np.iinfo(dtype)
    pixels = np.full((31, 37, 1), limits.max, dtype)
    pixels[:15] = limits.min
    found = whole(plane_of(pixels, factor)).astype(np.float64)
    np.testing.assert_allclose(found[0], float(limits.min))
    np.testing.assert_allclose(found[-1], float(limits.max))


def test_integers_are_rounded_half_to_even() -> None:
    pixels = np.array([[0, 1, 1, 2]] * 2, np.uint8)
    assert whole(plane_of(pixels, 2)).ravel().tolist() == [0, 2]


@pytest.mark.parametrize("factor", FACTORS)
def test_the_mean_is_preserved(factor: float) -> None:
    pixels = noise((103, 83, 1), "float32")
    plane = plane_of(pixels, factor)
    rows, columns = (
        np.diff(np.minimum(np.arange(n + 1) * factor, side))
        for n, side in zip(plane.shape, (103, 83), strict=True)
    )
    area = np.outer(rows, columns)
    reduced = np.average(whole(plane)[:, :, 0].astype(float), weights=area)
    assert area.sum() == pytest.approx(103 * 83)
    assert reduced == pytest.approx(pixels.mean(dtype=float), rel=1e-6)


@pytest.mark.parametrize("factor", [1.5, 2.25, 3.5])
def test_fractional_factors_weigh_by_exact_area(factor: float) -> None:
    """Repeating every pixel four times turns quarters of a pixel into whole ones."""
    pixels = noise((63, 49, 2), "float32")
    fine = pixels.repeat(4, 0).repeat(4, 1)
    np.testing.assert_allclose(
        whole(plane_of(pixels, factor)), whole(plane_of(fine, factor * 4)), rtol=1e-6
    )


@pytest.mark.parametrize("factor", [2.0, 2.5, 4.0])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0.0), ("float32", math.nan)])
def test_pixels_without_data_do_not_count(dtype: str, nodata: float, factor: float) -> None:
    pixels = np.full((40, 40, 2), 77, dtype)
    pixels[:20, :, 0] = nodata
    pixels[::2, 20:, 1] = nodata
    found = whole(plane_of(pixels, factor, nodata))
    empty = math.floor(20 / factor)
    assert (np.isnan(found) if math.isnan(nodata) else found == nodata)[:empty, :, 0].all()
    assert (found[math.ceil(20 / factor) :, :, 0] == 77).all()
    assert (found[: math.ceil(20 / factor), :, 0][empty:] == 77).all()
    assert (found[:, :, 1] == 77).all()


def test_not_a_number_does_not_count_even_where_no_nodata_is_stated() -> None:
    pixels = np.array([[1, np.nan, np.nan, np.nan]] * 2, np.float32)
    found = whole(plane_of(pixels, 2)).ravel()
    assert found[0] == 1
    assert np.isnan(found[1])


@pytest.mark.parametrize("factor", [2.0, 2.6])
def test_infinity_stays_where_it_is(factor: float) -> None:
    pixels = noise((40, 40, 1), "float32")
    pixels[13, 17] = np.inf
    found = whole(plane_of(pixels, factor))[:, :, 0]
    y, x = np.argwhere(~np.isfinite(found)).T
    assert (y.min(), y.max()) == (math.floor(13 / factor), math.ceil(14 / factor) - 1)
    assert (x.min(), x.max()) == (math.floor(17 / factor), math.ceil(18 / factor) - 1)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("factor", [3.0, 4.4])
def test_reading_in_pieces_changes_nothing_and_bounds_what_is_held(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise((211, 173, 3))
    expected = whole(plane_of(pixels, factor))
    plane, read, seen = plane_of(pixels, factor), ArraySource.read_valid, []

    def watched(source: ArraySource, level: int, box: Box) -> Samples:
        seen.append(box.area * 3)
        return read(source, level, box)

    monkeypatch.setattr(ArraySource, "read_valid", watched)
    monkeypatch.setattr(plane_module, "MAX_READ_NBYTES", 4001)
    monkeypatch.setattr(reduce_module, "BAND_SAMPLES", 307)
    assert np.array_equal(whole(plane), expected)
    assert len(seen) > 20
    assert max(seen) <= 4001


def test_an_empty_box_and_a_box_outside() -> None:
    plane = plane_of(noise((31, 37, 3)), 2.5)
    assert plane.read(Box(4, 4, 4, 9)).shape == (0, 5, 3)
    with pytest.raises(ValueError, match="not inside a plane"):
        plane.read(Box(0, 0, plane.shape[0] + 1, 1))


@pytest.mark.parametrize(
    ("wanted", "level", "factor"),
    [
        (1.0, 0, 1.0),
        (1.01, 0, 1.0),
        (0.99, 0, 1.0),
        (3.0, 0, 3.0),
        (3.95, 1, 1.0),
        (4.0, 1, 1.0),
        (4.07, 1, 1.0),
        (4.3, 1, 1.075),
        (12.004, 1, 3.0),
        (16.0, 2, 1.0),
        (40.0, 2, 2.5),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    wanted: float, level: int, factor: float
) -> None:
    source = pyramid(1.0, 4.0, 16.0)
    spec = locate(source, downsample=wanted)
    assert (spec.level, spec.factor) == (level, pytest.approx(factor))
    assert spec.downsample == source.levels[level].downsample * spec.factor
    sides = source.levels[level].shape
    assert spec.shape == tuple(math.ceil(side / spec.factor) for side in sides)


@pytest.mark.parametrize(
    ("size", "asked", "downsample"),
    [
        (PixelSize(0.25, 0.25, "um"), {"mpp": 0.5}, 2.0),
        (PixelSize(0.2, 0.3, "um"), {"mpp": 1.75}, 7.0),
        (PixelSize(3.0, 3.0, "m"), {"gsd": 15}, 5.0),
        (PixelSize(3.0, 3.0, "m"), {"mpp": 6e6}, 2.0),
    ],
)
def test_physical_resolutions_are_reached(
    size: PixelSize, asked: dict[str, Any], downsample: float
) -> None:
    spec = locate(pyramid(1.0, pixel_size=size), **asked)
    assert spec.downsample == downsample
    assert spec.pixel_size == size.times(downsample)


def test_a_stated_pixel_size_replaces_the_images() -> None:
    source = pyramid(1.0, 2.0, pixel_size=PixelSize(1, 1, "um"))
    spec = locate(source, mpp=1.5, pixel_size=PixelSize(0.5, 0.5, "um"))
    assert (spec.level, spec.downsample) == (1, 3.0)


def test_a_missing_pixel_size_names_the_way_out() -> None:
    with pytest.raises(MissingPixelSize, match=r"slide: mpp .*`mpp` column .*`--mpp`"):
        locate(pyramid(1.0), mpp=0.5)
    with pytest.raises(MissingPixelSize, match=r"`gsd` column"):
        locate(pyramid(1.0), gsd=0.5)


def test_finer_than_the_image_is_refused_beyond_the_tolerance() -> None:
    source = pyramid(1.0, pixel_size=PixelSize(0.5, 0.5, "um"))
    assert locate(source, mpp=0.495).factor == 1
    with pytest.raises(ResolutionUnavailable, match=r"2 times finer than level 0 \(0.5 um"):
        locate(source, mpp=0.25)
    with pytest.raises(ResolutionUnavailable, match="finer"):
        locate(source, mpp=0.495, tolerance=0.001)


@pytest.mark.parametrize(("asked", "level"), [(0, 0), (2, 2), (-1, 2), (-3, 0)])
def test_a_level_is_taken_as_it_is(asked: int, level: int) -> None:
    spec = locate(pyramid(1.0, 4.0, 16.0), level=asked)
    assert (spec.level, spec.factor) == (level, 1.0)


@pytest.mark.parametrize("asked", [3, -4])
def test_a_level_that_is_not_there_is_refused(asked: int) -> None:
    with pytest.raises(ResolutionUnavailable, match="levels 0 to 2"):
        locate(pyramid(1.0, 4.0, 16.0), level=asked)


@pytest.mark.parametrize("asked", [{}, {"mpp": 1.0, "level": 0}])
def test_exactly_one_way_to_say_it(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        locate(pyramid(1.0), **asked)


@pytest.mark.parametrize("size", [None, PixelSize(0.25, 0.5, "um")])
def test_a_spec_survives_json(size: PixelSize | None) -> None:
    spec = locate(pyramid(1.0, 4.0, pixel_size=size), downsample=5.3)
    assert PlaneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
