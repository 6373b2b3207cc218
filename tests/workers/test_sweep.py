from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import Lab, noise, one_pass, plane_spec

from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_DONE, STATUS_NONE, ImagePlan
from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.plan import Unit, Window, plan_sweep
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.sources.base import Identity
from saccade.pipeline.store import ImageStore
from saccade.workers.answer import Said
from saccade.workers.reading import WindowPixels
from saccade.workers.strip import strips_of
from saccade.workers.sweep import SweepJob

HEIGHT, WIDTH = 53, 61


def plan_of(blend: str, chunk: int) -> ImagePlan:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
        | {"tile": 16, "window": 16, "blend": blend, "batch": 1}
    )
    spec = ModelSpec(("it",), 5, saliency=True)
    plane = plane_spec(HEIGHT, WIDTH)
    layout = lay_out(recipe, 1, plane, spec, Output(chunk=chunk, shard=chunk, scores="float32"))
    return ImagePlan(
        name="image",
        uri="image.tif",
        identity=Identity("image.tif", 1, 2, "3"),
        format="TIFF",
        level_shapes=(plane.shape,),
        pixel_size=None,
        passes=(replace(layout, index=0),),
        classes=("it",),
        fuse="finest",
        scores="float32",
        keep=("one",),
        label_threshold=0.5,
    )


def swept(plan: ImagePlan, store: ImageStore, lost: Box | None = None) -> list[SweepJob]:
    """Every unit, with windows answered by a plane of numbers; what is lost is answered by 99."""
    layout = plan.last
    chosen = np.ones((layout.tiles.rows, layout.tiles.columns), bool)
    jobs = []
    for unit in plan_sweep("image", layout, chosen):
        job = SweepJob(plan, layout, unit)
        for window in unit.windows:
            bad = lost is not None and window.read.overlaps(lost)
            read = WindowPixels(np.zeros((*window.read.shape, 3)), lost=(lost,) if bad else ())
            answer = NUMBERS[window.read.slices].copy()
            if bad and lost is not None and window.core.overlaps(lost):
                answer[...] = 99
            job.place(window, read, Said(answer[None], {"saliency": answer}))
        job.write(store)
        jobs.append(job)
    return jobs


NUMBERS = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


@pytest.fixture
def make_store(tmp_path: Any) -> Any:
    def make(plan: ImagePlan) -> ImageStore:
        return ImageStore.create(tmp_path / f"{id(plan)}.ome.zarr", plan, {})

    return make


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_windows_that_agree_give_their_common_plane_back(blend: str, make_store: Any) -> None:
    plan = plan_of(blend, 16)
    store = make_store(plan)
    swept(plan, store)
    scores = store.read("0", Box(0, 0, HEIGHT, WIDTH))[0]
    np.testing.assert_allclose(scores, NUMBERS, rtol=0, atol=1e-7)


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_what_a_lost_tile_was_given_is_stored_nowhere_and_blended_into_nothing(
    blend: str, make_store: Any
) -> None:
    plan = plan_of(blend, 64)
    lost = plan.last.tiles.box(5)
    store = make_store(plan)
    (job,) = swept(plan, store, lost)
    whole = Box(0, 0, HEIGHT, WIDTH)
    scores, saliency = store.read("0", whole)[0], store.read("passes/one/saliency", whole)
    assert np.isnan(scores[lost.slices]).all()
    assert (saliency[lost.slices] == 0).all()
    scores[lost.slices] = NUMBERS[lost.slices]
    np.testing.assert_allclose(scores, NUMBERS, rtol=0, atol=1e-7)
    assert job.counts() == {"done": 7, "degraded": 8, "failed": 1}


def test_tiles_that_were_not_asked_for_stay_fill(make_store: Any) -> None:
    plan = plan_of("hann", 64)
    layout = plan.last
    chosen = np.zeros((layout.tiles.rows, layout.tiles.columns), bool)
    chosen[1, 1] = True
    (unit,) = plan_sweep("image", layout, chosen)
    job = SweepJob(plan, layout, unit)
    (window,) = unit.windows
    ones = np.ones(window.read.shape, np.float32)
    said = Said(ones[None], {"saliency": ones})
    job.place(window, WindowPixels(np.zeros((*window.read.shape, 3))), said)
    store = make_store(plan)
    job.write(store)
    scores = store.read("0", Box(0, 0, HEIGHT, WIDTH))[0]
    answered = np.zeros(scores.shape, bool)
    answered[16:32, 16:32] = True
    np.testing.assert_array_equal(np.isfinite(scores), answered)
    status = store.read("passes/one/status", Box.of(chosen.shape))
    assert (status == np.where(chosen, STATUS_DONE, STATUS_NONE)).all()
    assert job.counts() == {"done": 1, "degraded": 0, "failed": 0}


