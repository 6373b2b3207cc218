"""What end-to-end tests start from: a small image, a recipe, the command, results as bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile

RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {downsample: 8}
    model: builtin:tissue
    tile: 16
  - name: focus
    resolution: {downsample: 4}
    model: builtin:hematoxylin
    tile: 64
    select: {by: foreground, above: 0.3, share: 0.01}
  - name: refine
    resolution: {downsample: 1}
    model: {source: builtin:hematoxylin, options: {radius_px: 5}}
    tile: 64
    select: {by: top_fraction, fraction: 0.4}
output: {chunk: 64, shard: 256, keep: [glance, refine]}
"""


ARCHIVE_RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {downsample: 4}
    model: builtin:tissue
    tile: 32
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    tile: 32
    select: {by: top_fraction, fraction: 0.5}
output: {chunk: 32, shard: 64}
"""


def draw_tissue(height: int, width: int, seed: int) -> np.ndarray:
    """``(height, width, 3)`` uint8: pink discs with dark nuclei on white glass."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 243, np.uint8)
    for _ in range(5):
        cy, cx, r = random.integers(0, (height, width, min(height, width) // 4))
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = random.integers(
            (200, 90, 150), (240, 160, 210)
        )
    for _ in range(60):
        cy, cx, r = random.integers((0, 0, 3), (height, width, 9))
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = random.integers((70, 30, 90), (120, 70, 150))
    noise = random.integers(-5, 6, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def write_tiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **options)
    return path


@pytest.fixture(scope="session")
def tissue() -> Callable[[int, int, int], np.ndarray]:
    return draw_tissue


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Path]:
    """``make_image(path, height, width, seed)`` writes a tiled TIFF."""

    def make(path: Path, height: int = 500, width: int = 700, seed: int = 7) -> Path:
        return write_tiff(path, draw_tissue(height, width, seed))

    return make


@pytest.fixture(scope="session")
def make_archive(make_image: Callable[..., Path]) -> Callable[..., tuple[Path, Path]]:
    """Writes a recipe of two passes and a folder of images, no two of them of one size."""

    def make(folder: Path, images: int, height: int, width: int) -> tuple[Path, Path]:
        (folder / "images").mkdir()
        for number in range(images):
            file = folder / "images" / f"slide-{number}.tif"
            make_image(file, height, width + number, seed=number)
        (folder / "recipe.yaml").write_text(ARCHIVE_RECIPE)
        return folder / "recipe.yaml", folder / "images"

    return make


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``one.tif``, ``two.tif`` and ``recipe.yaml``; tests only read it."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tiff(folder / "one.tif", draw_tissue(500, 700, seed=7))
    write_tiff(folder / "two.tif", draw_tissue(310, 410, seed=11))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def console_script() -> str:
    beside = Path(sys.executable).with_name("saccade")
    return str(beside) if beside.exists() else shutil.which("saccade") or "saccade"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    plain = {"PYTHONWARNINGS": "default", "COLUMNS": "200", "NO_COLOR": "1"}
    return {**os.environ, **plain, **(extra or {})}


@pytest.fixture(scope="session")
def saccade() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed command, run to its end; standard output and error as text."""

    def call(
        *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [console_script(), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment(env),
            cwd=cwd,
        )

    return call


@pytest.fixture
def start_saccade() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The installed command, started in a process group of its own that ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [console_script(), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(env),
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_results(run: Path) -> dict[str, bytes]:
    """Every file below ``results/``, without the one place that may differ between runs."""
    root = run / "results"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): _without_timing(path) for path in files}


def _without_timing(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "zarr.json" and path.parent.name.endswith(".ome.zarr"):
        tree = json.loads(data)
        tree["attributes"]["saccade"].pop("timing", None)
        return json.dumps(tree).encode()
    return data


@pytest.fixture(scope="session")
def results() -> Callable[[Path], dict[str, bytes]]:
    """``results(run)``: every file of the results, by its path; compare two with ``==``."""
    return read_results


@pytest.fixture(scope="session")
def expected(
    inputs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    saccade: Callable[..., subprocess.CompletedProcess[str]],
) -> dict[str, bytes]:
    """The results of both images of ``inputs``, from a run that nothing disturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    images = inputs / "one.tif", inputs / "two.tif"
    done = saccade("run", inputs / "recipe.yaml", *images, "-o", run, "--workers", "local:1")
    assert done.returncode == 0, done.stderr
    return read_results(run)
