from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals.journal import read_records
from saccade.jobs.monitoring.status import as_json, read_status
from saccade.jobs.monitoring.status_page import as_page
from saccade.pipeline.capacity import Capacity
from saccade.pipeline.errors import UsageError
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec, Prediction, Views
from saccade.pipeline.recipe import Output, PassRecipe, Recipe
from saccade.pipeline.result import open_result
from saccade.workers.context import WorkerContext
from saccade.workers.device import Predictor
from saccade.workers.device_simulated import simulated_memory
from saccade.workers.folder import RunFolder
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.resolving import nbytes_per_px, probe_case
from saccade.workers.tasks import WorkerSpec

MIB = 2**20


def layouts(lab: Lab, number: int = 1) -> tuple[PassLayout, ...]:
    return RunFolder(lab.folder / f"run-{number}").read_image_plan("one").passes


def two_passes(resolution: Any, **details: Any) -> dict[str, Any]:
    glance = pass_of("glance", "echo", 1) | {"resolution": resolution}
    return several_passes([glance, pass_of("look", "echo", 1, tile=64, **details)])


# ------------------------------------------------------------------------------------- the glance


@pytest.mark.parametrize(
    ("limit", "downsample"), [("1MiB", 4), ("60000", 8), ("24000", pytest.approx(8 * 2**0.5))]
)
def test_the_glance_is_as_fine_as_memory_holds_it_in_one_forward_pass(
    lab: Lab, limit: str, downsample: float
) -> None:
    device = f"simulated:{limit}:1:10"
    recipe = two_passes({"auto": {"coarsest": {"downsample": 16}}}, batch=1, window=64)
    if limit != "1MiB":  # the second pass needs 41 kB in any case
        recipe = several_passes([recipe["passes"][0]])
        recipe["passes"][0]["resolution"]["auto"]["finest"] = {"downsample": 4}
    simulated_memory(device).asked.clear()
    lab.run(recipe, noise(512, 512), device=device)
    glance = layouts(lab)[0]
    assert glance.plane.downsample == downsample
    assert (glance.window_tiles, glance.batch) == (0, 1)
    assert (1, glance.plane.shape) in simulated_memory(device).asked


def test_a_glance_that_fits_at_no_permitted_resolution_says_what_to_do(lab: Lab) -> None:
    recipe = several_passes([pass_of("glance", "echo", 1) | {"resolution": {"auto": {}}}])
    recipe["passes"][0]["resolution"]["auto"]["coarsest"] = {"downsample": 2}
    summary = lab.run_all(recipe, {"one": noise(512, 512)}, device="simulated:100kB:1:10")
    (reason,) = summary.quarantined.values()
    for part in ("pass 'glance'", "256 x 256 px", "1/2", "permit a coarser", "more memory"):
        assert part in reason


def test_bounds_of_a_glance_that_exclude_each_other_are_refused(lab: Lab) -> None:
    bounds = {"finest": {"downsample": 8}, "coarsest": {"downsample": 2}}
    summary = lab.run_all(two_passes({"auto": bounds}), {"one": noise(128, 128)})
    assert "exclude each other" in summary.quarantined["one"]


# -------------------------------------------------------------------------- windows and batches


@given(
    st.integers(1, 2_000_000),
    st.sampled_from([0, 8, 32]),
    st.sampled_from(["auto", 64, 256]),
    st.booleans(),
)
def test_what_the_recipe_leaves_open_is_within_what_fits(
    most_px: int, halo: int, tile: Any, first: bool
) -> None:
    from fakes import plane_spec

    stated = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": tile}
    spec = ModelSpec(("it",), halo, multiple=8)
    recipe = PassRecipe.model_validate(stated)
    capacity = Capacity(most_px=most_px)
    made = lay_out(recipe, 1 - first, plane_spec(4096, 4096), spec, Output(), capacity=capacity)
    side = made.window_tiles * made.tile_px + 2 * made.halo_px
    least = (64 if tile == "auto" else tile) + 2 * halo
    assert made.batch * side**2 <= max(most_px, least**2)
    if most_px >= 16 * 2**20:
        assert made == lay_out(recipe, 1 - first, plane_spec(4096, 4096), spec, Output())


def test_a_pass_is_laid_out_within_a_limit_and_gives_the_same_scores(lab: Lab) -> None:
    image = noise(700, 500)
    recipe = one_pass("ConvNet", options={}, chunk=64)
    roomy = lab.fused(recipe, image)
    tight = lab.fused(recipe, image, device="simulated:2MB:0:10")
    wide, narrow = layouts(lab, 1)[0], layouts(lab, 2)[0]
    assert narrow.batch * (narrow.window_tiles * narrow.tile_px) ** 2 * 10 <= 2e6
    assert narrow.window_tiles * narrow.tile_px < wide.window_tiles * wide.tile_px or (
        wide.window_tiles == 0
    )
    np.testing.assert_allclose(tight, roomy, atol=1e-6)


