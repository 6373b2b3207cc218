"""A bad tile costs a tile, a bad image costs an image, and a hiccup costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes

from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import (
    COVERAGE_FAILED,
    STATUS_DEGRADED,
    STATUS_DONE,
    STATUS_FAILED,
)
from saccade.pipeline.result import Result, open_result

HEIGHT, WIDTH, TILE, HALO = 101, 131, 16, 4
IMAGE = noise(HEIGHT, WIDTH)
DAMAGE = Box(32, 48, 48, 64)
"""Exactly one tile, the fourth of the third row: what is lost is what is damaged."""


class OnlyFine(FakeSource):
    """Damage that shows in small reads only, as if coarser levels were stored and whole."""

    def _decode(self, level: int, box: Box) -> np.ndarray:
        if box.area > 4 * TILE * TILE:
            return self._pixels[box.slices].copy()
        return super()._decode(level, box)


def damaged() -> FakeSource:
    return FakeSource(IMAGE, broken=(DAMAGE,))


def dense(scores: str = "float32", **details: Any) -> dict[str, Any]:
    way = {"tile": TILE, "window": TILE, **details}
    return one_pass("ConvNet", scores, **way) | {"max_bad_tiles": 0.5}


def two_passes(coarse_tile: int, **details: Any) -> dict[str, Any]:
    glance = pass_of("glance", "echo", 4, tile=coarse_tile)
    refine = pass_of("refine", "echo", 1, tile=TILE, window=TILE, **details)
    return several_passes([glance, refine], max_bad_tiles=0.05)


def expected_status(result: Result, damage: Box, halo: int) -> np.ndarray:
    grid = result.plan.last.tiles
    status = np.full(len(grid), STATUS_DONE)
    for index, core in enumerate(grid):
        if core.grow(halo).overlaps(damage):
            status[index] = STATUS_DEGRADED
        if core.overlaps(damage):
            status[index] = STATUS_FAILED
    return status.reshape(grid.rows, grid.columns)


@pytest.mark.parametrize("blend", ["crop", "hann"])
@pytest.mark.parametrize("scores", ["uint8", "float32"])
def test_damage_fails_the_tiles_it_touches_degrades_those_around_and_no_other(
    lab: Lab, blend: str, scores: str
) -> None:
    recipe = dense(scores, halo=HALO, blend=blend)
    clean, bad = lab.run(recipe, IMAGE), lab.run(recipe, damaged())
    np.testing.assert_array_equal(bad.status, expected_status(bad, DAMAGE, HALO))
    assert (bad.coverage[bad.status == STATUS_FAILED] == COVERAGE_FAILED).all()
    a, b, labels = np.asarray(clean.fused), np.asarray(bad.fused), np.asarray(bad.labels)
    for index, core in enumerate(bad.plan.last.tiles):
        before, after = a[:, *core.slices], b[:, *core.slices]
        state = bad.status.ravel()[index]
        if state == STATUS_DONE:
            np.testing.assert_array_equal(after, before)
        elif state == STATUS_FAILED:
            assert (np.isnan(after) if scores == "float32" else after == 0).all()
            assert (labels[core.slices] == 255).all()
        else:
            assert np.isfinite(after.astype(np.float32)).all()
            assert (labels[core.slices] < 255).all()


def test_where_windows_hold_many_tiles_only_the_damaged_are_lost(lab: Lab) -> None:
    recipe = dense(window=4 * TILE)
    clean, bad = lab.run(recipe, IMAGE), lab.run(recipe, damaged())
    lost = expected_status(bad, DAMAGE, 0) == STATUS_FAILED
    np.testing.assert_array_equal(bad.status == STATUS_FAILED, lost)
    same = np.asarray(clean.fused) == np.asarray(bad.fused)
    for index, core in enumerate(bad.plan.last.tiles):
        if bad.status.ravel()[index] == STATUS_DONE:
            assert same[:, *core.slices].all()


def test_a_tile_that_can_t_be_read_has_the_coarser_answer_and_no_hole(lab: Lab) -> None:
    recipe = two_passes(coarse_tile=8)
    clean = lab.run(recipe, IMAGE)
    bad = lab.run(recipe, OnlyFine(IMAGE, broken=(DAMAGE,)))
    lost = expected_status(bad, DAMAGE, 0) == STATUS_FAILED
    np.testing.assert_array_equal(bad.coverage, np.where(lost, 1, 2))
    np.testing.assert_array_equal(bad.status == STATUS_FAILED, lost)

    # What lies there is what an image of the glance alone has there.
    nothing_more = lab.run(two_passes(8, select={"by": "top_k", "k": 0}), IMAGE)
    fused, without = np.asarray(bad.fused), np.asarray(clean.fused)
    coarse = np.asarray(nothing_more.fused)
    inside = (slice(None), *DAMAGE.slices)
    np.testing.assert_array_equal(fused[inside], coarse[inside])
    fused[inside] = without[inside]
    np.testing.assert_array_equal(fused, without)


def test_what_the_glance_could_not_read_is_looked_at_closer_and_counted_once(lab: Lab) -> None:
    recipe = two_passes(coarse_tile=4, select={"by": "top_k", "k": 0})
    source = FakeSource(IMAGE, broken=(Box(32, 48, 33, 49),))
    result = lab.run(recipe, source)
    for name in ("glance", "refine"):
        status = result.passes[name].status
        assert np.argwhere(status == STATUS_FAILED).tolist() == [[2, 3]]
    assert (result.passes["refine"].status > 0).sum() == 1
    assert result.coverage[2, 3] == COVERAGE_FAILED
    assert (result.coverage == 1).sum() == result.coverage.size - 1


def test_a_pass_that_can_t_read_what_an_earlier_one_could_fails_the_image(lab: Lab) -> None:
    recipe = two_passes(8, select={"by": "top_k", "k": 3, "signal": "channel 0"})
    source = OnlyFine(IMAGE, broken=(Box(0, 0, HEIGHT, WIDTH),))
    summary = lab.run_all(recipe, {"one": source})
    assert "3 of 3 tiles of pass 'refine'" in summary.quarantined["one"]


def test_an_image_with_too_many_bad_tiles_is_set_aside_and_others_are_untouched(lab: Lab) -> None:
    recipe = dense() | {"max_bad_tiles": 0.01}
    summary = lab.run_all(recipe, {"bad": damaged(), "good": IMAGE})
    assert summary.complete == ("good",)
    assert "1 of 63 tiles of pass 'dense' could not be read" in summary.quarantined["bad"]
    assert "1%" in summary.quarantined["bad"]
    alone = lab.fused(recipe, IMAGE)
    np.testing.assert_array_equal(np.asarray(open_result(summary.folder)["good"].fused), alone)


def test_a_share_of_bad_tiles_that_is_just_allowed_passes(lab: Lab) -> None:
    assert lab.run(dense() | {"max_bad_tiles": 1 / 63}, damaged()).complete


@pytest.mark.parametrize("tile", [TILE, 32])
def test_a_hiccup_leaves_no_trace(lab: Lab, tile: int) -> None:
    recipe = dense(tile=tile)
    clean, shaken = lab.run(recipe, IMAGE), lab.run(recipe, FakeSource(IMAGE, hiccups=1))
    np.testing.assert_array_equal(np.asarray(clean.fused), np.asarray(shaken.fused))
    assert (shaken.status == STATUS_DONE).all()


def test_damage_is_counted_and_told(lab: Lab) -> None:
    summary = lab.run_all(dense(), {"one": damaged()})
    counts = open_result(summary.folder).summary()["passes"]["dense"]
    assert counts == {"tiles": 63, "visited": 63, "degraded": 8, "failed": 1}


def test_an_image_that_does_not_fit_the_model_is_set_aside_and_others_are_untouched(
    lab: Lab,
) -> None:
    summary = lab.run_all(dense(), {"grey": noise(41, 43, 1), "good": IMAGE})
    assert summary.complete == ("good",)
    assert "takes 3 channels" in summary.quarantined["grey"]
