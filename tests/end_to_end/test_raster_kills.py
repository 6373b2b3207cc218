"""Runs over a raster that is averaged anew, killed at any moment: an undisturbed run's bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.enums import Resampling
from rasterio.transform import Affine

from saccade.jobs.driver import RunSummary, run
from saccade.jobs.options import RunOptions
from saccade.pipeline.sources.level_file import LevelFile
from saccade.workers import context

Start = Callable[..., "subprocess.Popen[str]"]
Results = Callable[[Path], dict[str, bytes]]

HEIGHT, WIDTH, NODATA = 1900, 2300, 9
EAST, NORTH, METRES = 500_000.0, 4_600_000.0, 10.0
MODELS = Path(__file__).parents[1] / "fake_models.py"
MOST_KILLS, MOST_TRIES = 2, 12
NORMALISE = {"by": "percentiles", "low": 2, "high": 98}


def raster(path: Path) -> None:
    """Sparse bright pixels on noise with a hole, none of them where nearest resampling looks."""
    random_ = np.random.default_rng(5)
    pixels = random_.integers(100, 900, (2, HEIGHT, WIDTH)).astype(np.uint16)
    pixels[:, 5::16, 7::16] = 60_000
    pixels[:, 300:900, 1200:1900] = NODATA
    options = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 2, "dtype": "uint16"}
    options |= {"crs": "EPSG:32618", "transform": Affine(METRES, 0, EAST, 0, -METRES, NORTH)}
    tiling = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    with rasterio.open(path, "w", nodata=NODATA, **options, **tiling) as dataset:
        dataset.write(pixels)
        dataset.build_overviews([2, 4, 8, 16], Resampling.nearest)


def area(path: Path) -> None:
    """Half of the image, some of the hole in it."""
    corners = [(400, 100), (2200, 150), (1900, 1800), (350, 1500), (400, 100)]
    ring = [[EAST + x * METRES, NORTH - y * METRES] for x, y in corners]
    crs = {"type": "name", "properties": {"name": "EPSG:32618"}}
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring], "crs": crs}))


def recipe() -> dict[str, object]:
    model = {"source": f"{MODELS}:echo", "options": {"classes": 2}, "normalise": NORMALISE}
    glance = {"name": "glance", "resolution": {"downsample": 16}, "tile": 32, "model": model}
    glance["scaled"] = True
    look = {"name": "look", "resolution": {"downsample": 2}, "tile": 128, "model": model}
    look["select"] = {"by": "top_fraction", "fraction": 0.6}
    output = {"chunk": 128, "shard": 256, "keep": "all"}
    return {"version": 1, "passes": [glance, look], "area": "area.geojson", "output": output}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raster-kills")
    raster(folder / "scene.tif")
    area(folder / "area.geojson")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    return folder


def go(place: Path, out: Path, workers: str) -> None:
    options = RunOptions(workers=workers, device="cpu")
    summary = run(place / "recipe.yaml", [place / "scene.tif"], out, options)
    assert summary.complete == ("scene",), summary.quarantined
    assert not cached(out)


@pytest.fixture(scope="module")
def undisturbed(place: Path, results: Results) -> dict[str, bytes]:
    go(place, place / "undisturbed", "local:1")
    return results(place / "undisturbed")


def cached(run: Path) -> list[str]:
    """Files beside the run that hold levels, or are on the way there."""
    return sorted(path.name for path in (run / "cache").rglob("*") if path.is_file())


def kill(process: subprocess.Popen[str]) -> bool:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def journal_nbytes(run: Path) -> int:
    return sum(path.stat().st_size for path in (run / "journal").glob("*.jsonl"))


def test_workers_of_one_process_agree(
    place: Path, undisturbed: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    go(place, tmp_path / "run", "local:2")
    assert results(tmp_path / "run") == undisturbed


@pytest.mark.slow
def test_workers_of_their_own_processes_agree(
    place: Path, undisturbed: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    go(place, tmp_path / "run", "ray:2")
    assert results(tmp_path / "run") == undisturbed


@pytest.mark.slow
def test_a_driver_killed_while_levels_are_averaged_and_later_leaves_the_same_bytes(
    place: Path,
    undisturbed: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    start_saccade: Start,
) -> None:
    out, chance = tmp_path / "run", random.Random(11)
    scene = place / "scene.tif"
    command = ("run", place / "recipe.yaml", scene, "-o", out, "--workers", "local:1")
    kill_while_averaging(start_saccade, command, out)
    for _ in range(MOST_KILLS):
        goal = journal_nbytes(out) + chance.randrange(200, 3_000)
        process = start_saccade(*command)
        while process.poll() is None and journal_nbytes(out) < goal:
            time.sleep(0.002)
        if process.poll() is None:
            kill(process)
    done = start_saccade(*command)
    said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    assert results(out) == undisturbed
    assert not cached(out)


def kill_while_averaging(start: Start, command: tuple[object, ...], out: Path) -> None:
    """Begin the run anew until it dies with a level half written."""
    for _ in range(MOST_TRIES):
        shutil.rmtree(out, ignore_errors=True)
        process = start(*command)
        while process.poll() is None and not cached(out):
            time.sleep(0.001)
        if kill(process) and any(name.endswith(".partial") for name in cached(out)):
            return
    raise AssertionError(f"no level was found half written in {MOST_TRIES} runs")


def test_a_mosaic_that_loses_a_file_is_set_aside_with_its_name_and_run_when_it_is_back(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    east, freeze = tmp_path / "east.tif", context.freeze_image
    with rasterio.open(place / "scene.tif") as scene:
        profile = scene.profile | {"transform": scene.transform @ Affine.translation(WIDTH, 0)}
        with rasterio.open(east, "w", **profile) as dataset:
            dataset.write(scene.read())
    shutil.copy(place / "scene.tif", tmp_path / "west.tif")
    mosaic = tmp_path / "both.mosaic.yaml"
    mosaic.write_text("mosaic: {files: [west.tif, east.tif]}")
    (tmp_path / "area.geojson").write_text((place / "area.geojson").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    aside = tmp_path / "aside.tif"

    def vanishing(*given: Any, **more: Any) -> Any:
        said = freeze(*given, **more)
        east.rename(aside)
        return said

    def again(*, retry: bool = False) -> RunSummary:
        options = RunOptions(workers="local:1", device="cpu", retry=retry)
        return run(tmp_path / "recipe.yaml", [mosaic], tmp_path / "run", options)

    with monkeypatch.context() as patch:
        patch.setattr(context, "freeze_image", vanishing)
        assert "east.tif: no such file" in again().quarantined["both"]
    aside.rename(east)
    assert again(retry=True).complete == ("both",)
    assert not cached(tmp_path / "run")


def test_a_run_whose_levels_are_lost_halfway_makes_the_same_ones_again(
    place: Path,
    undisturbed: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opens = LevelFile.__init__
    lost: list[str] = []

    def opened(self: LevelFile, path: Path) -> None:
        opens(self, path)
        if len(lost) < 2:  # what is open can be read on, who opens next finds nothing
            lost.append(path.name)
            shutil.rmtree(tmp_path / "run" / "cache")

    monkeypatch.setattr(LevelFile, "__init__", opened)
    go(place, tmp_path / "run", "local:1")
    assert len(lost) == 2
    assert results(tmp_path / "run") == undisturbed
