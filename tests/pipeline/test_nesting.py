from __future__ import annotations

import numpy as np
from fakes import plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.nesting import spans, tiles_touching
from saccade.pipeline.recipe import Output, PassRecipe


def layout(height: int, width: int, downsample: float, tile: int) -> PassLayout:
    """A pass over an image of this full shape; a last pixel that covers less counts as a whole."""
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": tile}
    )
    rows, columns = (int(np.ceil(side / downsample)) for side in (height, width))
    plane = plane_spec(rows, columns, downsample)
    return lay_out(recipe, 1, plane, ModelSpec(("it",)), Output(chunk=16, shard=16))


pairs = st.builds(
    lambda height, width, coarse, share, tiles: (
        layout(height, width, coarse, tiles[0]),
        layout(height, width, max(1.0, coarse * share), tiles[1]),
    ),
    st.integers(1, 499),
    st.integers(1, 499),
    st.sampled_from([1.0, 2.0, 4.0, 7.3, 32.0]),
    st.sampled_from([1.0, 0.5, 0.25, 0.37, 1 / 32]),
    st.sampled_from([(16, 16), (5, 7), (32, 11), (1, 64)]),
)


@given(pairs)
def test_spans_hold_exactly_the_coarse_tiles_with_common_ground(
    pair: tuple[PassLayout, PassLayout],
) -> None:
    coarse, fine = pair
    for axis in (0, 1):
        first, last = spans(coarse, fine, axis)
        count = (coarse.tiles.rows, coarse.tiles.columns)[axis]
        edges = np.arange(count + 1) * coarse.tile_px * coarse.plane.downsample
        length = fine.plane.shape[axis]
        for tile, (a, b) in enumerate(zip(first, last, strict=True)):
            start = tile * fine.tile_px * fine.plane.downsample
            stop = min((tile + 1) * fine.tile_px, length) * fine.plane.downsample
            common = np.minimum(stop, edges[1:]) - np.maximum(start, edges[:-1])
            touched = np.flatnonzero(common > 1e-6)
            expected = (touched[0], touched[-1] + 1) if len(touched) else (count - 1, count)
            assert (a, b) == expected


@given(pairs, st.integers(0, 999))
def test_a_fine_tile_touches_a_mark_when_any_coarse_tile_below_it_is_marked(
    pair: tuple[PassLayout, PassLayout], seed: int
) -> None:
    coarse, fine = pair
    shape = coarse.tiles.rows, coarse.tiles.columns
    marked = np.random.default_rng(seed).random(shape) < 0.2
    (top, bottom), (left, right) = spans(coarse, fine, 0), spans(coarse, fine, 1)
    found = tiles_touching(coarse, fine, marked)
    assert found.shape == (fine.tiles.rows, fine.tiles.columns)
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            below = marked[top[row] : bottom[row], left[column] : right[column]]
            assert found[row, column] == below.any()
