"""Features handed from one pass to the next arrive as they were computed, whoever computed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeSource, Lab, noise, pass_of, several_passes

from saccade.jobs.driver import run
from saccade.jobs.journals import journal
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import StoreError
from saccade.pipeline.features import check_features
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.models.base import Prediction, Views
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.recipe import ModelRecipe, Recipe
from saccade.pipeline.result import Result
from saccade.pipeline.store import ImageStore
from saccade.workers.device import Predictor
from saccade.workers.folder import RunFolder

Results = Callable[[Path], dict[str, bytes]]
HEIGHT, WIDTH = 211, 307
TILED = {"tile": 32, "window": 64, "batch": 3}


def handed_on(first: dict[str, Any], second: dict[str, Any], **output: Any) -> dict[str, Any]:
    """Two passes, the second of which takes the features of the first."""
    tree = several_passes([first, second | {"features": True}], "float32", shard=128)
    tree["output"] |= {"keep_features": True} | output
    return tree


def store_of(result: Result) -> ImageStore:
    return ImageStore.open(result._path)


def whole_features(image: np.ndarray, stride: int, channels: int = 3) -> np.ndarray:
    """What ``encoder`` finds on a whole image, its last row and column repeated up to a place."""
    rows, columns = -image.shape[0] % stride, -image.shape[1] % stride
    red = np.pad(image[..., 0], ((0, rows), (0, columns)), mode="edge")
    pixels = torch.from_numpy(red / np.float32(255))[None, None]
    mean = torch.nn.functional.avg_pool2d(pixels, stride)[0]
    shares = 1 / torch.arange(3, 3 + channels).view(-1, 1, 1)
    return (mean * shares).numpy().astype(np.float16)


# ----------------------------------------------------------------------------------- what arrives


@pytest.mark.parametrize("how", [{}, TILED, TILED | {"blend": "hann", "window": 32, "halo": 8}])
def test_a_pass_on_the_same_grid_gets_the_features_as_float16_rounds_them(
    lab: Lab, how: dict[str, Any]
) -> None:
    image = noise(HEIGHT, WIDTH)
    recipe = handed_on(
        pass_of("first", "encoder", 1, **how), pass_of("second", "echo_features", 1, tile=64)
    )
    result = lab.run(recipe, image)
    expected = whole_features(image, 4)
    np.testing.assert_array_equal(np.asarray(result.fused), expected.astype(np.float32))
    stored = store_of(result).read("passes/first/features", Box(0, 0, 53, 77))
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, expected)


def test_features_of_one_grid_in_two_resolutions_are_not_resampled(lab: Lab) -> None:
    image = noise(HEIGHT, WIDTH)
    first = pass_of("first", "encoder", 1, options={"stride": 8}, **TILED)
    again = pass_of("second", "echo_features", 1, options={"stride": 8}, tile=64)
    coarse = lab.run(handed_on(first, again), image)
    stride_4 = pass_of("first", "encoder", 2, options={"stride": 4}, **TILED)
    fine = lab.run(handed_on(stride_4, again), image)
    held = store_of(fine).read("passes/first/features", Box(0, 0, 27, 39)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(fine.fused), held)
    assert coarse.fused.shape == fine.fused.shape


def test_a_finer_pass_gets_features_between_the_centres_of_coarser_places(lab: Lab) -> None:
    y = np.arange(256, dtype=np.float32)[:, None, None] / 512
    image = np.broadcast_to(y, (256, 256, 3)).copy()
    recipe = handed_on(
        pass_of("first", "encoder", 4, options={"channels": 1}, tile=16, window=32),
        pass_of("second", "echo_features", 1, options={"channels": 1}, tile=64),
    )
    found = np.asarray(lab.run(recipe, image).fused)[0]
    centres = (np.arange(64) * 4 + 1.5)[:, None] / 512 / 3
    inside = slice(2, -2)  # outside the outermost centres nothing is extrapolated
    np.testing.assert_allclose(found[inside], np.broadcast_to(centres, (64, 64))[inside], atol=2e-4)


def test_where_the_previous_pass_did_not_answer_features_are_zero(lab: Lab) -> None:
    image = np.full((256, 256, 3), 9, np.uint8)
    image[64:128, 128:192] = 200
    select = {"by": "top_k", "k": 1, "statistic": "mean"}
    passes = [
        pass_of("glance", "echo", 8, tile=8),
        pass_of("first", "encoder", 1, tile=64, select=select),
        pass_of("second", "echo_features", 1, tile=64, features=True),
    ]
    found = np.asarray(lab.run(several_passes(passes, shard=64), image).fused)[0]
    answered = np.zeros((64, 64), bool)
    answered[16:32, 32:48] = True
    assert (found[answered] > 0.2).all()
    assert not found[~answered].any()


def test_tiles_that_can_not_be_read_have_no_features(lab: Lab) -> None:
    broken = Box(70, 70, 80, 80)
    source = FakeSource(noise(256, 256), broken=(broken,))
    recipe = handed_on(
        pass_of("first", "encoder", 1, tile=32, window=32), pass_of("second", "encoder", 1, tile=64)
    )
    recipe["passes"][1]["model"]["source"] = "fake_models.py:echo_features"
    result = lab.run(recipe | {"max_bad_tiles": 0.2}, source)
    stored = store_of(result).read("passes/first/features", Box(0, 0, 64, 64))
    assert not stored[:, 16:24, 16:24].any()
    assert (stored != 0).any(0).sum() == 64 * 64 - 8 * 8


def test_features_too_large_for_float16_become_its_largest(lab: Lab) -> None:
    recipe = handed_on(
        pass_of("first", "encoder", 1, options={"limit": 1e7}),
        pass_of("second", "echo_features", 1),
    )
    found = np.asarray(lab.run(recipe, np.full((64, 64, 3), 255, np.uint8)).fused)
    assert (found == np.finfo(np.float16).max).all()


def test_running_out_of_memory_changes_no_feature(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are halved, then windows; what each part has of the features is put together."""
    image = noise(HEIGHT, WIDTH)
    how = {"tile": 32, "window": 64, "batch": 3, "halo": 8}
    recipe = handed_on(
        pass_of("first", "encoder", 1, **how), pass_of("second", "echo_features", 1, **how)
    )
    whole = np.asarray(lab.run(recipe, image).fused)
    tried = []

    def small(predictor: Predictor, views: Views) -> Prediction:
        tried.append(views.pixels.shape)
        if views.pixels[:, 0].numel() > 64 * 80:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predictor.model(views)

    monkeypatch.setattr(Predictor, "_answer", small)
    np.testing.assert_array_equal(np.asarray(lab.run(recipe, image).fused), whole)
    assert {tuple(shape[-2:]) for shape in tried} == {(80, 80), (48, 80)}


