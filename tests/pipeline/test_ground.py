"""A mask over an image says which tiles may be visited, whatever size it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline import ground
from saccade.pipeline.errors import SourceError
from saccade.pipeline.geometry import Grid
from saccade.pipeline.sources.array import ArraySource


def layout(height: int, width: int, tile_px: int) -> Any:
    grid = Grid((height, width), tile_px)
    return SimpleNamespace(
        tiles=grid, tile_px=tile_px, plane=SimpleNamespace(shape=(height, width))
    )


def allowed(mask: np.ndarray, over: Any, nodata: float | None = None) -> np.ndarray:
    return ground.tiles_allowed(ArraySource(mask, "mask", None, nodata), over)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 9), st.integers(1, 7), st.data())
def test_a_tile_is_allowed_where_any_sample_under_it_is_marked(
    rows: int, columns: int, tile_px: int, scale: int, data: st.DataObject
) -> None:
    cells = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    marks = np.array(cells).reshape(rows, columns)
    over = layout(rows * tile_px, columns * tile_px, tile_px)
    mask = np.kron(marks, np.ones((scale, scale))).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground, "MAX_SAMPLES", data.draw(st.sampled_from([1, 1 << 24])))
        assert (allowed(mask, over) == marks).all()


def test_a_single_sample_is_enough_and_the_edge_tile_has_its_share() -> None:
    over = layout(101, 211, 17)
    for y, x in ((0, 0), (100, 210), (50, 16), (50, 17)):
        mask = np.zeros((101, 211, 3), np.uint16)
        mask[y, x, 0] = 1
        assert np.argwhere(allowed(mask, over)).tolist() == [[y // 17, x // 17]]


def test_only_the_first_channel_counts_and_no_data_is_no_mark() -> None:
    over = layout(4, 4, 2)
    mask = np.zeros((4, 4, 2), np.float32)
    mask[..., 1] = 1
    assert not allowed(mask, over).any()
    mask[..., 0] = np.nan
    assert not allowed(mask, over).any()
    mask[..., 0] = -9999
    assert not allowed(mask, over, nodata=-9999).any()
    assert allowed(mask, over).all()


def test_a_thumbnail_s_rounded_sides_are_its_proportions_and_others_are_refused() -> None:
    over = layout(10_007, 3001, 512)
    assert allowed(np.ones((101, 30), np.uint8), over).all()
    with pytest.raises(SourceError, match="proportions"):
        allowed(np.ones((30, 101), np.uint8), over)
