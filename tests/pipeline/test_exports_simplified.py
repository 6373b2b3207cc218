"""Simplified outlines: neighbours stay neighbours, without gap or overlap, within the tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saccade.pipeline.exports.closed_rings import densified
from saccade.pipeline.exports.outlines import Outline, Outliner
from saccade.pipeline.exports.simple_outlines import Simplifying

shapely = pytest.importorskip("shapely")

LABELS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 23), st.integers(1, 29)), elements=st.integers(0, 2)
)
TOLERANCES = st.sampled_from([0.0, 0.5, 0.75, 1.0, 1.5, 2.3, 5.0, 40.0])
BLOCKS = st.sampled_from([1, 2, 3, 7, 11, 128])


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Labels of larger regions with ragged borders: discs over each other, and some noise."""
    height, width = draw(st.integers(5, 47)), draw(st.integers(5, 53))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    for label in random.integers(0, 4, 7):
        at = random.uniform(0, (height, width))
        radius = random.uniform(1, 17) + random.normal(0, 0.4, labels.shape)
        labels[np.hypot(y - at[0], x - at[1]) < radius] = label
    return labels


def outlines(labels: np.ndarray, how: Simplifying) -> Iterator[tuple[int, Outline]]:
    for label in np.unique(labels).tolist():
        outliner = Outliner(labels.shape[1])
        for top in range(0, len(labels), how.block_px):
            strip = labels[top : top + how.block_px]
            rows = strip == label
            for outline in outliner.add(rows, rows, how.corners(strip, top)):
                yield label, outline
        yield from ((label, outline) for outline in outliner.finish())


def polygon(rings: Sequence[np.ndarray]) -> shapely.Polygon:
    return shapely.Polygon(rings[0], rings[1:])


def check(labels: np.ndarray, how: Simplifying) -> None:
    """All that must hold of the simplified outlines of all labels of a raster."""
    shapes = []
    for _, outline in outlines(labels, how):
        whole = polygon(outline.rings)
        told = polygon(how.rings(outline))
        assert told.is_valid, shapely.is_valid_reason(told)
        assert len(told.interiors) == len(whole.interiors)
        assert told.area > 0
        assert abs(told.area - whole.area) <= how.tolerance_px * whole.length
        corners = shapely.points(np.concatenate(outline.rings))
        away = shapely.distance(told.boundary, corners)
        assert away.max() <= how.tolerance_px + 1e-9
        if not how.tolerance_px:
            assert told.equals(whole)
        shapes.append(told)
    # nothing is covered twice, and nothing is left out: areas of whole numbers are exact
    assert sum(one.area for one in shapes) == labels.size
    assert shapely.union_all(shapes).area == pytest.approx(labels.size, rel=1e-12)


@given(LABELS, TOLERANCES, BLOCKS)
def test_noise_is_covered_once_without_gaps(
    labels: np.ndarray, tolerance_px: float, block_px: int
) -> None:
    check(labels, Simplifying(labels.shape, tolerance_px, block_px=block_px))


@given(blobs(), TOLERANCES, BLOCKS, st.tuples(st.booleans(), st.booleans()))
def test_regions_are_covered_once_without_gaps(
    labels: np.ndarray, tolerance_px: float, block_px: int, overhang: tuple[bool, bool]
) -> None:
    check(labels, Simplifying(labels.shape, tolerance_px, overhang, block_px))


@given(blobs(), st.sampled_from([1.0, 2.3]))
def test_neighbours_share_their_border_to_the_last_corner(
    labels: np.ndarray, tolerance_px: float
) -> None:
    """Two simplified regions meet in lines, or nowhere along a line; they never cross."""
    how = Simplifying(labels.shape, tolerance_px, block_px=16)
    found = list(outlines(labels, how))
    before = [polygon(one.rings) for _, one in found]
    after = [polygon(how.rings(one)) for _, one in found]
    for one in range(len(found)):
        for other in range(one):
            shared = before[one].intersection(before[other])
            now = after[one].intersection(after[other])
            assert now.area == 0
            assert (shared.length > 0) == (now.length > 0)


def test_a_staircase_becomes_a_straight_line() -> None:
    labels = np.tri(61, dtype=np.uint8)
    how = Simplifying(labels.shape, 0.75)
    rings = [how.rings(one)[0] for _, one in outlines(labels, how)]
    assert all(len(ring) <= 6 for ring in rings)


def test_what_lies_in_the_last_column_that_is_cut_off_is_apart() -> None:
    """So that moving that column's far side inwards makes nothing cross."""
    labels = np.tri(31, dtype=np.uint8)
    how = Simplifying(labels.shape, 2.0, (False, True))
    for _, outline in outlines(labels, how):
        ring = how.rings(outline)[0]
        ends = np.roll(ring, -1, axis=0)
        crossing = (np.minimum(ring, ends)[:, 0] < 30) & (np.maximum(ring, ends)[:, 0] > 30)
        assert (ring[crossing, 1] == ends[crossing, 1]).all()


@given(
    st.lists(st.tuples(st.integers(0, 97), st.integers(0, 97)), min_size=3, max_size=9, unique=True)
)
def test_slanted_edges_get_the_same_points_from_either_side(points: list[tuple[int, int]]) -> None:
    ring = np.array(points)
    there, back = densified(ring, 7, 3), densified(ring[::-1], 7, 3)
    assert {tuple(at) for at in there.tolist()} == {tuple(at) for at in back.tolist()}
    edges = shapely.LineString(np.concatenate([ring, ring[:1]]))
    assert shapely.distance(edges, shapely.points(there.astype(float))).max() < 1e-9
