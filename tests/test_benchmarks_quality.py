"""The quality benchmark on generated images whose truth is known, with models without weights."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
SIDE_PX = 512
RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {downsample: 8}
    model: {source: builtin:hematoxylin, options: {radius_px: 1}}
  - name: focus
    resolution: {downsample: 4}
    model: {source: builtin:hematoxylin, options: {radius_px: 2}}
    tile: 32
    select: {by: top_fraction, fraction: 0.6, statistic: mean}
  - name: refine
    resolution: {downsample: 1}
    model: {source: builtin:hematoxylin, options: {radius_px: 3}}
    tile: 64
    select: {by: top_fraction, fraction: 0.3, statistic: mean}
output: {chunk: 64, shard: 256, keep: [refine]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pink tissue on glass with dark nuclei, which are the truth; two test images and one other."""
    listed = []
    for index in range(3):
        random = np.random.default_rng(index)
        y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
        pixels = np.full((SIDE_PX, SIDE_PX, 3), 242, np.uint8)
        pixels[(y - 256) ** 2 + (x - 230) ** 2 < 200**2] = (228, 180, 205)
        bits = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        for cy, cx in random.integers(120, 330, (29, 2)):
            bits[(y - cy) ** 2 + (x - cx) ** 2 < random.integers(9, 64)] = 1
        pixels[bits == 1] = (90, 60, 140)
        pixels = (pixels.astype(int) + random.integers(-4, 5, pixels.shape)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"p{index}.jpg", quality=95)
        Image.fromarray(bits).save(tmp_path / f"p{index}_bits.png")
        listed.append({"id": f"p{index}", "split": "test" if index < 2 else "train"})
    (tmp_path / "manifest.json").write_text(json.dumps(listed))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.slow
def test_the_curve_is_measured_and_what_is_there_is_not_measured_again(folder: Path) -> None:
    out = folder / "quality"
    ready = folder / "ready"
    run("idrid.py", folder, "-o", ready, "--validation", 1)
    told = (
        *("--recipe", folder / "recipe.yaml", "--workers", "local:1", "--processes", 1),
        *("--foreground", "builtin:tissue", "--contrast", "builtin:hematoxylin"),
        *("--shares", 0.3, "--repeats", 0, "-o", out),
    )
    said = run("quality.py", ready, *told)
    assert "every stored score are those of the real run" in said
    with (out / "quality.csv").open(newline="") as file:
        found = {
            (row["way"], row["share"], row["metric"]): float(row["value"])
            for row in csv.DictReader(file)
            if row["class"] == "" and row["value"]
        }
    covered = "lesion pixels covered"
    assert found["oracle", "0.3", covered] >= found["learned", "0.3", covered]
    assert found["learned", "0.3", covered] > found["random", "0.3", covered]
    assert found["dense", "", "labels equal"] == 1
    assert found["glance", "", "tiles"] == 0
    assert found["learned", "0.3", "whole-image passes"] < found["one pass", "", "MP"]
    with Image.open(out / "quality.png") as plot:
        assert plot.size[0] > 1000

    reports = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    run("quality.py", ready, *told)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("report.json")} == reports


def test_passes_before_the_last_visit_more_tiles_as_the_recipe_s_fractions_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import quality_recipes as recipes

    from saccade.pipeline.recipe_file import parse_recipe

    recipe = parse_recipe(RECIPE)
    assert recipes.ratios(recipe) == (2.0, 1.0)
    budget = parse_recipe(
        RECIPE.replace("by: top_fraction, fraction: 0.3", "by: budget, share: 0.15")
    )
    assert recipes.ratios(budget) == (4.0, 1.0)
    assert recipes.counts_at(0.1, (50, 700), recipes.ratios(recipe)) == (10, 70)
    assert recipes.counts_at(0.7, (50, 700), recipes.ratios(recipe)) == (50, 490)
    told = recipes.by_count(recipe, (10, 70))
    assert told["passes.refine.select"]["k"] == 70
    assert told["passes.refine.select"]["statistic"] == "mean"
