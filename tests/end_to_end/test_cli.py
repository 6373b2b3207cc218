"""The command line: exit codes, what is printed, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.jobs import workforce
from saccade.jobs.cli import main

Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
Call = Callable[..., tuple[int, str]]
LOCAL = ("--workers", "local:1")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command in this process: its exit code, and all that it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["saccade", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out + printed.err

    return call


def refused(call: Call, code: int, *arguments: object) -> str:
    """What is said to a mistake."""
    found, said = call(*arguments)
    assert "Traceback" not in said
    assert found == code, said
    assert said.strip()
    return said


def succeeds(call: Call, *arguments: object) -> None:
    code, said = call(*arguments)
    assert code == 0, said


@pytest.fixture(scope="module")
def finished(inputs: Path, saccade: Saccade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one image."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done = saccade("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", run, *LOCAL)
    assert done.returncode == 0, done.stderr
    return run


def test_a_complete_run_exits_0_and_says_where_the_results_are(
    finished: Path, inputs: Path, saccade: Saccade
) -> None:
    again = saccade("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", finished, *LOCAL)
    assert again.returncode == 0
    assert str(finished / "results") in again.stdout
    assert again.stderr == ""


def test_progress_is_plain_lines_where_there_is_no_terminal(
    finished: Path, inputs: Path, saccade: Saccade
) -> None:
    again = saccade("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", finished, *LOCAL)
    assert "1/1 images" in again.stdout
    assert "\x1b" not in again.stdout + again.stderr


def test_status_counts_what_the_journal_says(finished: Path, saccade: Saccade) -> None:
    told = json.loads(saccade("status", finished, "--json").stdout)
    assert told["images"] == {"waiting": 0, "running": 0, "complete": 1, "quarantined": 0}
    assert told["by_image"]["two"]["state"] == "complete"
    table = saccade("status", finished)
    assert table.returncode == 0
    assert "complete" in table.stdout


def test_a_moved_run_folder_is_opened_and_gone_on_with(
    finished: Path,
    inputs: Path,
    saccade: Saccade,
    results: Callable[[Path], dict[str, bytes]],
    expected: dict[str, bytes],
    tmp_path: Path,
) -> None:
    moved = tmp_path / "elsewhere" / "moved"
    first = tmp_path / "first"
    saccade("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", first, *LOCAL)
    moved.parent.mkdir()
    first.rename(moved)
    images = inputs / "one.tif", inputs / "two.tif"
    done = saccade("run", inputs / "recipe.yaml", *images, "-o", moved, *LOCAL)
    assert done.returncode == 0, done.stderr
    assert results(moved) == expected
    assert str(first) not in saccade("status", moved, "--json").stdout


# --------------------------------------------------------------------------- what can't be resumed


def test_another_recipe_is_refused_with_the_difference_and_force_starts_over(
    inputs: Path, call: Call, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((inputs / "recipe.yaml").read_text())
    command = ("run", recipe, inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    succeeds(call, *command)
    recipe.write_text(recipe.read_text().replace("fraction: 0.4", "fraction: 0.5"))
    said = refused(call, 2, *command)
    assert "passes[2].select.fraction: 0.4 -> 0.5" in said
    assert "--force" in said
    succeeds(call, *command, "--force")
    succeeds(call, *command)


def test_other_weights_are_refused(inputs: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(PLAIN_MODEL)
    (tmp_path / "recipe.yaml").write_text(PLAIN_RECIPE)
    command = ("run", tmp_path / "recipe.yaml", inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    succeeds(call, *command)
    (tmp_path / "model.py").write_text(PLAIN_MODEL.replace("0.5", "0.25"))
    said = refused(call, 2, *command)
    assert "model_hashes.only" in said


def test_a_changed_image_is_refused_and_force_makes_only_that_one_again(
    make_image: Callable[..., Path], inputs: Path, call: Call, tmp_path: Path
) -> None:
    changing = make_image(tmp_path / "changing.tif", 310, 410, seed=3)
    images = changing, inputs / "two.tif"
    run = tmp_path / "run"
    command = ("run", inputs / "recipe.yaml", *images, "-o", run, *LOCAL)
    succeeds(call, *command)
    other = run / "results" / "two.ome.zarr" / "zarr.json"
    before = other.stat().st_mtime_ns
    make_image(changing, 310, 530, seed=5)
    said = refused(call, 2, *command)
    assert "changing" in said
    assert "bytes" in said
    succeeds(call, *command, "--force")
    assert other.stat().st_mtime_ns == before
    succeeds(call, *command)


def test_a_run_that_has_made_nothing_yet_takes_another_recipe(
    inputs: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(PLAIN_MODEL.replace("return Plain()", "return no_such_name"))
    (tmp_path / "recipe.yaml").write_text(PLAIN_RECIPE)
    command = ("run", tmp_path / "recipe.yaml", inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    refused(call, 1, *command)
    (tmp_path / "model.py").write_text(PLAIN_MODEL)
    succeeds(call, *command)


# ---------------------------------------------------------------------------------- user's mistakes

PLAIN_MODEL = """
import torch

