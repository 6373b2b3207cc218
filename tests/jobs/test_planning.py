from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml
from fakes import noise, one_pass, pass_of, several_passes
from typer.testing import CliRunner

from saccade.jobs.cli import app
from saccade.jobs.planning import plan_image
from saccade.jobs.rehearsal import Conditions
from saccade.pipeline.errors import UnitTooLarge

MIB = 2**20


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(512, 768), tile=(64, 64), photometric="rgb")
    return str(path)


def write(models: Path, tree: dict[str, Any]) -> Path:
    path = models / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_plan_says_what_a_run_then_does(model_folder: Path, image: str, tmp_path: Path) -> None:
    from saccade.jobs.driver import run
    from saccade.jobs.monitoring.status import read_tally
    from saccade.jobs.options import RunOptions
    from saccade.workers.folder import RunFolder

    select = {"by": "top_fraction", "fraction": 0.25}
    passes = [pass_of("glance", "echo", 4) | {"resolution": "auto"}]
    tree = several_passes([*passes, pass_of("look", "ConvNet", 1, tile=64, select=select)])
    recipe = write(model_folder, tree)
    device = "simulated:8MB:1:10"
    schedule = plan_image(recipe, image, Conditions(device, "local:1"))
    summary = run(recipe, [image], tmp_path / "run", RunOptions(workers="local:1", device=device))
    plan = RunFolder(summary.folder).read_image_plan("image")
    assert tuple(one.layout for one in schedule.passes) == plan.passes
    tally = read_tally(summary.folder).images["image"]
    for one in schedule.passes:
        done = tally.tiles[one.layout.name]["done"]
        assert done == one.expected.tiles
        assert tally.pixels[one.layout.name] == pytest.approx(one.expected.pixels, rel=0.5)
        assert one.account is not None
        said = dict(tally.memory[one.layout.name])
        measured = said.pop("measured_nbytes")
        assert said == {k: v for k, v in one.account.to_dict().items() if k in said}
        assert measured <= one.account.allowed_nbytes
        assert one.seconds > 0
    assert schedule.workers == 1
    assert schedule.side_by_side >= 1


def test_a_plan_is_printed_for_people_and_for_programs(model_folder: Path, image: str) -> None:
    recipe = write(model_folder, one_pass("echo", tile=64))
    arguments = ["plan", str(recipe), image, "--device", "simulated:64MiB"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0
    for word in ("dense", "512 x 768", "96 of 64 px", "allowed", "projected", "computing"):
        assert word in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 80
    tree = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    (only,) = tree["passes"]
    assert only["pass"] == "dense"
    assert only["expected"]["tiles"] == 96
    assert only["memory"]["allowed_nbytes"] * tree["workers"] <= 64 * MIB


def test_what_passes_are_given_is_shown(model_folder: Path, image: str) -> None:
    passes = [
        pass_of("glance", "encoder", 4),
        pass_of("look", "echo_features", 1, tile=64, features=True),
    ]
    recipe = write(model_folder, several_passes(passes))
    arguments = ["plan", str(recipe), image, "--device", "simulated:64MiB"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "look is given 3 features per 4 px by glance" in said.stdout
    first, second = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["passes"]
    assert first["features"] == {"gives": [3, 4]}
    assert second["features"] == {"takes": [3, 4]}
    assert second["memory"]["projected_nbytes"] > 0


def test_what_can_not_fit_is_refused_with_the_worst_offender_and_the_remedy(
    model_folder: Path, image: str
) -> None:
    passes = [
        pass_of("glance", "echo", 4, tile=64, window=64),
        pass_of("look", "echo", 1, tile=256, window=512),
        pass_of("last", "echo", 1, tile=256, window=256),
    ]
    recipe = write(model_folder, several_passes(passes, shard=256))
    with pytest.raises(UnitTooLarge, match=r"^pass 'look': .* set a smaller 'batch', 'window'"):
        plan_image(recipe, image, Conditions("simulated:500kB:1:10", "local:1"))


def test_a_plan_leaves_nothing_behind(model_folder: Path, image: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan_image(write(model_folder, one_pass("echo")), image, Conditions("cpu", "local:1"))
    assert sorted(tmp_path.rglob("*")) == before