# ------------------------------------------------------------------------------- the real network


def network(name: str, downsample: float, depth: int, **details: Any) -> dict[str, Any]:
    options = {"width": 8, "blocks": 3, "depth": depth, "heads": 2, "seed": 5}
    options |= details.pop("options", {})
    model = {"source": "saccade.pipeline.models.multipass:MultiPassNet", "options": options}
    return {"name": name, "resolution": {"downsample": downsample}, "model": model, **details}


def model_of(one: dict[str, Any]) -> Any:
    return load_model(ModelRecipe.model_validate(one["model"]), base_folder=Path())


@pytest.mark.parametrize("how", [{}, {"tile": 64, "window": 64, "batch": 2}])
def test_cached_features_are_those_that_the_model_computes_again(
    lab: Lab, how: dict[str, Any]
) -> None:
    """Bit for bit after rounding to float16, where the same windows are computed."""
    image = noise(HEIGHT, WIDTH)
    first = network("first", 1, 2, **how)
    second = network("second", 1, 3, options={"start": 2}, tile=64)
    result = lab.run(handed_on(first, second), image)
    layout, store = result.plan.passes[0], store_of(result)
    shape = tuple(side // 8 for side in layout.padded_shape)
    stored = store.read("passes/first/features", Box(0, 0, *shape))
    model, seen = model_of(first), 0
    for unit in RunFolder(lab.folder / "run-1").read_units(result.plan.name, layout):
        for batch in unit.batches:
            again = model(Views(pixels_of(image, batch), downsample=1.0)).features
            for window, features in zip(batch, again.half().numpy(), strict=True):
                core = window.core.reduce(layout.multiple).scale(layout.multiple // 8)
                inside = core.relative_to(window.read.reduce(8)).slices
                np.testing.assert_array_equal(
                    stored[(slice(None), *core.slices)], features[(slice(None), *inside)]
                )
                seen += core.area
    assert seen >= stored[0].size


def pixels_of(image: np.ndarray, batch: Any) -> torch.Tensor:
    """A batch of windows as the engine reads them: the image's edge repeated beyond it."""
    windows = []
    for window in batch:
        inside = window.read.clip(image.shape[:2])
        rows, columns = window.read.y1 - inside.y1, window.read.x1 - inside.x1
        padding = ((0, rows), (0, columns), (0, 0))
        windows.append(np.pad(image[inside.slices], padding, mode="edge"))
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float() / 255


def test_going_on_from_cached_features_answers_as_the_deeper_network(lab: Lab) -> None:
    image = noise(HEIGHT, WIDTH)
    shallow, rest = network("first", 1, 2), network("second", 1, 3, options={"start": 2})
    continued = np.asarray(lab.run(handed_on(shallow, rest), image).fused)
    deep = several_passes([network("deep", 1, 3)], "float32")
    whole = np.asarray(lab.run(deep, image).fused)
    np.testing.assert_allclose(continued, whole, atol=2e-3)
    alone = np.asarray(lab.run(several_passes([network("one", 1, 2)], "float32"), image).fused)
    assert np.abs(alone - whole).max() > 2 * np.abs(continued - whole).max()


def test_passes_of_any_depth_share_one_weight_file(lab: Lab) -> None:
    from safetensors.torch import save_file

    from saccade.pipeline.models.multipass import MultiPassNet

    trained = MultiPassNet(width=8, blocks=4, depth=4, heads=2, seed=11)
    save_file(trained.state_dict(), lab.models / "weights.safetensors")
    passes = [
        network("glance", 4, 1, options={"blocks": 4}),
        network("focus", 2, 2, options={"blocks": 4}),
        network("refine", 1, 4, options={"blocks": 4}),
    ]
    for one in passes:
        one["model"]["weights"] = "weights.safetensors"
    loaded = [
        load_model(ModelRecipe.model_validate(one["model"]), base_folder=lab.models)
        for one in passes
    ]
    for model in loaded:
        state = model.module.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(state[name], value) for name, value in trained.state_dict().items())
    depths = [model.module.depth for model in loaded]  # type: ignore[attr-defined]
    assert depths == [1, 2, 4]
    result = lab.run(several_passes(passes, "uint8", chunk=32), noise(256, 256))
    assert result.summary()["answered"] == 1


# ------------------------------------------------------------------------------ what stays, and key


def test_features_are_dropped_with_the_last_unit_unless_they_are_asked_for(lab: Lab) -> None:
    tree = handed_on(
        pass_of("first", "encoder", 1), pass_of("second", "echo_features", 1), keep_features=False
    )
    dropped = store_of(lab.run(tree, noise(64, 64)))
    assert "passes/first/features" not in dropped.array_paths
    assert "passes/first/scores" in dropped.array_paths
    tree["output"]["keep_features"] = True
    assert "passes/first/features" in store_of(lab.run(tree, noise(64, 64))).array_paths


def test_no_features_are_stored_that_nobody_takes(lab: Lab) -> None:
    passes = [pass_of("first", "encoder", 1), pass_of("second", "encoder", 1)]
    tree = several_passes(passes)
    tree["output"]["keep_features"] = True
    assert not any("features" in p for p in store_of(lab.run(tree, noise(64, 64))).array_paths)


def test_features_say_whose_they_are_and_others_are_refused(lab: Lab) -> None:
    recipe = handed_on(pass_of("first", "encoder", 2), pass_of("second", "echo_features", 1))
    result = lab.run(recipe, noise(64, 64))
    store, plan = store_of(result), result.plan
    key = store.attributes("passes/first/features")["features"]
    assert key["image"] == plan.identity.quick_hash
    assert (key["pass"], key["downsample"], key["stride"], key["channels"]) == ("first", 2, 4, 3)
    assert len(key["model"]) == 32
    check_features(store, plan, plan.passes[1])
    metadata = result._path / "passes" / "first" / "features" / "zarr.json"
    tree = json.loads(metadata.read_text())
    tree["attributes"]["saccade"]["features"]["model"] = "another"
    metadata.write_text(json.dumps(tree))
    with pytest.raises(StoreError, match=r"'second' takes features of 'first'.*--force"):
        check_features(ImageStore.open(result._path), plan, plan.passes[1])


@pytest.mark.parametrize("how", [{}, TILED, TILED | {"blend": "hann", "window": 32, "halo": 8}])
def test_a_declared_confidence_is_stored_beside_the_scores(lab: Lab, how: dict[str, Any]) -> None:
    image = noise(HEIGHT, WIDTH)
    result = lab.run(several_passes([pass_of("only", "encoder", 1, **how)], "uint8"), image)
    confidence = result.passes["only"].confidence
    assert confidence is not None
    np.testing.assert_array_equal(np.asarray(confidence), 255 - image[..., 0])
    assert result.passes["only"].saliency is None


def test_the_next_pass_looks_where_the_model_is_least_confident(lab: Lab) -> None:
    image = np.full((128, 128, 3), 9, np.uint8)
    image[32:64, 64:96] = 200  # bright is where ``encoder`` is unsure
    unsure = pass_of("glance", "encoder", 2, tile=16)
    unsure["model"]["saliency"] = "confidence"
    chosen = {"by": "top_k", "k": 1, "signal": "saliency", "statistic": "mean"}
    result = lab.run(
        several_passes([unsure, pass_of("look", "echo", 1, tile=32, select=chosen)]), image
    )
    assert np.argwhere(result.passes["look"].status).tolist() == [[1, 2]]


def test_saliency_by_attention_is_stored_at_the_scores_places(lab: Lab) -> None:
    """One map per window, 1 at the place that most of the answer goes back to."""
    options = {"reach": "window", "attention": True}
    attentive = network("glance", 1, 2, options=options, tile=64, halo=0)
    attentive["model"]["saliency"] = "attention"
    result = lab.run(several_passes([attentive], chunk=32, shard=32), noise(128, 192))
    saliency = result.passes["glance"].saliency
    assert saliency is not None
    found = np.asarray(saliency)
    assert found.shape == (64, 96)
    windows = found.reshape(2, 32, 3, 32).max((1, 3))
    assert (windows == 255).all()
    tokens = found.reshape(16, 4, 24, 4)
    assert (tokens == tokens[:, :1, :, :1]).all()


def test_features_are_measured_with_where_settings_are_left_to_measurement(lab: Lab) -> None:
    first = network("first", 2, 1)
    second = network("second", 1, 1, options={"features": True}, tile=64)
    recipe = handed_on(first, second) | {"precision": "auto", "tolerance": {"mean": 1, "labels": 0}}
    result = lab.run(recipe, noise(256, 256))
    assert result.plan.passes[1].takes is not None


# ---------------------------------------------------------------------- plans, workers, resumption


def test_a_plan_with_features_comes_back_and_one_of_before_them_still_loads(lab: Lab) -> None:
    recipe = handed_on(pass_of("first", "encoder", 2), pass_of("second", "echo_features", 1))
    plan = lab.run(recipe, noise(64, 64)).plan
    assert ImagePlan.from_json(plan.to_json()) == plan
    tree = json.loads(plan.to_json())
    for one in tree["passes"]:
        for name in ("gives", "takes", "confidence"):
            del one[name]
    old = ImagePlan.from_json(json.dumps(tree))
    assert [one.flow.facts for one in old.passes] == [{}, {}]


def recipe_for_all() -> Recipe:
    """Features over tiles, guidance, selection, two resolutions and two depths."""
    chosen = {"by": "top_fraction", "fraction": 0.5}
    how = {"tile": 64, "window": 64, "batch": 2, "guidance": True, "features": True}
    guided = {"guidance": 1}
    passes = [
        network("glance", 4, 1, tile=32, window=64),
        network("focus", 2, 2, options=guided | {"features": True}, **how),
        network("deeper", 2, 3, options=guided | {"start": 2}, select=chosen, **how),
        network("refine", 1, 3, options=guided | {"features": True}, select=chosen, **how),
    ]
    return Recipe.model_validate(several_passes(passes, "uint8", chunk=32, shard=64))


def made_by(workers: str, folder: Path, image: Path) -> Path:
    summary = run(recipe_for_all(), [image], folder, RunOptions(workers=workers, device="cpu"))
    assert summary.complete, summary.quarantined
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Path]) -> Path:
    return make_image(tmp_path_factory.mktemp("images") / "one.tif", 397, 509, 3)


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, image: Path, results: Results
) -> dict[str, bytes]:
    return results(made_by("local:1", tmp_path_factory.mktemp("reference") / "run", image))


@pytest.mark.parametrize("workers", ["local:2", pytest.param("ray:2", marks=pytest.mark.slow)])
def test_workers_of_either_kind_give_the_same_bytes(
    tmp_path: Path, image: Path, results: Results, reference: dict[str, bytes], workers: str
) -> None:
    found = results(made_by(workers, tmp_path / "run", image))
    assert found == reference


class Killed(BaseException):
    """Stands for SIGKILL of the driver: no handler of the run's own catches it for good."""


@pytest.mark.parametrize("records", [4, 11, 19])
def test_a_run_that_ended_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path,
    image: Path,
    results: Results,
    reference: dict[str, bytes],
    records: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written, write_all = [], journal._write_all

    def ends(descriptor: int, data: bytes) -> None:
        written.append(len(data))
        if len(written) > records:
            raise Killed
        write_all(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write_all", ends)
        with pytest.raises(Killed):
            made_by("local:1", tmp_path / "run", image)
    assert results(made_by("local:1", tmp_path / "run", image)) == reference
