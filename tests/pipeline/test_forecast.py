from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import plane_spec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from saccade.pipeline.forecast import forecast, most_tiles
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.plan import plan_sweep
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.saliency import cell_grid, cells_per_tile, needed_columns
from saccade.pipeline.selection import select
from saccade.pipeline.selectors import Selector

shares = st.sampled_from([0, 0.07, 0.3, 1])
simple = st.one_of(
    st.just({"by": "all"}),
    st.just({"by": "foreground"}),
    st.builds(lambda f: {"by": "top_fraction", "fraction": f}, shares),
    st.builds(lambda k: {"by": "top_k", "k": k}, st.integers(0, 97)),
    st.builds(lambda v: {"by": "threshold", "at_least": v}, shares),
    st.builds(lambda v: {"by": "threshold", "at_least": 0.5, "least": v, "most": v}, shares),
    st.just({"by": "proposals", "min_area": 0}),
    st.builds(lambda p: {"by": "budget", "pixels": p}, st.integers(0, 31 * 16**2)),
    st.builds(lambda s: {"by": "budget", "share": s}, shares),
    st.builds(lambda f: {"by": "uncertainty", "fraction": f}, shares),
)
selectors: st.SearchStrategy[dict[str, Any]] = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda of: {"by": "union", "of": of}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda of: {"by": "dilate", "of": of, "tiles": 1}, inner),
        st.builds(
            lambda of, to: {"by": "escalate", "of": of, "to": to, "when": {"above": 0.5}},
            inner,
            inner,
        ),
        st.builds(lambda w: {"by": "top_fraction", "fraction": 0.3, "within": w}, inner),
    ),
    max_leaves=4,
)


def layout(height: int, width: int, **details: Any) -> PassLayout:
    stated = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": 16}
    recipe = PassRecipe.model_validate(stated | details)
    return lay_out(recipe, 1, plane_spec(height, width), ModelSpec(("it",), 5), Output())


@given(selectors, st.integers(1, 130), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_no_selection_chooses_more_tiles_than_were_forecast(
    tree: dict[str, Any], height: int, width: int, seed: int
) -> None:
    selector = TypeAdapter(Selector).validate_python(tree)
    made = layout(height // 16 * 16 + 16, width // 16 * 16 + 16)
    count, random = len(made.tiles), np.random.default_rng(seed)
    table = {
        c: random.random(
            len(cell_grid(made.tiles, cells_per_tile(made.tiles, c.cells))), np.float32
        )
        for c in needed_columns(selector)
    }
    chosen = select(
        selector,
        table,
        grid=made.tiles,
        cost_px=made.tiles.areas().ravel(),
        candidates=np.ones(count, bool),
        forced=np.zeros(count, bool),
    )
    assert len(chosen.tiles) <= most_tiles(selector, count, made.tile_px)
    assert most_tiles(selector, count, made.tile_px) <= count


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 32, 64]))
def test_a_pass_over_everything_computes_no_more_than_was_forecast(
    height: int, width: int, window: int
) -> None:
    made = layout(height, width, window=window)
    grid = made.tiles
    units = plan_sweep("image", made, np.ones((grid.rows, grid.columns), bool), everywhere=True)
    windows = [w for unit in units for batch in unit.batches for w in batch]
    most = forecast(TypeAdapter(Selector).validate_python("all"), made)
    assert most.tiles == len(grid)
    computed = sum(w.read.area for w in windows)
    alone = len(grid) * (made.tile_px + 2 * made.halo_px) ** 2
    assert computed <= most.pixels <= alone
    longest = made.window_shape
    assert all(w.read.height <= longest[0] and w.read.width <= longest[1] for w in windows)


@pytest.mark.parametrize(("seconds", "tiles"), [(0.0, 0), (1.0, 4), (1e9, 100)])
def test_a_budget_in_seconds_buys_tiles_at_the_measured_pace(seconds: float, tiles: int) -> None:
    selector = TypeAdapter(Selector).validate_python({"by": "budget", "seconds": seconds})
    assert most_tiles(selector, 100, 16, 1 / (4 * 16**2)) == tiles
    assert most_tiles(selector, 100, 16) == 100