class Plain(torch.nn.Module):
    def forward(self, x):
        return x.mean(1, keepdim=True) * 0.5

def build():
    return Plain()
"""

PLAIN_RECIPE = """
passes:
  - name: only
    resolution: {downsample: 2}
    model:
      {source: "model.py:build", classes: [a], halo: 0, stride: 1, channels: 3, activation: none}
    tile: 64
output: {chunk: 64, shard: 256}
"""

ONE_PASS = """
passes:
  - {{name: only, resolution: {resolution}, model: {model}, tile: 64}}
output: {{chunk: 64, shard: 256}}
"""


def recipe_with(folder: Path, resolution: str = "{downsample: 2}", model: str = "builtin:tissue"):
    path = folder / "mistake.yaml"
    path.write_text(ONE_PASS.format(resolution=resolution, model=f'"{model}"'))
    return path


def test_a_missing_recipe_is_named(inputs: Path, call: Call, tmp_path: Path) -> None:
    said = refused(call, 2, "run", "nowhere.yaml", inputs / "two.tif", "-o", tmp_path, *LOCAL)
    assert "nowhere.yaml" in said


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("passes: [", "not valid YAML"),
        ("passes: []", "passes"),
        ("- 3", "mapping"),
        ("passes: [{nam: x}]", "did you mean 'name'?"),
        ("\x00", "YAML"),
    ],
)
def test_a_bad_recipe_is_explained(
    text: str, hint: str, inputs: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    run = tmp_path / "run"
    said = refused(call, 2, "run", tmp_path / "bad.yaml", inputs / "two.tif", "-o", run, *LOCAL)
    assert hint in said
    assert not run.exists()


def test_missing_images_are_all_named(inputs: Path, call: Call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = tmp_path / "a.svs", tmp_path / "b.svs"
    said = refused(call, 2, "run", inputs / "recipe.yaml", *images, "-o", run, *LOCAL)
    assert "a.svs" in said
    assert "b.svs" in said
    assert not run.exists()


@pytest.mark.parametrize(
    ("manifest", "hint"),
    [
        ("image,name\n{image},../outside\n", "../outside"),
        ("image,name\n{image},/absolute\n", "/absolute"),
        ("image,name\n{image},\u202egpj\n", "letters, digits"),
        ("image,mpp\n{image},-3\n", "mpp"),
        ("image,mpp\n{image},inf\n", "mpp"),
        ("picture\n{image}\n", "picture"),
        ("image,passes.nowhere.tile\n{image},64\n", "nowhere"),
        ("image,passes.glance.tile\n{image},many\n", "tile"),
        ("image\n{image}\n{image}\n", "each its own 'name'"),
        ("image\nmissing.svs\n", "missing.svs"),
    ],
)
def test_a_bad_manifest_is_explained(
    manifest: str, hint: str, inputs: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text(manifest.format(image=inputs / "two.tif"))
    run = tmp_path / "runs" / "run"
    said = refused(call, 2, "run", inputs / "recipe.yaml", tmp_path / "m.csv", "-o", run, *LOCAL)
    assert hint in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv"]


def test_an_output_that_is_no_folder_is_explained(inputs: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run", "/proc/nowhere/run"):
        said = refused(
            call, 1, "run", inputs / "recipe.yaml", inputs / "two.tif", "-o", out, *LOCAL
        )
        assert str(out) in said


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("builtin:tisue", "did you mean 'tissue'?"),
        ("nowhere.py:build", "nowhere.py"),
        ("nowhere.pt2", "nowhere.pt2"),
        ("no.such.module:build", "no"),
    ],
)
def test_a_missing_model_is_named(
    model: str, hint: str, inputs: Path, call: Call, tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, model=model)
    said = refused(call, 1, "run", recipe, inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    assert hint in said


def test_missing_weights_are_named(inputs: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(PLAIN_MODEL)
    (tmp_path / "recipe.yaml").write_text(
        PLAIN_RECIPE.replace('"model.py:build",', '"model.py:build", weights: nowhere.safetensors,')
    )
    arguments = ("run", tmp_path / "recipe.yaml", inputs / "two.tif", "-o", tmp_path / "run")
    assert "nowhere.safetensors" in refused(call, 1, *arguments, *LOCAL)


def test_an_image_with_other_channels_than_the_model_takes_is_set_aside(
    inputs: Path, call: Call, tmp_path: Path
) -> None:
    import numpy as np
    import tifffile

    grey = np.zeros((300, 300), np.uint8)
    tifffile.imwrite(tmp_path / "grey.tif", grey, tile=(128, 128), photometric="minisblack")
    recipe = recipe_with(tmp_path, model="builtin:hematoxylin")
    images = tmp_path / "grey.tif", inputs / "two.tif"
    said = refused(call, 3, "run", recipe, *images, "-o", tmp_path / "run", *LOCAL)
    assert "channels" in said
    assert "1 results" in said


def test_an_image_without_pixel_size_is_set_aside_until_mpp_is_given(
    inputs: Path, call: Call, tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, resolution="{mpp: 1.0}")
    command = ("run", recipe, inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    said = refused(call, 3, *command)
    assert "--mpp" in said
    assert "two" in said
    code, said = call(*command, "--mpp", "0.5")
    assert code == 0, said


def test_what_was_set_aside_is_tried_again_with_retry(
    make_image: Callable[..., Path], inputs: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and nothing more")
    command = ("run", inputs / "recipe.yaml", tmp_path / "broken.tif", "-o", tmp_path / "run")
    assert "saccade retry" in refused(call, 3, *command, *LOCAL)
    make_image(tmp_path / "broken.tif", 310, 410, seed=3)
    refused(call, 3, *command, *LOCAL)
    code, said = call(*command, *LOCAL, "--retry")
    assert code == 0, said


def test_a_gpu_that_is_not_there_is_refused(
    inputs: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", tmp_path / "run", *LOCAL)
    monkeypatch.setattr(workforce, "gpu_count", lambda: 0)
    assert "no GPU" in refused(call, 2, *command, "--device", "cuda")
    assert "warp" in refused(call, 2, *command, "--device", "warp")


@pytest.mark.parametrize("workers", ["many", "ray:0", "local:-1", "", "ray:x"])
def test_bad_workers_are_refused(workers: str, inputs: Path, call: Call, tmp_path: Path) -> None:
    command = ("run", inputs / "recipe.yaml", inputs / "two.tif", "-o", tmp_path / "run")
    assert "--workers" in refused(call, 2, *command, "--workers", workers)


def test_a_folder_that_is_no_run_has_no_status(call: Call, tmp_path: Path) -> None:
    assert "not a run folder" in refused(call, 2, "status", tmp_path)
    assert "not a run folder" in refused(call, 2, "status", tmp_path / "nowhere")


def test_an_unknown_verb_or_option_exits_2(call: Call) -> None:
    refused(call, 2, "walk")
    refused(call, 2, "run", "--speed", "11")


def test_help_and_version_exit_0(call: Call) -> None:
    assert "saccade 0" in refused(call, 0, "--version")
    assert "--workers" in refused(call, 0, "run", "--help")