def test_a_pass_that_does_not_fit_is_refused_before_it_runs(lab: Lab) -> None:
    recipe = one_pass("echo", tile=512, window=512)
    device = "simulated:1MB:1:10"
    simulated_memory(device).asked.clear()
    summary = lab.run_all(recipe, {"one": noise(700, 700)}, device=device)
    for part in ("pass 'dense'", "512 x 512 px needs", "allowed 977 KiB", "'window' or 'tile'"):
        assert part in summary.quarantined["one"]
    assert all(batch * h * w < 512**2 for batch, (h, w) in simulated_memory(device).asked)


def test_gpu_memory_bounds_a_device_and_workers_share_it(lab: Lab) -> None:
    device = "simulated:1GiB:1:7"
    limit = MemoryLimit(nbytes=32 * MIB)
    lab.run(one_pass("echo", tile=64), noise(512, 512), device=device, gpu_memory=limit)
    half = "local:2"
    lab.run(one_pass("echo", tile=64), noise(512, 512), half, device=device, gpu_memory=limit)
    whole, shared = (simulated_px(layouts(lab, number)[0]) for number in (1, 2))
    assert whole * 7 <= 32 * MIB
    assert shared * 7 <= 16 * MIB
    assert shared > 0.8 * whole / 2


def simulated_px(layout: PassLayout) -> int:
    return int(layout.batch * (layout.window_tiles * layout.tile_px + 2 * layout.halo_px) ** 2)


def test_too_little_memory_for_a_worker_is_refused_before_anything_starts(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"--memory: .* allow at least"):
        lab.run_all(
            one_pass("echo"), {"one": noise(64, 64)}, "local", memory=MemoryLimit(nbytes=MIB)
        )


def test_an_image_that_ran_out_of_memory_teaches_the_next(lab: Lab) -> None:
    """The model needs more than was probed: it never answers for more than two windows at once."""
    image = noise(512, 512)
    dense = pass_of("dense", "hungry", 1, tile=64, window=64)
    recipe = several_passes([dense], chunk=64, shard=512)
    device = "simulated:1GiB:1:7"
    both = {"one": image, "two": image}
    summary = lab.run_all(recipe, both, device=device, images_open=1)
    splits, batches = {}, {}
    for record in read_records(RunFolder(summary.folder).journal):
        if "splits" in record:
            splits[record["image"]] = splits.get(record["image"], 0) + record["splits"]
            batches[record["image"]] = record["batch"]
    assert splits["one"] > 0
    assert batches["two"] < batches["one"]
    results = [open_result(RunFolder(summary.folder).result(name)).fused for name in both]
    np.testing.assert_array_equal(*map(np.asarray, results))


def test_a_plan_that_a_lesson_made_smaller_says_so(lab: Lab) -> None:
    dense = pass_of("dense", "hungry", 1, tile=64, window=64)
    both = {name: noise(512, 512) for name in ("one", "two")}
    summary = lab.run_all(
        several_passes([dense], chunk=64, shard=512),
        both,
        device="simulated:1GiB:1:7",
        images_open=1,
    )
    lessons = {
        record["image"]: record.get("lessons")
        for record in read_records(RunFolder(summary.folder).journal)
        if "plans" in record
    }
    assert lessons["one"] is None
    lesson = (lessons["two"] or {})["dense"]
    assert lesson["shape"] == [64, 64]
    assert RunFolder(summary.folder).read_image_plan("two").passes[0].batch < lesson["batch"]