def test_a_unit_without_windows_writes_that_nobody_answered(make_store: Any) -> None:
    plan = plan_of("crop", 64)
    store = make_store(plan)
    written = SweepJob(plan, plan.last, Unit("u", "image", "sweep", 0, Box(0, 0, HEIGHT, WIDTH)))
    assert all(w.nbytes == 0 for w in written.write(store))
    assert (store.read("labels/classes/0", Box(0, 0, HEIGHT, WIDTH)) == 255).all()


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_how_a_pass_is_cut_into_units_does_not_change_the_answer(lab: Lab, blend: str) -> None:
    image = noise(131, 97)
    details = {"tile": 16, "blend": blend, "batch": 1, "window": 16}
    small = lab.fused(one_pass("ConvNet", chunk=16, **details), image)
    large = lab.fused(one_pass("ConvNet", chunk=64, **details), image)
    np.testing.assert_array_equal(small, large)


# ------------------------------------------------------------------------------------------ strips


@pytest.mark.parametrize("blend", ["crop", "hann"])
@pytest.mark.parametrize("seed", range(4))
def test_the_order_in_which_windows_come_does_not_change_what_is_stored(
    blend: str, seed: int, make_store: Any, tmp_path: Any
) -> None:
    plan = tall(plan_of(blend, 16))
    planned, shuffled = (make_store(replace(plan, name=str(i))) for i in range(2))
    for store, mixed in ((planned, False), (shuffled, True)):
        for unit in plan_sweep("image", plan.last, every_tile(plan)):
            windows = list(unit.windows)
            if mixed:
                random.Random(seed).shuffle(windows)
            job = SweepJob(plan, plan.last, unit)
            for window in windows:
                placed(job, window)
            job.write(store)
    for array in ("0", "labels/classes/0", "1", "status", "passes/one/saliency"):
        whole = planned.spec(array).area
        one, other = planned.read(array, whole), shuffled.read(array, whole)
        if blend == "crop" or one.dtype == np.uint8:
            np.testing.assert_array_equal(one, other)
        else:  # sums are taken in the order of windows
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_strip_is_ready_once_and_only_when_nothing_more_reaches_into_it() -> None:
    plan = tall(plan_of("hann", 16))
    (unit,) = plan_sweep("image", plan.last, every_tile(plan))
    job = SweepJob(plan, plan.last, unit)
    windows, seen = list(unit.windows), []
    for at, window in enumerate(windows):
        placed(job, window)
        for strip in job.ready():
            later = [w.core.grow(plan.last.halo_px) for w in windows[at + 1 :]]
            assert not any(core.overlaps(strip.region) for core in later)
            seen.append(strip.region)
    assert seen == list(strips_of(plan, plan.last, unit))
    assert sum(region.height for region in seen) == HEIGHT


def test_a_unit_in_the_order_of_its_plan_holds_two_strips_at_most() -> None:
    plan = tall(plan_of("crop", 16))
    (unit,) = plan_sweep("image", plan.last, every_tile(plan))
    job = SweepJob(plan, plan.last, unit)
    for window in unit.windows:
        placed(job, window)
        assert len(job._strips) <= 2
        list(job.ready())


def test_what_is_given_up_leaves_no_file(make_store: Any, tmp_path: Any) -> None:
    plan = tall(plan_of("crop", 16))
    store = make_store(plan)
    before = sorted(tmp_path.rglob("*"))
    (unit,) = plan_sweep("image", plan.last, every_tile(plan))
    job = SweepJob(plan, plan.last, unit)
    for window in list(unit.windows)[:8]:
        placed(job, window)
        for strip in job.ready():
            job.store(strip, store)
    assert any(path.name.endswith(".partial") for path in tmp_path.rglob("*"))
    job.abandon()
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_a_window_is_wanted_by_every_unit_that_blends_it(blend: str) -> None:
    plan = plan_of(blend, 16)
    holed = replace(plan, passes=(replace(plan.last, holes=True),))
    for unit in plan_sweep("image", holed.last, every_tile(plan)):
        job = SweepJob(holed, holed.last, unit)
        for window in unit.windows:
            valid = np.ones(window.read.shape, bool)
            valid[0, 0] = False
            read = WindowPixels(np.zeros((*window.read.shape, 3)), valid=valid)
            assert job.wants(window, read)


def tall(plan: ImagePlan) -> ImagePlan:
    """The plan with one unit of several strips."""
    return replace(plan, passes=(replace(plan.last, shard_px=64),))


def every_tile(plan: ImagePlan) -> np.ndarray:
    """A choice of all tiles of the last pass."""
    return np.ones((plan.last.tiles.rows, plan.last.tiles.columns), bool)


def placed(job: SweepJob, window: Window) -> None:
    """Answer a window by the plane of numbers."""
    answer = NUMBERS[window.read.slices].copy()
    read = WindowPixels(np.zeros((*window.read.shape, 3)))
    job.place(window, read, Said(answer[None], {"saliency": answer}))
