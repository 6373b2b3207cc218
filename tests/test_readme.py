"""What README shows works as it is written there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mosaics import COLUMN, RESOLUTION, ROW, write_tif

from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.recipe_file import load_recipe, parse_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = ("make", "pip")
"""Commands that install; `.ci/run` is what runs them, in a clean clone."""
VERBS = {"run", "status", "show", "inspect", "plan", "manifest", "report", "export"}
"""That README shows in blocks that work as they stand."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[list[str]]:
    for block in blocks("bash"):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: the examples, a slide, a raster and a city in it."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "examples").symlink_to(ROOT / "examples")
    write_sample_slide(folder / "slides" / "sample.tif", side_px=1024)
    write_land(folder / "scenes")
    return folder


def write_land(folder: Path) -> None:
    """An island of 255 in a sea of 0, and a square on its coast."""
    folder.mkdir()
    rows, columns = np.ogrid[:1024, :1024]
    island = (rows - 600) ** 2 + (columns - 500) ** 2 < 300**2
    write_tif(folder / "land.tif", [(255 * island).astype(np.uint8)[..., None]])
    west, north = COLUMN + 150 * RESOLUTION, ROW - 550 * RESOLUTION
    east, south = west + 100 * RESOLUTION, north - 100 * RESOLUTION
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    city = {"type": "Polygon", "coordinates": [corners], "crs": crs}
    (folder / "city.geojson").write_text(json.dumps(city))


def run_in(folder: Path, words: list[str]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_command_of_the_readme_works_in_the_order_of_the_text(desk: Path) -> None:
    shown = [words for words in commands() if words[0] not in SET_UP]
    assert {words[1] for words in shown} == VERBS
    for words in shown:
        assert run_in(desk, words)
    assert list((desk / "run" / "pictures").glob("*.png"))
    endings = (".labels.tif", ".scores.tif", ".geojson", ".regions.parquet", ".stac.json")
    assert all((desk / "coast" / "exports" / f"land{ending}").is_file() for ending in endings)


@pytest.mark.slow
def test_the_python_of_the_readme_works_as_it_stands(desk: Path) -> None:
    (program,) = blocks("python")
    printed = run_in(desk, [sys.executable, "-c", program])
    assert printed.startswith("sample ('nuclei',) (1, 1024, 1024)")


def test_make_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {words[1] for words in commands() if words[0] == "make"}
    assert named == {"demo", "test"}
    for target in named | set(re.findall(r"`make (\w+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("recipe", blocks("yaml"))
def test_recipes_of_the_readme_are_some(recipe: str) -> None:
    assert [one.name for one in parse_recipe(recipe).passes] == ["glance", "refine"]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_a_recipe(path: Path) -> None:
    assert load_recipe(path).passes


def test_every_file_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|examples|benchmarks)/[\w./-]+)`", README))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", README))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_install_comes_before_line_15_and_python_before_line_40() -> None:
    lines = README.splitlines()
    assert next(i for i, line in enumerate(lines, 1) if "make demo" in line) < 15
    assert lines.index("```python") < 40
