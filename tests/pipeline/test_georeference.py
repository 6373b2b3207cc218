"""Where pixels lie: exact, invertible, and what rasterio says of the same file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from affine import Affine as Oracle
from hypothesis import assume, given
from hypothesis import strategies as st

from saccade.pipeline.georeference import Affine, ControlPoint, Crs, Georeference

NUMBER = st.floats(-1e6, 1e6, allow_subnormal=False)
SIX = st.tuples(*[NUMBER] * 6)


def affine_of(six: tuple[float, ...]) -> Affine:
    assume(abs(six[0] * six[4] - six[1] * six[3]) > 1e-3)
    return Affine(*six)


@given(SIX, st.floats(1, 64), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_an_affine_is_what_the_library_affine_says(
    six: tuple[float, ...], scale: float, row: float, column: float
) -> None:
    ours, theirs = affine_of(six), Oracle(*six)
    assert ours.scaled(scale, 2 * scale).to_tuple() == pytest.approx(
        tuple(theirs @ Oracle.scale(2 * scale, scale))[:6]
    )
    assert ours.moved(row, column).to_tuple() == pytest.approx(
        tuple(theirs @ Oracle.translation(column, row))[:6]
    )
    ((x, y),) = ours.place(np.array([[column, row]]))
    assert (x, y) == pytest.approx(theirs @ (column, row))


@given(st.tuples(*[st.floats(0.5, 50)] * 2), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_the_inverse_leads_back(sides: tuple[float, float], x: float, y: float) -> None:
    affine = Affine(sides[0], 0.1, x, -0.2, -sides[1], y)
    points = np.array([[0.0, 0.0], [17.0, 5.0], [1e4, 1e4]])
    assert affine.inverse().place(affine.place(points)) == pytest.approx(points, abs=1e-5)


@pytest.mark.parametrize("six", [(0, 0, 0, 0, 0, 0), (1, 2, 0, 2, 4, 0), (np.nan, 0, 0, 0, 1, 0)])
def test_an_affine_without_an_inverse_is_refused(six: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="can be inverted"):
        Affine(*six)


@pytest.mark.parametrize(
    "georeference",
    [
        Georeference(Crs(32660), Affine(60, 0, 499980, 0, -60, 60000)),
        Georeference(None, Affine(0, 1, 0.1, 1, 0, 1e-17)),
        Georeference(
            Crs(None, 'PROJCRS["mine"]', False, 0.3048), None, (ControlPoint(1, 2, 3, 4),)
        ),
    ],
)
def test_json_gives_back_what_it_was_given(georeference: Georeference) -> None:
    assert Georeference.from_dict(json.loads(json.dumps(georeference.to_dict()))) == georeference


def test_a_coarser_array_begins_at_the_same_corner() -> None:
    points = (ControlPoint(0, 0, 10, 20), ControlPoint(100, 50, 30, 40))
    coarse = Georeference(Crs(4326), None, points).at(2.0)
    assert coarse.control_points == (ControlPoint(0, 0, 10, 20), ControlPoint(50, 25, 30, 40))
    assert Georeference(None, Affine(2, 0, 7, 0, -3, 9)).at(4).affine == Affine(8, 0, 7, 0, -12, 9)
