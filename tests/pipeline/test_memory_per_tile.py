"""What an image costs merely by being large: bytes per tile, whether or not anyone looks at it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from fakes import plane_spec

from saccade.pipeline.compose import compose_region
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.plan import plan_sweep
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.resampling import halve_mean, halve_mode
from saccade.pipeline.saliency import needed_columns, score_tiles
from saccade.pipeline.selection import select
from saccade.pipeline.selectors import Proposals, Selector, TopFraction
from saccade.pipeline.sources.tiff import TiffSource
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.store_shards import encode_shard
from saccade.pipeline.uniform import is_uniform

TILES = 211
"""Along each side."""


@contextmanager
def traced() -> Iterator[SimpleNamespace]:
    """Bytes held after a block, and at most inside it, beyond those before."""
    found = SimpleNamespace(kept=0, peak=0)
    gc.collect()
    tracemalloc.start()
    try:
        yield found
        found.peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        found.kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def large() -> PassLayout:
    recipe = PassRecipe.model_validate(
        {"name": "fine", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": 256}
    )
    spec = ModelSpec(("it",), 48, 1, 8)
    plane = plane_spec(TILES * 256, TILES * 256)
    return lay_out(recipe, 1, plane, spec, Output())


def test_the_index_of_a_tiff_takes_at_most_24_bytes_per_tile(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    pixels = np.zeros((16 * TILES, 16 * TILES), np.uint8)
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib", metadata=None)
    TiffSource(path).close()
    with traced() as memory:
        source = TiffSource(path)
        source.read(0, Box(0, 0, 16, 16))
    with closing(source):
        assert memory.kept - 64_000 <= 24 * TILES**2


@pytest.mark.parametrize("selector", [TopFraction(fraction=0.5), Proposals(alpha=0.5)])
def test_choosing_tiles_takes_at_most_128_bytes_per_tile_that_is_not_chosen(
    selector: Selector,
) -> None:
    grid = large().tiles
    known = np.zeros((grid.rows, grid.columns), bool)
    known[3:5, 7:11] = True
    scores = np.ones((1, TILES, TILES), np.float32)
    with traced() as memory:
        table = score_tiles(
            needed_columns(selector),
            grid,
            256.0,
            (TILES, TILES),
            lambda box: (scores[(slice(None), *box.slices)], None),
            ("it",),
            known=known,
        )
        chosen = select(
            selector,
            table,
            grid=grid,
            cost_px=grid.areas().ravel(),
            candidates=known.ravel(),
            forced=np.zeros(len(grid), bool),
        )
    assert len(chosen.tiles) == (4 if isinstance(selector, TopFraction) else 8)
    assert memory.peak - 64_000 <= 128 * len(grid)
    assert memory.kept - 64_000 <= 16 * len(grid)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_plan_takes_at_most_48_bytes_per_tile_that_is_not_chosen(everywhere: bool) -> None:
    layout = large()
    chosen = np.zeros((TILES, TILES), bool)
    with traced() as memory:
        units = plan_sweep("slide", layout, chosen, everywhere=everywhere)
    assert len(units) == (len(layout.shards) if everywhere else 0)
    assert memory.peak - 64_000 <= 48 * chosen.size
    assert memory.kept - 64_000 <= 8 * chosen.size


def test_what_was_not_answered_is_not_read_and_scores_nan() -> None:
    grid = large().tiles
    known = np.zeros((grid.rows, grid.columns), bool)
    known[17, 29] = known[17, 31] = True
    read = []

    def read_strip(box: Box) -> tuple[np.ndarray, None]:
        read.append(box)
        return np.full((1, *box.shape), 0.5, np.float32), None

    columns = needed_columns(TopFraction(by="top_fraction", fraction=0.5))
    table = score_tiles(
        columns, grid, 256.0, (TILES, TILES), read_strip, ("it",), known=known, strip_px=1
    )
    assert read == [Box(17, 29, 18, 32)]
    np.testing.assert_array_equal(~np.isnan(table[columns[0]]), known.ravel())


def test_a_region_in_which_nothing_differs_is_composed_in_the_memory_of_one_pixel(
    three_passes: ImagePlan, make_store: Callable[[ImagePlan], ImageStore]
) -> None:
    region = Box.of(three_passes.shape)
    fused = compose_region(make_store(three_passes), three_passes, region)
    assert fused.scores.shape == (len(three_passes.classes), *three_passes.shape)
    assert fused.labels.shape == three_passes.shape
    assert is_uniform(fused.scores)
    assert is_uniform(fused.labels)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("shape", [(2, 34, 55), (2, 1, 7)])
def test_halving_one_value_gives_what_halving_all_its_pixels_does(
    dtype: str, shape: tuple[int, int, int]
) -> None:
    one = np.array([3, 251]).reshape(2, 1, 1).astype(dtype)
    spread = np.broadcast_to(one, shape)
    assert is_uniform(halve_mean(spread))
    np.testing.assert_array_equal(halve_mean(spread), halve_mean(spread.copy()))
    labels = np.broadcast_to(np.uint8(7), shape[1:])
    np.testing.assert_array_equal(halve_mode(labels), halve_mode(labels.copy()))


@pytest.mark.parametrize("value", [0, 13])
@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 50, 39)])
def test_a_shard_of_one_value_has_the_bytes_of_all_its_pixels(
    value: int, shape: tuple[int, int, int]
) -> None:
    spec = ArraySpec("array", shape, np.dtype(np.uint8), 0, (16, 16), (64, 64))
    spread = np.broadcast_to(np.uint8(value), shape)
    assert encode_shard(spec, spread) == encode_shard(spec, spread.copy())
