"""The raster benchmark compares like with like: contenders against one forward pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "rasters.py"
pytest.importorskip("rasterio", reason="needs the extra 'geo'")


@pytest.mark.slow
def test_contenders_that_crop_halos_answer_as_one_forward_pass_does() -> None:
    contenders = ("saccade", "dask map_overlap", "rasterio loop")
    small = ("--sides", "700", "--rounds", "1", "--threads", "1", "--window", "256")
    command = [sys.executable, str(SCRIPT), *small, "--only", *contenders]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    rows = [line.split("|")[1:-1] for line in said.stdout.splitlines() if line.startswith("| ")]
    equal = {row[0].strip().split(",")[0]: float(row[-1]) for row in rows[1:]}
    assert equal["dask map_overlap"] == 1
    assert equal["rasterio loop"] == 1
    assert equal["saccade"] > 0.99  # labels of scores in steps of 1/255: ties
