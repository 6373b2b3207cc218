"""What `saccade tune` says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tifffile
from fakes import noise
from rich.console import Console
from typer.testing import CliRunner

from saccade.jobs.cli import app
from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.rehearsal import Conditions
from saccade.jobs.tuning import trials_table, tune
from saccade.pipeline.errors import SourceError
from saccade.pipeline.execution import Calibration, ExecutionSetting, Trial
from saccade.pipeline.recipe import Tolerance
from saccade.workers.settings_shelf import cache_folder

RECIPE = """\
passes:
  - {name: glance, resolution: {downsample: 4}, model: builtin:tissue, tile: 16}
  - name: refine
    resolution: {downsample: 1}
    model: {source: "fake_models.py:ConvNet", halo: 4}
    tile: 32
precision: PRECISION
"""
REFERENCE = ExecutionSetting("float32", False, 512, 1)


def printed(*parts: Any) -> str:
    text = io.StringIO()
    console = Console(file=text, width=140)
    for part in parts:
        console.print(part, highlight=False)
    return text.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder()
    assert folder is not None
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(307, 401), tile=(64, 64), photometric="rgb")
    return path


def recipe(models: Path, precision: str = "auto") -> Path:
    path = models / f"{precision}.yaml"
    path.write_text(RECIPE.replace("PRECISION", precision))
    return path


def test_every_pass_has_a_table_and_one_setting_that_is_chosen(
    model_folder: Path, image: Path
) -> None:
    text = printed(*tune(recipe(model_folder), str(image), Conditions("cpu")))
    assert "glance: measured in" in text
    assert "refine: measured in" in text
    assert text.count("->") == 2
    assert text.count("bfloat16") >= 2


def test_a_recipe_that_pins_its_arithmetic_is_told_what_auto_would_do(
    model_folder: Path, image: Path
) -> None:
    text = printed(*tune(recipe(model_folder, "float32"), str(image), Conditions("cpu")))
    assert "the recipe states precision: float32" in text


def test_a_run_after_tuning_measures_nothing(
    model_folder: Path, image: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(tune(recipe(model_folder), str(image), Conditions("cpu")))
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    monkeypatch.setattr("saccade.workers.tuning.calibrate", None)  # to call it would fail
    options = RunOptions(workers="local:1", device="cpu")
    summary = run(recipe(model_folder), [image], tmp_path / "run", options)
    assert len(summary.complete) == 1
    assert len(before) == 2
    assert {p.name: p.read_bytes() for p in (tmp_path / "run/settings").iterdir()} == before


def test_the_command_prints_the_tables_and_refuses_what_does_not_open(
    model_folder: Path, image: Path
) -> None:
    good = CliRunner().invoke(app, ["tune", str(recipe(model_folder)), str(image), "--fresh"])
    assert good.exit_code == 0, good.output
    assert "refine: measured in" in good.output
    bad = CliRunner().invoke(app, ["tune", str(recipe(model_folder)), str(image) + "x"])
    assert isinstance(bad.exception, SourceError)


def test_what_is_known_is_measured_again_only_when_asked(
    model_folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(tune(recipe(model_folder), str(image), Conditions("cpu")))
    asked: list[int] = []

    def measured(subject: Any, space: Any, *rest: Any) -> tuple[Trial, ...]:
        asked.append(subject.layout.index)
        return (Trial(space.reference, 0.25, 0.0, 1.0),)

    monkeypatch.setattr("saccade.workers.tuning.calibrate", measured)
    list(tune(recipe(model_folder), str(image), Conditions("cpu")))
    assert asked == []
    assert "4.00" in printed(*tune(recipe(model_folder), str(image), Conditions("cpu"), fresh=True))
    assert asked == [0, 1]
    assert "4.00" in printed(*tune(recipe(model_folder), str(image), Conditions("cpu")))
    assert asked == [0, 1]


def test_a_row_says_what_a_setting_costs_errs_by_and_why_it_is_out() -> None:
    reference = Trial(REFERENCE, 0.5, 0.0, 1.0)
    beyond = Trial(replace(REFERENCE, precision="bfloat16"), 0.125, 0.03, 0.9871, 3 * 2**20)
    refused = Trial.failed(replace(REFERENCE, precision="float16"), "no kernel")
    calibration = Calibration((reference, beyond, refused), reference, 1.0, "it", "one")
    rows = printed(trials_table(calibration, Tolerance())).splitlines()
    (first,) = [row for row in rows if "float32" in row]
    (second,) = [row for row in rows if "bfloat16" in row]
    (third,) = [row for row in rows if " float16" in row]
    assert first.split()[:1] == ["->"]
    assert "2.00" in first
    assert all(word in second for word in ("8.00", "3.0e-02", "98.710%", "beyond the tolerance"))
    assert "3.00 MiB" in second
    assert "refused: no kernel" in third
