"""Benchmarks that need a machine of their own can be tried, small, on any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "gpu.py": (
        *("--device", "simulated", "--network", "tiny CNN", "--side", "512"),
        *("--window", "256", "--forwards", "1"),
    ),
}


@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_runs_and_prints_its_tables(script: str) -> None:
    command = [sys.executable, str(SCRIPTS / script), *SMALL[script]]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "| busy |" in " ".join(said.stdout.split())
    assert "0 splits" in said.stdout
    assert "1 splits" in said.stdout
    assert "a window is too large" in said.stdout


def test_the_engine_and_the_driver_stand_without_ray_and_the_readers_of_slides() -> None:
    heavy = ("ray", "openslide", "tifffile", "imagecodecs", "rich")
    code = (
        "import sys, saccade.workers.local, saccade.jobs.driver;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
