"""A small, seeded part of `make chaos`: bad inputs, and kills with faulty storage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


def rows(*options: str) -> dict[str, list[str]]:
    """The table that the command prints, by fault; every row of it must hold."""
    said = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    lines = [line.split("|")[1:-1] for line in said.stdout.splitlines() if line.startswith("| ")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines[1:]}


@pytest.mark.slow
def test_no_bad_input_crashes_a_run_hangs_or_is_without_a_record(tmp_path: Path) -> None:
    told = rows("--only", "inputs", "--times", "2", "--data", str(tmp_path / "none"))
    total = next(cells for fault, cells in told.items() if fault.startswith("bad inputs, all"))
    assert int(total[0]) >= 100
    assert total[0] == total[1]
    assert {cells[-1] for cells in told.values()} == {"yes"}


@pytest.mark.slow
def test_kills_bad_reads_and_wrong_clocks_change_no_byte(tmp_path: Path) -> None:
    few = ("--few", "4", "--kills", "1", "--every", "6000", "--no-ray")
    told = rows("--only", "kills", "storage", "clock", *few)
    assert {cells[2] for cells in told.values()} == {"4"}
    assert {cells[3] for cells in told.values()} == {"4"}
