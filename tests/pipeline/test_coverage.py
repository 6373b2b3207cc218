from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.compose import compose_region, region_coverage
from saccade.pipeline.coverage import StatusPart, cells_below, compose_coverage, coverage_of
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import (
    COVERAGE_FAILED,
    COVERAGE_NONE,
    LABEL_UNKNOWN,
    STATUS_DEGRADED,
    STATUS_DONE,
    STATUS_FAILED,
    STATUS_NONE,
    ImagePlan,
)

STATES = (STATUS_NONE, STATUS_DONE, STATUS_DEGRADED, STATUS_FAILED)


class Held:
    """Arrays in memory in place of a store."""

    def __init__(self, plan: ImagePlan, answers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.arrays = {}
        for layout, (scores, status) in zip(plan.passes, answers, strict=True):
            self.arrays[f"passes/{layout.name}/scores"] = scores
            self.arrays[f"passes/{layout.name}/status"] = status

    def read(self, array: str, box: Box) -> np.ndarray:
        return self.arrays[array][(..., *box.slices)]


def everywhere(plan: ImagePlan) -> Box:
    return Box(0, 0, plan.tiles.rows, plan.tiles.columns)


def ground(plan: ImagePlan, index: int, tile: Box) -> np.ndarray:
    """By arithmetic of its own: flags of the tiles of a pass under a tile of the last one."""
    layout, last = plan.passes[index], plan.last
    ratio = last.plane.downsample / layout.plane.downsample
    touched = np.zeros((layout.tiles.rows, layout.tiles.columns), bool)
    for number, other in enumerate(layout.tiles):
        y = other.y0 < tile.y1 * ratio - 1e-6 and tile.y0 * ratio < other.y1 - 1e-6
        x = other.x0 < tile.x1 * ratio - 1e-6 and tile.x0 * ratio < other.x1 - 1e-6
        touched[layout.tiles.cell(number)] = y and x
    return touched


def expected(
    plan: ImagePlan, statuses: list[np.ndarray], tile: Box, cell: tuple[int, int]
) -> tuple[int, int]:
    """The rule in words, for one tile."""
    failed_first, seen, spoilt = False, False, False
    for index in reversed(range(len(plan.passes))):
        if index == len(plan.passes) - 1:
            under = statuses[index][cell].reshape(1)
        else:
            under = statuses[index][ground(plan, index, tile)]
        spoilt |= bool((under == STATUS_FAILED).any())
        failed_first |= not seen and bool((under == STATUS_FAILED).any())
        seen |= bool((under != STATUS_NONE).any())
        if under.size and np.isin(under, (STATUS_DONE, STATUS_DEGRADED)).all():
            state = STATUS_DEGRADED if (under == STATUS_DEGRADED).any() else STATUS_DONE
            return index + 1, STATUS_FAILED if failed_first else state
    if spoilt:
        return COVERAGE_FAILED, STATUS_FAILED
    return COVERAGE_NONE, STATUS_NONE


@pytest.mark.parametrize("seed", range(7))
def test_coverage_follows_the_rule_tile_by_tile(
    three_passes: ImagePlan, results: Any, seed: int
) -> None:
    plan = three_passes
    statuses = [status for _, status in results.random_answers(plan, seed, (*STATES, 1, 1, 1))]
    coverage, status = compose_coverage(plan, statuses, everywhere(plan))
    for number, tile in enumerate(plan.tiles):
        cell = plan.tiles.cell(number)
        found = int(coverage[cell]), int(status[cell])
        assert found == expected(plan, statuses, tile, cell), cell


@given(data=st.data())
def test_a_rectangle_of_tiles_is_the_same_part_of_the_whole(data: st.DataObject) -> None:
    plan, statuses = data.draw(plans_and_statuses())
    rows, columns = plan.tiles.rows, plan.tiles.columns
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0, rows)), data.draw(st.integers(x0, columns))
    cells = Box(y0, x0, y1, x1)
    whole = compose_coverage(plan, statuses, everywhere(plan))
    parts = [
        StatusPart(need, status[need.slices])
        for layout, status in zip(plan.passes, statuses, strict=True)
        for need in [cells_below(plan, layout, cells)]
    ]
    for part, all_of_it in zip(coverage_of(plan, parts, cells), whole, strict=True):
        np.testing.assert_array_equal(part, all_of_it[cells.slices])


@st.composite
def plans_and_statuses(draw: st.DrawFn) -> tuple[ImagePlan, list[np.ndarray]]:
    from saccade.pipeline.layout import PassLayout
    from saccade.pipeline.sources.base import Identity
    from saccade.pipeline.sources.plane import PlaneSpec

    height, width = draw(st.integers(30, 90)), draw(st.integers(30, 90))
    layouts = []
    for index, downsample in enumerate((draw(st.sampled_from([2, 3, 4.5, 7])), 1)):
        shape = int(-(-height // downsample)), int(-(-width // downsample))
        plane = PlaneSpec(0, downsample, shape, downsample, None)
        side = draw(st.sampled_from([5, 8, 13]))
        layouts.append(
            PassLayout(f"p{index}", index, plane, ("a",), 1, 1, 0, side, 1, 1, side, side)
        )
    plan = ImagePlan(
        "i", "u", Identity("u", 1, 1, "1"), "array", ((height, width),), None, tuple(layouts),
        ("a",), "finest", "uint8", (), 0.5,
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    statuses = [
        rng.choice(np.array(STATES, np.uint8), (p.tiles.rows, p.tiles.columns)) for p in layouts
    ]
    return plan, statuses


def test_a_pass_that_is_not_known_is_as_one_that_was_never_there(
    three_passes: ImagePlan, results: Any
) -> None:
    statuses = [s for _, s in results.random_answers(three_passes, 3, STATES)]
    blank = [statuses[0], np.zeros_like(statuses[1]), statuses[2]]
    unknown = [statuses[0], None, statuses[2]]
    for a, b in zip(
        compose_coverage(three_passes, blank, everywhere(three_passes)),
        compose_coverage(three_passes, unknown, everywhere(three_passes)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(5))
def test_where_coverage_names_a_pass_no_pixel_is_left_unanswered(
    three_passes: ImagePlan, results: Any, seed: int
) -> None:
    plan = three_passes
    answers = results.random_answers(plan, seed, (*STATES, 1, 1))
    store = Held(plan, answers)
    labels = compose_region(store, plan, Box.of(plan.shape)).labels
    coverage, _ = region_coverage(store, plan, Box.of(plan.shape))
    credited = 0
    for number, tile in enumerate(plan.tiles):
        if 0 < coverage[plan.tiles.cell(number)] < COVERAGE_FAILED:
            credited += 1
            assert (labels[plan.last.scores_of(tile).slices] != LABEL_UNKNOWN).all()
    assert credited > 0


def test_parts_that_lack_tiles_are_refused(three_passes: ImagePlan) -> None:
    parts = [StatusPart(Box(0, 0, 1, 1), np.ones((1, 1), np.uint8)), None, None]
    with pytest.raises(ValueError, match="pass 'glance': status of"):
        coverage_of(three_passes, parts, everywhere(three_passes))
