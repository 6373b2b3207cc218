from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeSource, noise, plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import NoSuchObject, SourceError, StorageGone
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.plan import Window, plan_sweep
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.sources.plane import Plane, locate
from saccade.workers.outcome import Outcome
from saccade.workers.reading import centred, check_present, pad_to, read_window, tiles_lost

HEIGHT, WIDTH, TILE, HALO = 101, 83, 16, 4
IMAGE = noise(HEIGHT, WIDTH)


def layout(window: int = 48, multiple: int = 1) -> PassLayout:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
        | {"tile": TILE, "window": window, "batch": 1}
    )
    spec = ModelSpec(("it",), HALO, 1, multiple)
    return lay_out(recipe, 1, plane_spec(HEIGHT, WIDTH), spec, Output(chunk=16, shard=16))


def windows(one: PassLayout) -> list[Window]:
    chosen = np.ones((one.tiles.rows, one.tiles.columns), bool)
    return [w for unit in plan_sweep("image", one, chosen) for w in unit.windows]


def plane(source: FakeSource) -> Plane:
    return Plane(source, locate(source, downsample=1))


def test_a_window_is_the_image_s_pixels_padded_by_repetition() -> None:
    one = layout(multiple=8)
    whole = np.pad(IMAGE, ((0, 3), (0, 5), (0, 0)), mode="edge")
    for window in windows(one):
        read = read_window(plane(FakeSource(IMAGE)), one, window)
        np.testing.assert_array_equal(read.pixels, whole[window.read.slices])
        assert (read.lost, read.reasons, read.valid) == ((), (), None)


@given(
    st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, 40), st.integers(1, 40)
)
def test_exactly_the_tiles_whose_core_touches_damage_fail(
    y: int, x: int, height: int, width: int
) -> None:
    damage = Box(y, x, y + height, x + width).clip((HEIGHT, WIDTH))
    source = FakeSource(IMAGE, broken=(damage,))
    one = layout()
    chosen = np.ones((one.tiles.rows, one.tiles.columns), bool)
    for unit in plan_sweep("image", one, chosen):
        for window in unit.windows:
            read = read_window(plane(source), one, window)
            failed, degraded = tiles_lost(one, window, read)
            for index in one.tiles.indices(one.tiles.cells_touching(window.core)):
                core = one.tiles.box(index)
                assert (index in failed) == core.overlaps(damage)
                if core.grow(HALO).overlaps(damage) and index not in failed:
                    assert index in degraded
                sees_lost_tile = any(core.grow(HALO).overlaps(box) for box in read.lost)
                assert (index in degraded) == (sees_lost_tile and index not in failed)


def test_what_is_readable_of_a_damaged_window_is_exact_and_the_rest_has_its_mean_colour() -> None:
    one = layout()
    window = windows(one)[0]
    lost = one.tiles.box(0)
    flat = np.full_like(IMAGE, 7)
    flat[lost.slices] = 201
    read = read_window(plane(FakeSource(flat, broken=(Box(3, 5, 4, 6),))), one, window)
    assert read.lost == (lost.intersect(window.read),)
    assert len(read.reasons) == 1
    assert (read.pixels == 7).all()


def test_a_read_that_fails_once_is_tried_again_and_leaves_no_trace() -> None:
    one = layout()
    window = windows(one)[0]
    source = FakeSource(IMAGE, hiccups=1)
    read = read_window(plane(source), one, window)
    assert read.lost == ()
    assert source.reads == [window.read, window.read]
    np.testing.assert_array_equal(read.pixels, IMAGE[window.read.slices])


def test_what_is_no_read_error_is_not_taken_for_damage() -> None:
    one = layout()
    source = FakeSource(IMAGE, broken=(Box(0, 0, 1, 1),), error=SourceError("it was replaced"))
    with pytest.raises(SourceError, match="replaced"):
        read_window(plane(source), one, windows(one)[0])


def test_a_window_of_nothing_readable_still_has_its_shape() -> None:
    one = layout()
    window = windows(one)[-1]
    read = read_window(plane(FakeSource(IMAGE, broken=(Box.of((HEIGHT, WIDTH)),))), one, window)
    assert read.pixels.shape == (*window.read.shape, 3)
    failed, degraded = tiles_lost(one, window, read)
    assert len(failed) == len(list(one.tiles.indices(one.tiles.cells_touching(window.core))))
    assert degraded == set()


def test_a_model_that_sees_its_whole_window_is_degraded_by_damage_anywhere_in_it() -> None:
    one = replace(layout(window=16), local=False)
    # At the edge a window moves inwards, so it sees further than the halo.
    window = windows(one)[0]
    assert window.read == Box(0, 0, 24, 24)
    source = FakeSource(IMAGE, broken=(Box(22, 22, 24, 24),))
    failed, degraded = tiles_lost(one, window, read_window(plane(source), one, window))
    assert (failed, degraded) == (set(), {0})


def test_a_lost_context_view_degrades_the_tile_and_is_replaced_by_the_window_itself() -> None:
    one = replace(layout(window=16), context=(4.0,), merge=False)
    window = windows(one)[0]
    far = Box(HEIGHT - 61, 0, HEIGHT, WIDTH)
    read = read_window(plane(FakeSource(IMAGE, broken=(far,))), one, window)
    assert read.context_lost
    assert read.lost == ()
    np.testing.assert_array_equal(read.context[0], read.pixels)
    assert tiles_lost(one, window, read) == (set(), {0})


@given(
    st.integers(-5, 5),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1.5, 2.0, 4.0, 7.0]),
)
def test_a_centred_box_keeps_shape_and_centre_to_half_a_coarse_pixel(
    start: int, height: int, width: int, factor: float
) -> None:
    box = Box(start, 2 * start, start + height, 2 * start + width)
    wide = centred(box, factor)
    assert wide.shape == box.shape
    assert abs((wide.y0 + wide.y1) / 2 - (box.y0 + box.y1) / 2 / factor) <= 0.5
    assert abs((wide.x0 + wide.x1) / 2 - (box.x0 + box.x1) / 2 / factor) <= 0.5


def test_padding_repeats_the_outermost_pixels() -> None:
    pixels = np.arange(6).reshape(2, 3, 1)
    padded = pad_to(pixels, Box(0, 0, 2, 3), Box(-1, 0, 3, 5))
    expected = [[0, 1, 2, 2, 2], [0, 1, 2, 2, 2], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5]]
    np.testing.assert_array_equal(padded[..., 0], expected)


def test_an_image_that_is_there_is_present(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    check_present(str(tmp_path / "a.tif"))
    check_present("an array in memory")


def test_a_removed_file_is_its_own_fault_and_a_vanished_folder_stops_the_run(
    tmp_path: Path,
) -> None:
    with pytest.raises(NoSuchObject, match=r"a\.tif: the file was removed"):
        check_present(str(tmp_path / "a.tif"))
    with pytest.raises(StorageGone, match="mount it again"):
        check_present(str(tmp_path / "mount" / "a.tif"))
    assert Outcome.of_error(StorageGone("gone")).stops_run == "StorageGone"
