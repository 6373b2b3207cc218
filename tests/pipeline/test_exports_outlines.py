"""Outlines against shapely, and against a flood fill: valid, exact, whatever the strips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saccade.pipeline.exports.outlines import Outline, Outliner

shapely = pytest.importorskip("shapely")

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 13), st.integers(1, 17)), elements=st.booleans())
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=13)


def outlines(
    mask: np.ndarray, cuts: Sequence[int], scores: np.ndarray | None = None
) -> list[Outline]:
    """All regions of a mask that is handed over in strips of so many rows, again and again."""
    outliner = Outliner(mask.shape[1])
    scores = mask if scores is None else scores
    found, row, number = [], 0, 0
    while row < len(mask):
        stop = row + cuts[number % len(cuts)]
        found += outliner.add(mask[row:stop], scores[row:stop])
        row, number = stop, number + 1
    return [*found, *outliner.finish()]


def polygon(outline: Outline) -> shapely.Polygon:
    outer, *holes = outline.rings
    return shapely.Polygon(outer, holes)


def flooded(mask: np.ndarray) -> np.ndarray:
    """Regions by filling from each pixel to its four neighbours, numbered from 1."""
    number = np.zeros(mask.shape, int)
    count = 0
    for start in zip(*np.nonzero(mask), strict=True):
        waiting = [start] if not number[start] else []
        count += bool(waiting)
        while waiting:
            y, x = waiting.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if inside and mask[y, x] and not number[y, x]:
                number[y, x] = count
                waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return number


def drawn(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside a polygon, by shapely."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside: np.ndarray = shapely.contains_xy(polygon(outline), x, y)
    return inside


@given(MASKS, CUTS)
def test_every_outline_is_a_valid_polygon_of_its_pixels_area(
    mask: np.ndarray, cuts: list[int]
) -> None:
    for outline in outlines(mask, cuts):
        shape = polygon(outline)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == outline.pixels


@given(MASKS, CUTS)
def test_outlines_drawn_again_are_the_regions_of_a_flood_fill(
    mask: np.ndarray, cuts: list[int]
) -> None:
    number = flooded(mask)
    found = outlines(mask, cuts)
    assert len(found) == number.max(initial=0)
    for outline in found:
        inside = drawn(outline, mask.shape)
        (region,) = np.unique(number[inside])
        assert region
        np.testing.assert_array_equal(inside, number == region)


@given(MASKS, CUTS, CUTS)
def test_strips_change_nothing_but_the_order(
    mask: np.ndarray, cuts: list[int], others: list[int]
) -> None:
    one, other = (
        {shapely.normalize(polygon(outline)).wkt for outline in outlines(mask, rows)}
        for rows in (cuts, others)
    )
    assert one == other


@given(MASKS, CUTS)
def test_outer_rings_go_one_way_and_holes_the_other(mask: np.ndarray, cuts: list[int]) -> None:
    for outline in outlines(mask, cuts):
        turns = [shapely.LinearRing(ring).is_ccw for ring in outline.rings]
        assert turns == [True] + [False] * (len(turns) - 1)


@given(MASKS, CUTS, st.sampled_from(["uint8", "float32"]))
def test_scores_are_summed_over_the_region(mask: np.ndarray, cuts: list[int], dtype: str) -> None:
    scores = np.random.default_rng(mask.size).integers(0, 255, mask.shape).astype(dtype)
    scores[~mask] = 251 if dtype == "uint8" else np.nan
    for outline in outlines(mask, cuts, scores):
        assert outline.score == scores[drawn(outline, mask.shape)].sum(dtype=np.float64)


def test_a_ring_that_closes_at_a_corner_is_cut_there() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]], bool)
    big, small = sorted(outlines(mask, [1]), key=lambda outline: -outline.pixels)
    assert (big.pixels, small.pixels) == (7, 3)
    assert [len(ring) for ring in big.rings] == [6, 4]
    assert polygon(big).is_valid


def test_holes_are_kept_and_what_lies_in_them_is_a_region_of_its_own() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[2:5, 2:5] = True
    mask[3, 3] = False
    whole, inner = sorted(outlines(mask, [2]), key=lambda outline: -outline.pixels)
    assert [shapely.Polygon(ring).area for ring in whole.rings] == [49, 25]
    assert [shapely.Polygon(ring).area for ring in inner.rings] == [9, 1]


def test_a_mask_without_pixels_has_no_outline() -> None:
    assert not outlines(np.zeros((5, 3), bool), [2])
