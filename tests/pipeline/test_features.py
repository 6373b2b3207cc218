"""Reading features back: the same on one grid, between the centres on another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.answers import read_confidence
from saccade.pipeline.errors import StoreError
from saccade.pipeline.feature_grid import FeatureGrid
from saccade.pipeline.features import read_features
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_DONE, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import arrays_of, feature_shape

IMAGE = (211, 307)


class Held:
    """A store of two arrays in memory."""

    def __init__(self, features: np.ndarray, status: np.ndarray) -> None:
        self.features, self.status = features, status

    def read(self, array: str, box: Box) -> np.ndarray:
        kept = self.features if array.endswith("/features") else self.status
        part = kept[(..., *box.slices)]
        assert part.shape[-2:] == box.shape
        return part


def plan_of(results: Any, first: float, second: float, gives: int, takes: int) -> ImagePlan:
    coarse = results.layout("first", 0, IMAGE, first)
    fine = results.layout("second", 1, IMAGE, second)
    given = nested(coarse, gives, gives=FeatureGrid(5, gives, "a"))
    return results.plan_of([given, nested(fine, takes, takes=FeatureGrid(5, takes, "a"))])


def nested(layout: PassLayout, multiple: int, **grids: Any) -> PassLayout:
    side = multiple * 3
    sizes = {"multiple": multiple, "tile_px": side, "chunk_px": side, "shard_px": side}
    return replace(layout, **sizes, **grids)


def held(plan: ImagePlan, answered: float = 1.0) -> Held:
    first = plan.passes[0]
    assert first.gives is not None
    rng = np.random.default_rng(3)
    features = rng.standard_normal((5, *feature_shape(first, first.gives))).astype(np.float16)
    status = np.where(
        rng.random((first.tiles.rows, first.tiles.columns)) < answered, STATUS_DONE, 0
    )
    return Held(features, status.astype(np.uint8))


@given(st.integers(0, 24), st.integers(0, 36), st.integers(1, 9), st.integers(1, 9))
def test_on_the_same_grid_the_stored_values_come_back_and_the_edge_is_repeated(
    results: Any, row: int, column: int, height: int, width: int
) -> None:
    plan = plan_of(results, 2, 1, 4, 8)
    store = held(plan)
    box = Box(row, column, row + height, column + width).scale(8)
    found = read_features(store, plan, plan.last, box)
    rows = np.minimum(np.arange(row, row + height), store.features.shape[1] - 1)
    columns = np.minimum(np.arange(column, column + width), store.features.shape[2] - 1)
    np.testing.assert_array_equal(found, store.features[:, rows][:, :, columns])
    assert found.dtype == np.float16


def test_between_places_features_are_mixed_as_by_an_independent_reader(results: Any) -> None:
    plan = plan_of(results, 3.5, 1, 4, 8)
    store, ratio = held(plan), 3.5 * 4 / 8
    box = Box(8, 16, 160, 256)
    found = read_features(store, plan, plan.last, box)
    places = box.reduce(8)
    y = (np.arange(places.y0, places.y1) + 0.5) / ratio - 0.5
    x = (np.arange(places.x0, places.x1) + 0.5) / ratio - 0.5
    for plane, coarse in zip(found, store.features.astype(np.float32), strict=True):
        rows, columns = (np.arange(side) for side in coarse.shape)
        wide = np.array([np.interp(x, columns, row) for row in coarse])
        expected = np.array([np.interp(y, rows, column) for column in wide.T]).T
        np.testing.assert_allclose(plane, expected, atol=1e-5)


def test_what_was_not_answered_is_zero_and_pulls_no_neighbour_towards_it(results: Any) -> None:
    plan = plan_of(results, 4, 1, 2, 2)
    store = held(plan, 0.5)
    store.features[...] = 7
    first = plan.passes[0]
    for index, tile in enumerate(first.tiles):
        if store.status[first.tiles.cell(index)] == 0:
            store.features[(slice(None), *tile.reduce(2).slices)] = 0
    found = read_features(store, plan, plan.last, Box(0, 0, 200, 300))
    assert set(np.unique(found)) == {0, 7}


def test_a_pass_that_takes_none_is_told_so(results: Any) -> None:
    plan = results.plan_of([results.layout("a", 0, IMAGE, 2), results.layout("b", 1, IMAGE, 1)])
    with pytest.raises(StoreError, match="'b' takes no features of 'a'"):
        read_features(Held(np.zeros(0), np.zeros(0)), plan, plan.last, Box(0, 0, 8, 8))


def test_stored_features_come_back_through_zarr(
    results: Any, make_store: Callable[[ImagePlan], ImageStore]
) -> None:
    """Chunks that hold all channels, cut off at the edge, written shard by shard."""
    plan = plan_of(results, 2, 1, 4, 8)
    store, values = make_store(plan), held(plan).features
    values[:, :3, :3] = 0
    spec = arrays_of(plan)["passes/first/features"]
    assert (spec.dtype, spec.deep) == (np.dtype(np.float16), True)
    height, width = spec.shard
    for y in range(0, values.shape[1], height):
        for x in range(0, values.shape[2], width):
            box = Box(y, x, y + height, x + width).clip(values.shape[1:])
            store.write(spec.path, box, values[(slice(None), *box.slices)])
    np.testing.assert_array_equal(store.read(spec.path, spec.area), values)
    box = Box(2, 5, 17, 31)
    np.testing.assert_array_equal(store.read(spec.path, box), values[(..., *box.slices)])


def test_confidence_is_read_where_it_was_answered(
    results: Any, make_store: Callable[[ImagePlan], ImageStore]
) -> None:
    sure = results.layout("a", 0, (128, 128), 1, confidence=True, chunk=32)
    plain = results.layout("b", 1, (128, 128), 1, chunk=32)
    plan = results.plan_of([sure, plain])
    store, region = make_store(plan), Box(0, 0, 64, 64)
    store.write("passes/a/confidence", region, np.full((64, 64), 51, np.uint8))
    store.write("passes/a/status", Box(0, 0, 2, 2), np.array([[1, 0], [2, 255]], np.uint8))
    found = read_confidence(store, sure, Box(16, 16, 48, 48))
    assert found is not None
    expected = np.full((32, 32), np.nan, np.float32)
    expected[:, :16] = np.float32(51) / 255
    np.testing.assert_allclose(found, expected)
    assert read_confidence(store, plain, Box(16, 16, 48, 48)) is None
