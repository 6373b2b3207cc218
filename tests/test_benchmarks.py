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


@pytest.mark.slow
def test_further_passes_hold_no_more_tensors_than_twice_those_of_one() -> None:
    command = [sys.executable, str(SCRIPTS / "sequential.py"), "--side", "1024", "--repeats", "1"]
    passes = ("--passes", "1", "2", "3")
    said = subprocess.run([*command, *passes], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    rows = [line.split("|")[1:-1] for line in said.stdout.splitlines() if line.startswith("| ")]
    ratios = {row[0].strip(): float(row[2]) for row in rows[1:]}
    assert set(ratios) == {"1", "2", "3"}
    assert max(ratios.values()) <= 2


def test_the_engine_and_the_driver_stand_without_ray_and_the_readers_of_slides() -> None:
    heavy = ("ray", "openslide", "tifffile", "imagecodecs", "rich")
    code = (
        "import sys, saccade.workers.local, saccade.jobs.driver;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
