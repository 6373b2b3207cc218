"""Upsampling and halving: independent of the box asked for, exact for constants, and oracles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saccade.pipeline.geometry import Box
from saccade.pipeline.resampling import Mode, coarse_box_for, halve_mean, halve_mode, upsample

RATIOS = st.sampled_from([1.0, 2.0, 4.0, 16.0, 0.5]) | st.floats(0.4, 23)
MODES = st.sampled_from(["bilinear", "nearest"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, float, Box]:
    """A coarse plane, a ratio, and a box of the fine plane over it."""
    shape = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    generator = np.random.default_rng(draw(st.integers(0, 997)))
    plane = generator.random((2, *shape), np.float32)
    kind = draw(st.sampled_from(["dense", "steps", "holes"]))
    if kind == "steps":
        plane = np.round(plane)
    elif kind == "holes":
        plane[:, generator.random(shape) < 0.3] = np.nan
    ratio = draw(RATIOS)
    height, width = (max(1, int(n * ratio)) for n in shape)
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    y1, x1 = draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width))
    return plane, ratio, Box(y0, x0, min(y1, y0 + 41), min(x1, x0 + 41))


def part_of(plane: np.ndarray, box: Box) -> tuple[np.ndarray, tuple[int, int]]:
    return plane[(slice(None), *box.slices)], (box.y0, box.x0)


@given(cases(), MODES)
def test_a_pixel_is_the_same_bit_for_bit_whichever_box_it_is_asked_for_in(
    case: tuple[np.ndarray, float, Box], mode: Mode
) -> None:
    plane, ratio, box = case
    shape = plane.shape[1:]
    fine = max(1, int(shape[0] * ratio)), max(1, int(shape[1] * ratio))
    whole = upsample(plane, (0, 0), ratio, Box.of(fine), shape, mode)
    alone = upsample(*part_of(plane, coarse_box_for(box, ratio, shape)), ratio, box, shape, mode)
    assert alone.shape == (2, *box.shape)
    assert alone.dtype == np.float32
    assert alone.tobytes() == whole[(slice(None), *box.slices)].tobytes()


def by_hand(plane: np.ndarray, y: int, x: int, ratio: float) -> float:
    """Bilinear at one fine pixel centre, edge pixels repeated."""
    padded = np.pad(plane.astype(np.float64), 1, mode="edge")
    v, u = (y + 0.5) / ratio + 0.5, (x + 0.5) / ratio + 0.5
    i, j = min(int(v), padded.shape[0] - 2), min(int(u), padded.shape[1] - 2)
    corners = padded[i : i + 2, j : j + 2]
    return float([1 - (v - i), v - i] @ corners @ [1 - (u - j), u - j])


@given(cases())
def test_bilinear_mixes_the_four_nearest_centres(case: tuple[np.ndarray, float, Box]) -> None:
    plane, ratio, box = case
    plane = np.nan_to_num(plane)
    found = upsample(plane, (0, 0), ratio, box, plane.shape[1:])
    for y, x in {(box.y0, box.x0), (box.y1 - 1, box.x1 - 1), (box.y0, box.x1 - 1)}:
        expected = by_hand(plane[1], y, x, ratio)
        assert found[1, y - box.y0, x - box.x0] == pytest.approx(expected, abs=1e-5)


@given(cases())
def test_nearest_takes_the_coarse_pixel_that_holds_the_centre(
    case: tuple[np.ndarray, float, Box],
) -> None:
    plane, ratio, box = case
    found = upsample(plane, (0, 0), ratio, box, plane.shape[1:], "nearest")
    rows = np.minimum((np.arange(box.y0, box.y1) + 0.5) / ratio, plane.shape[1] - 1).astype(int)
    columns = np.minimum((np.arange(box.x0, box.x1) + 0.5) / ratio, plane.shape[2] - 1).astype(int)
    np.testing.assert_array_equal(found, plane[:, rows[:, None], columns])


@given(st.floats(0, 1, width=32), RATIOS, MODES, st.booleans())
def test_a_constant_stays_the_same_constant_bit_for_bit(
    value: float, ratio: float, mode: Mode, beside_another: bool
) -> None:
    plane = np.full((1, 7, 11), value, np.float32)
    box = Box.of((max(1, int(3 * ratio)), max(1, int(5 * ratio))))
    if beside_another:
        plane[:, 5:] = 0.5
    assert (upsample(plane, (0, 0), ratio, box, (7, 11), mode) == np.float32(value)).all()


@given(cases())
def test_upsampling_stays_between_the_lowest_and_the_highest(
    case: tuple[np.ndarray, float, Box],
) -> None:
    plane, ratio, box = case
    plane = np.nan_to_num(plane)
    found = upsample(plane, (0, 0), ratio, box, plane.shape[1:])
    assert found.min() >= plane.min() - 1e-6
    assert found.max() <= plane.max() + 1e-6


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_what_was_not_computed_does_not_spread(axis: int, flip: bool) -> None:
    line = np.array([0.25, np.nan, np.nan, np.nan], np.float32)
    plane = np.expand_dims(line[::-1] if flip else line, (0, 3 - axis))
    shape = plane.shape[1:]
    found = upsample(plane, (0, 0), 4.0, Box(0, 0, 4 * shape[0], 4 * shape[1]), shape)
    computed = ~np.isnan(np.flip(found, axis) if flip else found)
    # As far as the centre of its neighbour, where the next pair begins.
    assert computed.all(axis=(0, 3 - axis)).tolist() == [True] * 6 + [False] * 10
    assert (found[~np.isnan(found)] == 0.25).all()


def test_the_result_can_be_written_to() -> None:
    found = upsample(np.full((1, 3, 3), 0.7, np.float32), (0, 0), 2.0, Box(0, 0, 5, 5), (3, 3))
    found[:] = 0
    assert not found.any()


def test_a_part_that_lacks_needed_pixels_is_refused() -> None:
    plane = np.zeros((1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"needs coarse .*; found"):
        upsample(plane, (2, 0), 4.0, Box(0, 0, 8, 8), (5, 5))


# Halving

SIDES = st.tuples(st.integers(1, 11), st.integers(1, 11))


def blocks(array: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Every 2 x 2 of the last two axes, smaller at odd edges."""
    height, width = array.shape[-2:]
    return [
        (y // 2, x // 2, array[..., y : y + 2, x : x + 2])
        for y in range(0, height, 2)
        for x in range(0, width, 2)
    ]


def halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 2))


