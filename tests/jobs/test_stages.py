"""The order of work on one image."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.stages import GLANCE, PREPARE, StageWork, interleaved, last_stage, stage_work
from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import Unit, Window
from saccade.pipeline.recipe import Recipe
from saccade.workers.events import Lane
from saccade.workers.folder import RunFolder

RECIPE = {
    "passes": [
        {"name": "g", "resolution": {"downsample": 4}, "model": "builtin:tissue", "tile": 16},
        {"name": "f", "resolution": {"downsample": 1}, "model": "builtin:hematoxylin", "tile": 64},
    ],
    "output": {"chunk": 64, "shard": 64},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of one image."""
    import numpy as np
    import tifffile

    place = tmp_path_factory.mktemp("stages")
    pixels = np.random.default_rng(3).integers(0, 255, (130, 150, 3), np.uint8)
    tifffile.imwrite(place / "x.tif", pixels, tile=(64, 64), photometric="rgb")
    options = RunOptions(workers="local:1", device="cpu")
    summary = run(Recipe.model_validate(RECIPE), [place / "x.tif"], place / "run", options)
    assert summary.complete == ("x",)
    return RunFolder(place / "run")


def test_an_image_is_prepared_swept_selected_swept_and_finalised(folder: RunFolder) -> None:
    stages = [stage_work(folder, "x", number) for number in range(last_stage(2) + 1)]
    assert [stage.label for stage in stages] == ["prepare", "g", "select f", "f", "finalise"]
    kinds = [{unit.kind for unit in stage.units} for stage in stages]
    assert kinds == [{"prepare"}, {"sweep"}, {"select"}, {"sweep"}, {"finalise"}]
    assert [len(stage.units) for stage in stages] == [1, 1, 1, 9, 1]


def test_glances_and_steps_have_lanes_of_their_own_and_select_is_the_most_urgent(
    folder: RunFolder,
) -> None:
    stages = [stage_work(folder, "x", number) for number in range(last_stage(2) + 1)]
    refs = [stage.refs()[0] for stage in stages]
    step, glance, sweep = Lane.STEP, Lane.GLANCE, Lane.SWEEP
    assert [ref.lane for ref in refs] == [step, glance, step, sweep, step]
    prepare, _, select, _, finalise = (ref.urgency for ref in refs)
    assert select < prepare < finalise


def test_a_glance_that_nothing_follows_is_a_sweep_as_any_other() -> None:
    units = (Unit("u", "a", "sweep", 0),)
    lanes = [StageWork(GLANCE, "g", units, last_pass=last).refs()[0].lane for last in (True, False)]
    assert lanes == [Lane.SWEEP, Lane.GLANCE]


def test_ids_differ_between_all_units_of_an_image_and_are_the_same_each_time(
    folder: RunFolder,
) -> None:
    def ids() -> list[str]:
        works = (stage_work(folder, "x", number) for number in range(last_stage(2) + 1))
        return [unit.id for work in works for unit in work.units]

    assert len(set(ids())) == len(ids())
    assert ids() == ids()


def test_the_first_stage_needs_no_plan_and_differs_between_images(tmp_path: Path) -> None:
    one, two = (stage_work(RunFolder(tmp_path), name, PREPARE).units[0].id for name in ("a", "b"))
    assert one != two


def test_refs_keep_the_order_of_the_plan(folder: RunFolder) -> None:
    refs = stage_work(folder, "x", 3).refs()
    assert [ref.order for ref in refs] == list(range(9))
    assert {ref.image for ref in refs} == {"x"}


def test_units_with_nothing_to_compute_stand_evenly_between_those_that_have() -> None:
    batches = ((Window(Box(0, 0, 2, 2), Box(0, 0, 2, 2)),),)
    units = [Unit(f"{n}", "a", "sweep", 0, batches=batches * (n < 3)) for n in range(9)]
    assert "".join(unit.id for unit in interleaved(units)) == "304516728"
    assert interleaved(units[:3]) == units[:3]
    assert interleaved(units[3:]) == units[3:]
