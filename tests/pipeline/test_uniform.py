"""Planes that are the same all over: as cheap as one pixel, and in every value like any other."""

import numpy as np
import pytest

from saccade.pipeline.fusion import halve_mean, halve_mode
from saccade.pipeline.uniform import held_nbytes, is_uniform, uniform

SHAPE = (37, 53)


def test_a_uniform_array_reads_like_any_other_and_holds_one_pixel() -> None:
    pixel = np.array([3, 5, 7], np.uint8)[:, None, None]
    planes = uniform(pixel, SHAPE)
    assert (planes == np.tile(pixel, SHAPE)).all()
    assert planes.shape == (3, *SHAPE)
    assert held_nbytes(planes) == 3
    assert not planes.flags.writeable


def test_an_ordinary_array_is_not_known_to_be_uniform() -> None:
    array = np.zeros((3, *SHAPE), np.uint8)
    assert not is_uniform(array)
    assert not is_uniform(array[:, :0])
    assert held_nbytes(array) == array.nbytes


@pytest.mark.parametrize("value", [0, 7, 255])
def test_halving_a_uniform_array_gives_what_halving_its_copy_gives(value: int) -> None:
    planes = uniform(np.full((3, 1, 1), value, np.uint8), SHAPE)
    assert is_uniform(halve_mean(planes))
    assert is_uniform(halve_mode(planes[0]))
    np.testing.assert_array_equal(halve_mean(planes), halve_mean(planes.copy()))
    np.testing.assert_array_equal(halve_mode(planes[0]), halve_mode(planes[0].copy()))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (613, 1201)])
def test_the_mean_of_bytes_is_rounded_half_up_whatever_the_shape(shape: tuple[int, int]) -> None:
    array = np.random.default_rng(7).integers(0, 256, (2, *shape), dtype=np.uint8)
    even = np.pad(array, ((0, 0), (0, shape[0] % 2), (0, shape[1] % 2)), mode="edge")
    corners = [even[:, i::2, j::2].astype(np.int64) for i in (0, 1) for j in (0, 1)]
    np.testing.assert_array_equal(halve_mean(array), (sum(corners) + 2) // 4)