@given(hnp.arrays(np.uint8, st.tuples(st.just(2), *[st.integers(1, 11)] * 2)))
def test_the_mean_of_integers_is_that_of_the_pixels_there_are_rounded_half_up(
    array: np.ndarray,
) -> None:
    found = halve_mean(array)
    assert found.dtype == np.uint8
    assert found.shape == halved(array.shape)
    for y, x, block in blocks(array):
        total, count = block.astype(int).sum(axis=(1, 2)), block[0].size
        assert (found[:, y, x] == (2 * total + count) // (2 * count)).all()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.just(2), *[st.integers(1, 11)] * 2),
        elements=st.floats(0, 1, width=32),
    ),
    st.integers(0, 997),
)
def test_the_mean_of_floats_leaves_nan_out(array: np.ndarray, seed: int) -> None:
    array[np.random.default_rng(seed).random(array.shape) < 0.4] = np.nan
    found = halve_mean(array)
    assert found.dtype == np.float32
    assert found.shape == halved(array.shape)
    for y, x, block in blocks(array):
        for channel in range(2):
            valid = block[channel][~np.isnan(block[channel])]
            expected = valid.astype(np.float64).mean() if valid.size else np.nan
            np.testing.assert_allclose(found[channel, y, x], expected, rtol=1e-6, atol=1e-9)


@given(SIDES, st.floats(0, 1, width=16))
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_halving_a_constant_gives_it_back(
    dtype: type, sides: tuple[int, int], value: float
) -> None:
    array = np.full((1, *sides), value, dtype)
    assert (halve_mean(array) == array[0, 0, 0]).all()
    assert halve_mean(array).dtype == dtype


@given(hnp.arrays(np.uint8, SIDES, elements=st.sampled_from([0, 1, 2, 3, 5, 255])))
def test_the_mode_is_the_commonest_label_and_of_equal_ones_the_lowest(labels: np.ndarray) -> None:
    found = halve_mode(labels)
    assert found.dtype == np.uint8
    assert found.shape == halved(labels.shape)
    for y, x, block in blocks(labels):
        votes = Counter(int(v) for v in block.ravel() if v != 255)
        expected = min(votes, key=lambda v: (-votes[v], v)) if votes else 255
        assert found[y, x] == expected
