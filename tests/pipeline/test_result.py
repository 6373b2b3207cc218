from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.pipeline.errors import StoreError
from saccade.pipeline.fusion import dequantise
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.selection import Selection
from saccade.pipeline.store import ImageStore

MIXED = (0, 1, 1, 2, 255)
Make = Callable[[ImagePlan], ImageStore]


@pytest.fixture
def result_of(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> Callable[..., Result]:
    """A result after some passes, some units of the next, or all."""

    def build(passes: int, units: int = 0, seed: int = 47, **changes: Any) -> Result:
        plan = replace(three_passes, **changes)
        answers = results.random_answers(plan, seed, MIXED)
        store = make_store(plan)
        if passes == len(answers):
            results.write_all(store, answers)
        else:
            for index in range(passes):
                results.write_pass(store, index, answers[index])
            if units:
                results.write_pass(store, passes, answers[passes], units)
        return open_result(tmp_path / "slide.ome.zarr")

    return build


@pytest.mark.parametrize("fuse", ["finest", "mean_logit"])
@pytest.mark.parametrize("scores", ["uint8", "float32"])
def test_with_all_passes_in_the_unfinished_view_equals_the_finished_result(
    result_of: Callable[..., Result], results: Any, tmp_path: Path, fuse: str, scores: str
) -> None:
    finished = result_of(3, fuse=fuse, scores=scores)
    root = tmp_path / "slide.ome.zarr" / "zarr.json"
    tree = json.loads(root.read_text())
    tree["attributes"]["saccade"]["state"] = "running"
    root.write_text(json.dumps(tree))
    unfinished = open_result(tmp_path / "slide.ome.zarr")
    assert finished.complete
    assert not unfinished.complete
    pairs = [
        *zip(finished.levels, unfinished.levels, strict=True),
        *zip(finished.label_levels, unfinished.label_levels, strict=True),
    ]
    for stored, composed in pairs:
        assert (stored.shape, stored.dtype) == (composed.shape, composed.dtype)
        np.testing.assert_array_equal(stored.compute(), composed.compute())
    height, width = finished.plan.shape
    box = Box(1, 2, height - 3, width)
    for result in (finished, unfinished):
        region = result.region(box)
        np.testing.assert_array_equal(region.scores, finished.fused[:, *box.slices].compute())
        np.testing.assert_array_equal(region.labels, finished.labels[box.slices].compute())
    np.testing.assert_array_equal(finished.coverage, unfinished.coverage)
    np.testing.assert_array_equal(finished.status, unfinished.status)


@pytest.mark.parametrize(("passes", "units"), [(0, 0), (1, 0), (1, 3), (2, 0), (2, 5)])
def test_an_unfinished_image_answers_everything_a_finished_one_does(
    result_of: Callable[..., Result], passes: int, units: int
) -> None:
    result = result_of(passes, units)
    finest = int(result.coverage[result.coverage < 255].max(initial=0))
    assert finest == passes + (units > 0)
    labels = result.labels.compute()
    assert labels.shape == result.fused.shape[1:] == result.plan.shape
    assert (labels != LABEL_UNKNOWN).any() == (passes > 0)
    assert result.summary()["state"] == "running"
    assert [level.shape[1:] for level in result.levels] == list(result.plan.pyramid_shapes)


def test_after_the_glance_there_is_a_map_of_the_whole_image(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    results.write_pass(store, 0, results.random_answers(three_passes, 3)[0])
    result = open_result(tmp_path / "slide.ome.zarr")
    assert (result.coverage == 1).all()
    assert (result.labels.compute() != LABEL_UNKNOWN).all()
    assert result.summary()["answered"] == 1.0
    assert result.summary()["refined"] == 0.0


def test_the_answer_only_gets_finer(result_of: Callable[..., Result], tmp_path: Path) -> None:
    before = None
    for passes, units in ((1, 0), (2, 0), (2, 4), (3, 0)):
        coverage = result_of(passes, units).coverage.astype(int)
        shutil.rmtree(tmp_path / "slide.ome.zarr")
        credited = np.where(coverage == 255, 0, coverage)
        if before is not None:
            assert (credited >= before).all()
        before = credited


@pytest.mark.parametrize("passes", [2, 3])
def test_a_small_part_is_computed_from_a_small_part(
    result_of: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    result = result_of(passes)
    read: list[tuple[str, Box]] = []
    original = ImageStore.read

    def spy(self: ImageStore, array: str, box: Box) -> np.ndarray:
        read.append((array, box))
        return original(self, array, box)

    whole = result.fused.compute()
    monkeypatch.setattr(ImageStore, "read", spy)
    part = result.fused[:, 40:47, 50:61].compute()
    np.testing.assert_array_equal(part, whole[:, 40:47, 50:61])
    assert read
    pixels = sum(box.area for array, box in read if not array.endswith("status"))
    assert pixels <= 6 * result.plan.last.chunk_px**2


def test_lazy_arrays_are_indexed_as_numpy_indexes(result_of: Callable[..., Result]) -> None:
    result = result_of(2)
    whole, labels = result.fused.compute(), result.labels.compute()
    np.testing.assert_array_equal(result.fused[1, 5:90:7, ::-3].compute(), whole[1, 5:90:7, ::-3])
    np.testing.assert_array_equal(result.fused[:, 9, 11].compute(), whole[:, 9, 11])
    np.testing.assert_array_equal(result.labels[7:7].compute(), labels[7:7])
    np.testing.assert_array_equal(result.scores.compute(), dequantise(whole))


def test_a_pass_of_its_own_is_there_while_it_is_kept(
    result_of: Callable[..., Result], results: Any, three_passes: ImagePlan, tmp_path: Path
) -> None:
    result = result_of(3)
    for layout, (scores, status) in zip(
        three_passes.passes, results.random_answers(three_passes, 47, MIXED), strict=True
    ):
        one = result.passes[layout.name]
        np.testing.assert_array_equal(one.scores.compute(), scores)
        np.testing.assert_array_equal(one.status, status)
        assert one.saliency is None
    ImageStore.open(tmp_path / "slide.ome.zarr").drop("passes/look")
    fewer = open_result(tmp_path / "slide.ome.zarr")
    assert list(fewer.passes) == ["glance", "stare"]
    np.testing.assert_array_equal(fewer.coverage, result.coverage)


def test_a_pass_that_was_dropped_keeps_its_numbers(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    store.finish({"passes": {"look": {"tiles": 97, "visited": 13, "degraded": 2, "failed": 1}}})
    store.drop("passes/look")
    summary = open_result(tmp_path / "slide.ome.zarr").summary()
    assert summary["passes"]["look"]["visited"] == 13
    assert summary["passes"]["stare"]["visited"] == 0


def test_the_share_refined_counts_area_not_tiles(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    answers = results.random_answers(three_passes, 5)
    results.write_pass(store, 0, answers[0])
    scores, status = answers[2]
    status[:] = 0
    status[:, -1] = 1
    results.write_pass(store, 2, (scores, status))
    width = three_passes.last.plane.shape[1]
    column = width - (status.shape[1] - 1) * three_passes.last.tile_px
    share = open_result(tmp_path / "slide.ome.zarr").summary()["refined"]
    assert share == pytest.approx(column / width)


def test_a_recipe_of_one_pass_reads_the_same(
    make_store: Make, results: Any, tmp_path: Path
) -> None:
    only = results.layout("only", 0, (113, 71), 1, tile=16, chunk=16, shard=32)
    plan = results.plan_of((only,))
    ((scores, status),) = results.random_answers(plan, 7, MIXED)
    store = make_store(plan)
    results.write_pass(store, 0, (scores, status), units=3)
    result = open_result(tmp_path / "slide.ome.zarr")
    done = np.zeros(plan.shape, bool)
    for region in list(only.shards)[:3]:
        done[region.slices] = True
    np.testing.assert_array_equal(result.fused.compute(), np.where(done, scores, 0))
    assert (result.labels.compute()[~done] == LABEL_UNKNOWN).all()
    np.testing.assert_array_equal(result.passes["only"].scores.compute(), result.fused.compute())
    assert [level.shape[1:] for level in result.levels] == list(plan.pyramid_shapes)
    results.write_all(store, [(scores, status)])
    finished = open_result(tmp_path / "slide.ome.zarr")
    np.testing.assert_array_equal(finished.fused.compute(), scores)
    np.testing.assert_array_equal(finished.coverage, np.where(status == 255, 255, status > 0))


def test_a_run_folder_names_its_images_and_with_one_image_is_that_image(
    three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert open_result(run).images == ()
    for name in ("a", "b.c"):
        plan = replace(three_passes, name=name)
        store = ImageStore.create(run / "results" / f"{name}.ome.zarr", plan, {})
        results.write_pass(store, 0, results.random_answers(plan, 3)[0])
        result = open_result(run)
        if name == "a":
            assert result.images == ("a",)
            assert result.plan.name == result["a"].plan.name == "a"
    assert result.images == ("a", "b.c")
    assert result["b.c"].plan.name == "b.c"
    with pytest.raises(StoreError, match="pick one"):
        _ = result.fused
    with pytest.raises(KeyError, match=r"no image 'z'; there are a, b\.c"):
        result["z"]


def test_a_result_outside_its_run_has_all_but_the_reasons(
    three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    store = ImageStore.create(run / "results" / "slide.ome.zarr", three_passes, {})
    results.write_all(store, results.random_answers(three_passes, 3))
    selection = Selection((2, 5), np.zeros(2, np.uint8), ("top 13 %",), {}, 31)
    plans = run / "plans" / "slide"
    plans.mkdir(parents=True)
    (plans / "1-look.json").write_text(json.dumps({"selection": selection.to_dict()}))
    (plans / "0-glance.json").write_text(json.dumps({"selection": None}))
    inside = open_result(run)
    assert inside.passes["look"].selection == selection
    assert inside.passes["glance"].selection is None
    shutil.move(run / "results" / "slide.ome.zarr", tmp_path / "copy.ome.zarr")
    outside = open_result(tmp_path / "copy.ome.zarr")
    assert outside.passes["look"].selection is None
    assert outside.complete
    assert outside.images == ("copy",)
    assert outside.plan.name == "slide"
    assert outside.pixel_size is not None
    assert outside.pixel_size.y == 0.5


def test_a_place_that_is_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not there"):
        open_result(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="neither"):
        open_result(tmp_path)
