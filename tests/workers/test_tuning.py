"""Which setting runs: frozen once, the same for everybody, whatever the clock says later."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_models
import numpy as np
import pytest
import torch
from fakes import Lab, noise, pass_of, several_passes
from safetensors.torch import save_file

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import StoreError
from saccade.pipeline.execution import Calibration, ExecutionSetting, SearchSpace, Trial
from saccade.pipeline.recipe import Recipe, Tolerance
from saccade.pipeline.result import open_result
from saccade.workers.calibration import Subject
from saccade.workers.context import WorkerContext
from saccade.workers.folder import RunFolder
from saccade.workers.settings_shelf import (
    cache_folder,
    freeze,
    read_cached,
    read_frozen,
    write_cached,
)
from saccade.workers.tasks import WorkerSpec

SETTING = ExecutionSetting("float32", False, 64, 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder()
    assert folder is not None
    return folder


def calibration(seconds_per_megapixel: float = 1.0) -> Calibration:
    trial = Trial(SETTING, seconds_per_megapixel, 0.0, 1.0)
    return Calibration((trial,), trial, 0.5, "a device", "an image")


# ------------------------------------------------------------------------------ frozen and cached

parse = Calibration.from_dict


def test_the_first_calibration_holds_and_everybody_reads_it(tmp_path: Path) -> None:
    first, second = calibration(1.0), calibration(2.0)
    assert read_frozen(tmp_path, "key", parse) is None
    assert freeze(tmp_path, "key", first, parse) == first
    assert freeze(tmp_path, "key", second, parse) == first
    assert read_frozen(tmp_path, "key", parse) == first


def test_those_who_race_get_the_same_calibration_and_leave_nothing_behind(tmp_path: Path) -> None:
    count = 16
    line = threading.Barrier(count)
    got: list[Calibration] = []

    def racer(index: int) -> None:
        line.wait()
        got.append(freeze(tmp_path, "key", calibration(1.0 + index), parse))

    threads = [threading.Thread(target=racer, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == count
    assert set(got) == {read_frozen(tmp_path, "key", parse)}
    assert [path.name for path in tmp_path.iterdir()] == ["key.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"trials": []}', '{"trials": 3}'])
def test_a_frozen_setting_that_makes_no_sense_stops_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(StoreError, match=r"key\.json.*restore it, or use a new folder"):
        read_frozen(tmp_path, "key", parse)


@pytest.mark.parametrize("text", ["", "[]", '{"trials": []}', '{"trials": 3}'])
def test_a_cache_that_makes_no_sense_is_measured_anew_and_replaced(cache: Path, text: str) -> None:
    cache.mkdir(parents=True)
    (cache / "key.json").write_text(text)
    assert read_cached(cache, "key", parse) is None
    write_cached(cache, "key", calibration())
    assert read_cached(cache, "key", parse) == calibration()


def test_a_cache_that_can_t_be_written_is_no_error(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    write_cached(in_the_way / "saccade", "key", calibration())
    assert read_cached(in_the_way / "saccade", "key", parse) is None
    write_cached(None, "key", calibration())
    assert read_cached(None, "key", parse) is None


# ------------------------------------------------------------------------------------------- runs


class Measured:
    """Stands for ``calibrate``: the clock favours one arithmetic; counts how often it is asked."""

    def __init__(self, favourite: str) -> None:
        self.favourite, self.asked = favourite, 0

    def __call__(
        self, subject: Subject, space: SearchSpace, tolerance: Tolerance, seconds: float
    ) -> tuple[Trial, ...]:
        self.asked += 1
        settings = [replace(space.reference, precision=p) for p in space.precisions]
        return tuple(
            Trial(s, 0.1 if s.precision == self.favourite else 1.0, 0.0, 1.0) for s in settings
        )


Clock = Callable[[str], Measured]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """``clock('bfloat16')``: from now on that is measured as the fastest."""

    def favour(precision: str) -> Measured:
        measured = Measured(precision)
        monkeypatch.setattr("saccade.workers.tuning.calibrate", measured)
        return measured

    return favour


def recipe(lab: Lab, precision: str = "auto") -> dict[str, Any]:
    torch.manual_seed(2027)
    weights = lab.folder / "net.safetensors"
    save_file(fake_models.ConvNet().state_dict(), weights)
    net = {"weights": str(weights), "tile": 32}
    passes = [pass_of("glance", "echo", 4, tile=16), pass_of("refine", "ConvNet", 1, **net)]
    return several_passes(passes, precision=precision)


def arrays(folder: Path, name: str = "one") -> dict[str, bytes]:
    root = RunFolder(folder).result(name)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "zarr.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def precisions(folder: Path, name: str = "one") -> list[str]:
    return [layout.precision for layout in RunFolder(folder).read_image_plan(name).passes]


def test_the_chosen_setting_is_in_the_plan_the_receipt_and_the_result(
    lab: Lab, clock: Clock
) -> None:
    clock("bfloat16")
    folder = lab.run_all(recipe(lab), {"one": noise(131, 97)}).folder
    assert precisions(folder) == ["bfloat16", "bfloat16"]
    (journal,) = RunFolder(folder).journal.glob("*.jsonl")
    lines = map(json.loads, journal.read_text().splitlines())
    (receipt,) = [line for line in lines if line.get("step") == "prepare"]
    said = receipt["settings"]["refine"]
    assert said["precision"] == "bfloat16"
    assert (said["mean_error"], said["tried"]) == (0, 2)
    plan = open_result(folder).facts["plan"]
    assert [one["precision"] for one in plan["passes"]] == ["bfloat16", "bfloat16"]
    kept = [json.loads(path.read_text()) for path in RunFolder(folder).settings.iterdir()]
    assert len(kept) == 2
    assert all(len(one["trials"]) == 2 for one in kept)


def test_the_arithmetic_that_was_chosen_is_the_one_that_runs(lab: Lab, clock: Clock) -> None:
    image = noise(131, 97)
    clock("bfloat16")
    auto = lab.run_all(recipe(lab), {"one": image}).folder
    pinned = lab.run_all(recipe(lab, "bfloat16"), {"one": image}).folder
    reference = lab.run_all(recipe(lab, "float32"), {"one": image}).folder
    assert arrays(auto) == arrays(pinned)
    assert arrays(auto) != arrays(reference)
    gap = np.abs(np.asarray(open_result(auto).fused) - np.asarray(open_result(reference).fused))
    assert gap.mean() <= Tolerance().mean


def test_auto_that_settles_on_the_reference_gives_its_bytes(lab: Lab, clock: Clock) -> None:
    image = noise(131, 97)
    clock("float32")
    auto = lab.run_all(recipe(lab), {"one": image}).folder
    reference = lab.run_all(recipe(lab, "float32"), {"one": image}).folder
    assert arrays(auto) == arrays(reference)


def test_a_pinned_arithmetic_measures_nothing_and_writes_no_setting(
    lab: Lab, clock: Clock, cache: Path
) -> None:
    measured = clock("bfloat16")
    folder = lab.run_all(recipe(lab, "float32"), {"one": noise(131, 97)}).folder
    assert measured.asked == 0
    assert not RunFolder(folder).settings.exists()
    assert not cache.exists()
    assert precisions(folder) == ["float32", "float32"]


def test_a_run_that_goes_on_keeps_its_setting_although_the_clock_says_otherwise_now(
    lab: Lab, clock: Clock, cache: Path
) -> None:
    tree = Recipe.model_validate(recipe(lab))
    entries = [lab.entry(name, noise(131, 97)) for name in ("one", "two")]
    options = RunOptions(workers="local:1", device="cpu")
    folder = lab.folder / "run"
    clock("bfloat16")
    run(tree, entries[:1], folder, options, model_folder=lab.models)
    for path in cache.iterdir():
        path.unlink()
    measured = clock("float32")
    run(tree, entries[1:], folder, options, model_folder=lab.models)
    assert measured.asked == 0
    assert precisions(folder, "two") == precisions(folder, "one") == ["bfloat16", "bfloat16"]
    assert arrays(folder, "two") == arrays(folder, "one")


def test_an_image_that_is_prepared_once_more_gets_the_same_plan(lab: Lab, clock: Clock) -> None:
    tree = Recipe.model_validate(recipe(lab))
    spec = WorkerSpec(lab.folder / "run", tree.canonical_json(), lab.models)
    entry = lab.entry("one", noise(131, 97))
    clock("bfloat16")
    before = WorkerContext(spec).resolve(entry, cache=None).plan
    measured = clock("float32")
    after = WorkerContext(spec).resolve(entry, cache=None, fresh=True).plan
    assert measured.asked == 0
    assert after == before


@pytest.mark.parametrize("workers", ["local:1", "local:2"])
def test_another_run_finds_the_setting_in_the_cache_and_gives_the_same_bytes(
    lab: Lab, clock: Clock, workers: str
) -> None:
    image = noise(131, 97)
    clock("bfloat16")
    first = lab.run_all(recipe(lab), {"one": image}).folder
    measured = clock("float32")
    second = lab.run_all(recipe(lab), {"one": image}, workers).folder
    assert measured.asked == 0
    assert arrays(second) == arrays(first)


def test_other_weights_another_tolerance_and_another_tile_are_measured_anew(
    lab: Lab, clock: Clock
) -> None:
    clock("bfloat16")
    lab.run_all(recipe(lab), {"one": noise(131, 97)})
    measured = clock("bfloat16")
    lab.run_all(recipe(lab), {"one": noise(131, 97)})
    assert measured.asked == 0
    lab.run_all(recipe(lab) | {"tolerance": {"mean": 0.01}}, {"one": noise(131, 97)})
    assert measured.asked == 2
    tree = recipe(lab)
    tree["passes"][1]["tile"] = 16
    lab.run_all(tree, {"one": noise(131, 97)})
    assert measured.asked == 3
    tree = recipe(lab)
    save_file(fake_models.ConvNet().state_dict(), tree["passes"][1]["model"]["weights"])
    lab.run_all(tree, {"one": noise(131, 97)})
    assert measured.asked == 4


def test_an_image_may_pin_its_own_arithmetic(lab: Lab, clock: Clock) -> None:
    clock("bfloat16")
    plain = lab.entry("plain", noise(131, 97))
    pinned = replace(lab.entry("pinned", noise(131, 97)), overrides={"precision": "float32"})
    options = RunOptions(workers="local:1", device="cpu")
    tree = Recipe.model_validate(recipe(lab))
    folder = run(tree, [plain, pinned], lab.folder / "r", options, model_folder=lab.models).folder
    assert precisions(folder, "plain") == ["bfloat16", "bfloat16"]
    assert precisions(folder, "pinned") == ["float32", "float32"]


def test_what_is_really_measured_runs_and_is_within_the_tolerance(lab: Lab) -> None:
    image = noise(307, 401)
    auto = lab.run(recipe(lab), image)
    reference = lab.run(recipe(lab, "float32"), image)
    gap = np.abs(np.asarray(auto.fused) - np.asarray(reference.fused))
    assert gap.mean() <= 2 * Tolerance().mean  # the tolerance holds on the tiles measured on
