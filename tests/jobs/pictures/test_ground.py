"""Scale bars and arrows: of the right length, in the right direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from saccade.jobs.pictures.ground import NORTH_PT, Ground, with_ground
from saccade.jobs.pictures.thumbnail import as_colours, in_palette, shown_channels
from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference
from saccade.pipeline.sources.base import PixelSize

HALF = math.sqrt(0.5)


class Plan:
    """What a picture asks of an image's plan."""

    level_shapes = ((600, 900),)
    pixel_size = PixelSize(10, 10, "m")

    def __init__(self, affine: Affine | None) -> None:
        points = () if affine else (ControlPoint(1, 2, 3, 4),)
        self.georeference = Georeference(Crs(32636), affine, points)


def ground_of(affine: Affine | None, shape: tuple[int, int] = (200, 300)) -> Ground:
    plan: Any = Plan(affine)
    return Ground.of(plan, shape)


@pytest.mark.parametrize(
    ("affine", "north"),
    [
        (Affine(10, 0, 5, 0, -10, 7), (0, -1)),
        (Affine(10, 0, 5, 0, 10, 7), (0, 1)),
        (Affine(0, 10, 5, 10, 0, 7), (1, 0)),
        (Affine(-10, 0, 5, 0, -10, 7), (0, -1)),
        (Affine(10, 10, 5, 10, -10, 7), (HALF, -HALF)),
    ],
)
def test_north_is_where_y_grows(affine: Affine, north: tuple[float, float]) -> None:
    found = ground_of(affine).north
    assert found is not None
    assert found == pytest.approx(north, abs=1e-12)


def test_north_heeds_that_a_picture_may_be_drawn_wider_than_high() -> None:
    found = ground_of(Affine(10, 10, 0, 10, -10, 0), (600, 300)).north
    assert found is not None
    assert found[1] / found[0] == pytest.approx(-3)


def test_a_pixel_of_the_picture_is_as_many_times_larger_as_there_are_fewer() -> None:
    assert ground_of(Affine(10, 0, 5, 0, -10, 7)).pixel == PixelSize(30, 30, "m")


def test_without_an_affine_there_is_no_arrow() -> None:
    assert ground_of(None).north is None


@pytest.mark.parametrize("north", [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-HALF, -HALF)])
def test_the_arrow_points_north_from_the_middle_of_its_plate(north: tuple[float, float]) -> None:
    grey = np.full((300, 400, 3), 128, np.uint8)
    scale = 3.0
    drawn = with_ground(grey, Ground(None, north), scale)
    side = round(NORTH_PT * scale)
    plate = drawn[:side, -side:]
    assert (drawn[:, : -side - 1] == 128).all()
    assert (drawn[side + 1 :] == 128).all()
    rows, columns = np.nonzero(plate.max(axis=2) < 100)
    # behind the middle is the arrow's broad end, before it the letter's thin strokes
    along = (columns - side / 2) * north[0] + (rows - side / 2) * north[1]
    assert (along < 0).sum() > (along > 0).sum()
    assert abs(along).max() < side * HALF


@pytest.mark.parametrize(("unit", "size"), [("m", 3.0), ("um", 0.5)])
def test_a_scale_bar_is_as_long_as_it_says(unit: Any, size: float) -> None:
    grey = np.full((300, 400, 3), 128, np.uint8)
    drawn = with_ground(grey, Ground(PixelSize(size, size, unit)), 2.0)
    dark = (drawn.max(axis=2) < 60).sum(axis=1).max()
    assert dark * size == pytest.approx({"m": 200, "um": 50}[unit], rel=0.03)


def test_a_picture_too_small_for_an_arrow_has_none() -> None:
    grey = np.full((30, 40, 3), 128, np.uint8)
    assert (with_ground(grey, Ground(None, (0.0, -1.0))) == 128).all()


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("0", "1", "2", "3"), [0, 1, 2]),
        (("nir", "Red", "Green", "Blue"), [1, 2, 3]),
        (("vv", "vh"), [0]),
        (("elevation",), [0]),
    ],
)
def test_channels_that_are_called_colours_are_shown_as_such(
    names: tuple[str, ...], shown: list[int]
) -> None:
    assert shown_channels(names) == shown


def test_rasters_are_stretched_between_percentiles_of_what_has_data() -> None:
    pixels = np.repeat(np.arange(101, dtype=np.uint8).reshape(1, 101, 1) + 50, 3, axis=2)
    pixels[0, 100] = 255
    known = np.ones((1, 101), bool)
    known[0, 100] = False
    drawn = as_colours(pixels, known, as_is=False)
    low, high = np.percentile(np.arange(50, 150), (2, 98))
    wanted = np.rint(np.clip((pixels[known] - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(drawn[known], wanted)
    np.testing.assert_array_equal(as_colours(pixels, known), pixels)


def test_indices_have_the_colours_of_their_palette() -> None:
    palette = ((1, 2, 3, 255), (4, 5, 6, 0))
    drawn = in_palette(np.array([[0, 1, 7]], np.uint8), palette)
    np.testing.assert_array_equal(drawn[0], [(1, 2, 3), (4, 5, 6), (0, 0, 0)])