def failing_at(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """Have the device run out of memory at some forward passes, counted from 1."""
    answer, count = Predictor._answer, itertools.count(1)

    def faulty(self: Predictor, views: Views) -> Prediction:
        if next(count) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(self, views)

    monkeypatch.setattr(Predictor, "_answer", faulty)


def test_a_device_that_was_full_for_a_moment_changes_no_other_image_s_plan(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = one_pass("ConvNet", options={}, tile=64, window=64, batch=1)
    images = {name: noise(192, 192) for name in ("one", "two", "three")}
    calm = lab.run_all(recipe, images)
    failing_at(monkeypatch, {4, 5})  # after three probes
    summary = lab.run_all(recipe, images, images_open=1)
    assert not summary.quarantined
    folders = [RunFolder(one.folder) for one in (calm, summary)]
    assert any(record.get("splits") for record in read_records(folders[1].journal))
    for name in images:
        passes = [folder.read_image_plan(name).passes for folder in folders]
        assert passes[0] == passes[1]
        calmly, ours = (open_result(folder.result(name)).fused for folder in folders)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(calmly), atol=1e-6)


def taught(lab: Lab, recipe: dict[str, Any], device: str, side: int) -> PassLayout:
    """The first pass's layout, after a window of this side is known not to fit."""
    spec = WorkerSpec(
        lab.folder / "run", Recipe.model_validate(recipe).canonical_json(), lab.models
    )
    context = WorkerContext(replace(spec, device=device))
    image = noise(512, 512)
    entry = lab.entry("one", image)
    draft = context.resolve(entry, cache=None).plan
    case = probe_case(context.recipe.passes[0], draft, draft.passes[0], FakeSource(image))
    context.book.limit_for(case).learn(1, (side, side))
    return context.resolve(entry, cache=None).plan.passes[0]


def test_what_ran_out_of_memory_makes_plans_smaller_but_refuses_none(lab: Lab) -> None:
    """Measured, it fits; who held the memory may be gone, and what does not fit is cut in use."""
    recipe = one_pass("echo", tile=64, window=64)
    assert taught(lab, recipe, "simulated:1GiB:1:11", 32).batch == 1


def test_a_glance_that_ran_out_of_memory_becomes_coarser_but_is_not_refused(lab: Lab) -> None:
    recipe = two_passes({"auto": {"coarsest": {"downsample": 16}}}, batch=1, window=64)
    assert taught(lab, recipe, "simulated:1GiB:1:13", 100).plane.downsample < 8
    assert taught(lab, recipe, "simulated:1GiB:1:13", 8).plane.downsample == 16


# ----------------------------------------------------------------------------- the four words


def test_receipts_and_status_say_what_was_allowed_reserved_projected_and_measured(
    lab: Lab,
) -> None:
    device = "simulated:64MiB:1009:7"
    summary = lab.run_all(
        one_pass("echo", tile=64, batch=3), {"one": noise(512, 512)}, device=device
    )
    status = read_status(summary.folder)
    said = status.tally.images["one"].memory["dense"]
    window = layouts(lab)[0].window_tiles * 64
    assert said == {
        "allowed_nbytes": 64 * MIB,
        "reserved_nbytes": 0,
        "projected_nbytes": 1009 + 7 * 3 * window**2,
        "measured_nbytes": simulated_memory(device).most_nbytes,
    }
    assert said["measured_nbytes"] <= said["projected_nbytes"]
    assert '"projected_nbytes"' in as_json(status)
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_page(status))
    for word in ("allowed", "reserved", "projected", "measured", "64.0 MiB"):
        assert word in shown.get()


def test_a_run_goes_on_with_the_layout_it_began_with(lab: Lab) -> None:
    """Memory is measured once; a plan that was frozen is not made again with more of it."""
    device = "simulated:8MB:1:7"
    summary = lab.run_all(one_pass("echo", tile=64), {"one": noise(512, 512)}, device=device)
    frozen = sorted(p.name for p in (summary.folder / "memory").iterdir())
    assert len(frozen) == 2
    assert sum(name.startswith("budget-") for name in frozen) == 1


def test_features_are_probed_with_and_counted_in_what_lanes_hold(lab: Lab) -> None:
    def resolved(**details: Any) -> Any:
        passes = [pass_of("first", "encoder", 1, tile=64, options={"channels": 64})]
        options = {"channels": 64}
        passes.append(pass_of("second", "echo_features", 1, tile=64, options=options, **details))
        recipe = Recipe.model_validate(several_passes(passes))
        spec = WorkerSpec(lab.folder / "run", recipe.canonical_json(), lab.models)
        entry = lab.entry("one", noise(256, 256))
        return WorkerContext(spec).resolve(entry, cache=None)

    given = resolved(features=True)
    first, second = given.plan.passes
    assert first.unit_nbytes(4) - replace(first, gives=None).unit_nbytes(4) == (
        first.region_px**2 * 64 * 2 // 16
    )
    source = FakeSource(noise(256, 256))
    extra = nbytes_per_px(given.plan, second, source) - nbytes_per_px(
        given.plan, replace(second, takes=None), source
    )
    assert extra == 64 * 4 // 16
    one = PassRecipe.model_validate(pass_of("second", "echo_features", 1))
    blank = probe_case(one, given.plan, second, source).blank(1, (64, 80))[0]
    assert blank.features is not None
    assert blank.features.shape == (64, 16, 20)
