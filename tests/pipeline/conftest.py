"""Plans and filled stores for tests of the result, without sources, models or an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.pipeline.compose import LastAnswer, compose_region, region_coverage
from saccade.pipeline.fusion import quantise
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_DONE, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import plan_sweep
from saccade.pipeline.pyramid import complete_pyramid, halvings
from saccade.pipeline.sources.base import Identity, PixelSize
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.store import ImageStore


def layout(
    name: str,
    index: int,
    image: tuple[int, int],
    downsample: float,
    *,
    tile: int = 32,
    chunk: int = 16,
    shard: int = 64,
    stride: int = 1,
    classes: Sequence[str] = ("a", "b"),
    **more: Any,
) -> PassLayout:
    height, width = (-(-side // downsample) for side in image)
    plane = PlaneSpec(0, downsample, (int(height), int(width)), downsample, None)
    return PassLayout(
        name,
        index,
        plane,
        tuple(classes),
        stride,
        stride,
        0,
        tile,
        more.pop("window_tiles", 1),
        1,
        chunk,
        shard,
        **more,
    )


def plan_of(passes: Sequence[PassLayout], **changes: Any) -> ImagePlan:
    values: dict[str, Any] = {
        "name": "slide",
        "uri": "memory",
        "identity": Identity("memory", 7, 11, "13"),
        "format": "array",
        "level_shapes": (passes[-1].plane.shape,),
        "pixel_size": PixelSize(0.25, 0.25, "um"),
        "passes": tuple(passes),
        "classes": passes[-1].classes,
        "fuse": "finest",
        "scores": "uint8",
        "keep": tuple(p.name for p in passes),
        "label_threshold": 0.5,
    }
    return ImagePlan(**(values | changes))


def random_answers(
    plan: ImagePlan, seed: int, states: Sequence[int] = (STATUS_DONE,)
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per pass: stored scores, fill where not answered, and status."""
    rng = np.random.default_rng(seed)
    answers = []
    for one in plan.passes:
        grid = one.tiles
        status = rng.choice(np.array(states, np.uint8), (grid.rows, grid.columns))
        scores = rng.random((len(one.classes), *one.score_shape), np.float32)
        scores = quantise(scores / scores.sum(axis=0), plan.scores)
        for index, tile in enumerate(grid):
            if status[grid.cell(index)] not in (1, 2):
                fill = 0 if plan.scores == "uint8" else np.nan
                scores[(slice(None), *one.scores_of(tile).slices)] = fill
        answers.append((scores, status))
    return answers


def write_pass(
    store: ImageStore, index: int, answer: tuple[np.ndarray, np.ndarray], units: int | None = None
) -> None:
    """What the engine's write lane does for the units of one pass, or for the first few of them."""
    plan, one = store.plan, store.plan.passes[index]
    scores, status = answer
    for unit in plan_sweep(plan.name, one, status > 0, everywhere=True)[:units]:
        region = unit.region
        cells = one.tiles.cells_touching(region.scale(one.stride))
        part, state = scores[(slice(None), *region.slices)], status[cells.slices]
        if len(plan.passes) > 1:
            store.write(f"passes/{one.name}/scores", region, part)
        store.write(f"passes/{one.name}/status", cells, state)
        if index == len(plan.passes) - 1:
            _write_fused(store, plan, region, part, state)


def _write_fused(
    store: ImageStore, plan: ImagePlan, region: Box, part: np.ndarray, state: np.ndarray
) -> None:
    fused = compose_region(store, plan, region, LastAnswer(part, state))
    coverage, status = region_coverage(store, plan, region, state)
    store.write("0", region, fused.scores)
    store.write("labels/classes/0", region, fused.labels)
    below = region
    for level, scores, labels in halvings(plan, fused.scores, fused.labels):
        below = below.reduce(2)
        store.write(f"{level}", below, scores)
        store.write(f"labels/classes/{level}", below, labels)
    store.write("coverage", plan.coverage_box(region), coverage)
    store.write("status", plan.coverage_box(region), status)


def write_all(store: ImageStore, answers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    for index, answer in enumerate(answers):
        write_pass(store, index, answer)
    complete_pyramid(store, store.plan)
    store.finish({"timing": {"seconds": 17}})


class Results:
    """The functions above, for tests that take the fixture."""

    layout = staticmethod(layout)
    plan_of = staticmethod(plan_of)
    random_answers = staticmethod(random_answers)
    write_pass = staticmethod(write_pass)
    write_all = staticmethod(write_all)


@pytest.fixture(scope="session")
def results() -> type[Results]:
    """Building blocks of results."""
    return Results


@pytest.fixture
def three_passes() -> ImagePlan:
    """Primes wherever there is a size: ratios 7/2 and 2, tiles that do not nest, odd edges."""
    image = (211, 307)
    return plan_of(
        (
            layout("glance", 0, image, 7, tile=17, chunk=17, shard=17, window_tiles=0),
            layout("look", 1, image, 4, tile=24, chunk=12, shard=24, stride=1),
            layout("stare", 2, image, 1, tile=32, chunk=16, shard=32, stride=2),
        )
    )


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[ImagePlan], ImageStore]:
    """A new, empty store of a plan."""
    return lambda plan: ImageStore.create(tmp_path / f"{plan.name}.ome.zarr", plan, {"recipe": {}})
