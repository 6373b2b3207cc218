"""Two drivers on one run: the newer one owns it, the older one stops and does no harm."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.journal import Journal
from saccade.jobs.options import RunOptions
from saccade.jobs.tally import Tally
from saccade.pipeline.errors import Fenced

Results = Callable[[Path], dict[str, bytes]]
OPTIONS = RunOptions(workers="local:1", device="cpu")


def test_a_driver_whose_run_was_taken_over_stops_and_the_new_one_completes_it(
    inputs: Path, expected: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    images = [inputs / "one.tif", inputs / "two.tif"]

    def take_over(tally: Tally, over: bool) -> None:
        if tally.tiles_done > 20:
            Journal.open(tmp_path / "journal").close()

    with pytest.raises(Fenced, match="took this run over"):
        run(inputs / "recipe.yaml", images, tmp_path, OPTIONS, observe=take_over)
    run(inputs / "recipe.yaml", images, tmp_path, OPTIONS)
    assert results(tmp_path) == expected


def test_a_second_driver_in_the_midst_of_the_first_ones_work_leaves_the_same_bytes(
    inputs: Path, expected: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    """The first driver's units in flight are not stopped: they end while the second one works."""
    images = [inputs / "one.tif", inputs / "two.tif"]
    completed = []

    def run_inside(tally: Tally, over: bool) -> None:
        if tally.tiles_done > 20 and not completed:
            completed.append(run(inputs / "recipe.yaml", images, tmp_path, OPTIONS).complete)

    with pytest.raises(Fenced):
        run(inputs / "recipe.yaml", images, tmp_path, OPTIONS, observe=run_inside)
    assert completed == [("one", "two")]
    assert results(tmp_path) == expected


SLOW_MODEL = """
import time
import torch

class Slow(torch.nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return x.mean(1, keepdim=True)

def build():
    return Slow()
"""
SLOW_RECIPE = """
passes:
  - name: only
    resolution: {downsample: 1}
    model:
      {source: "slow.py:build", classes: [a], halo: 0, stride: 1, channels: 3, activation: none}
    tile: 32
    window: 32
    batch: 1
output: {chunk: 32, shard: 32}
"""


@pytest.mark.slow
def test_a_second_process_takes_over_from_one_that_is_at_work(
    inputs: Path,
    results: Results,
    tmp_path: Path,
    saccade: Callable[..., subprocess.CompletedProcess[str]],
    start_saccade: Callable[..., subprocess.Popen[str]],
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    (tmp_path / "recipe.yaml").write_text(SLOW_RECIPE)
    arguments = ("run", tmp_path / "recipe.yaml", inputs / "two.tif", "--workers", "local:1", "-o")
    first = start_saccade(*arguments, tmp_path / "run")
    journal = tmp_path / "run" / "journal" / "000001.jsonl"
    while first.poll() is None and not (journal.exists() and journal.stat().st_size > 5000):
        time.sleep(0.05)
    second = saccade(*arguments, tmp_path / "run")
    _, said = first.communicate(timeout=300)
    assert second.returncode == 0, second.stderr
    assert first.returncode == 1
    assert "took this run over" in said
    assert "Traceback" not in said
    assert saccade(*arguments, tmp_path / "alone").returncode == 0
    assert results(tmp_path / "run") == results(tmp_path / "alone")
