"""Two drivers on one run: the newer one owns it, the older one stops and does no harm."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import Journal
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import Fenced

Results = Callable[[Path], dict[str, bytes]]
OPTIONS = RunOptions(workers="local:1", device="cpu")


def test_a_driver_whose_run_was_taken_over_stops_and_the_new_one_completes_it(
    inputs: Path, expected: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    images = [inputs / "one.tif", inputs / "two.tif"]

    def take_over(tally: Tally, over: bool) -> None:
        if tally.tiles_done:  # select and finalise are still to come, and need the journal
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
        if tally.tiles_done and not completed:
            completed.append(run(inputs / "recipe.yaml", images, tmp_path, OPTIONS).complete)

    with pytest.raises(Fenced):
        run(inputs / "recipe.yaml", images, tmp_path, OPTIONS, observe=run_inside)
    assert completed == [("one", "two")]
    assert results(tmp_path) == expected


GATED_MODEL = """
import time
from pathlib import Path
import torch

class Gated(torch.nn.Module):
    seen = 0

    def forward(self, x):
        self.seen += 1
        while self.seen > 40 and not Path("{gate}").exists():
            time.sleep(0.01)
        return x.mean(1, keepdim=True)

def build():
    return Gated()
"""
GATED_RECIPE = """
passes:
  - name: only
    resolution: {downsample: 1}
    model:
      {source: "gated.py:build", classes: [a], halo: 0, stride: 1, channels: 3, activation: none}
    tile: 32
    window: 32
    batch: 1
output: {chunk: 32, shard: 32}
"""


def receipts(folder: Path, epoch: int) -> list[str]:
    """Lines of an epoch that say that a unit is done."""
    path = folder / "journal" / f"{epoch:06d}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if '"receipt"' in line]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_second_process_takes_over_from_one_that_is_at_work(
    inputs: Path,
    results: Results,
    tmp_path: Path,
    saccade: Callable[..., subprocess.CompletedProcess[str]],
    start_saccade: Callable[..., subprocess.Popen[str]],
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(GATED_MODEL.replace("{gate}", str(gate)))
    (tmp_path / "recipe.yaml").write_text(GATED_RECIPE)
    arguments = ("run", tmp_path / "recipe.yaml", inputs / "two.tif", "--workers", "local:1", "-o")
    first = start_saccade(*arguments, tmp_path / "run")
    wait_for(lambda: len(receipts(tmp_path / "run", 1)) > 10, first)
    second = start_saccade(*arguments, tmp_path / "run")
    wait_for(lambda: (tmp_path / "run" / "journal" / "000002.jsonl").exists(), second)
    gate.touch()
    _, complained = second.communicate(timeout=300)
    _, said = first.communicate(timeout=300)
    assert second.returncode == 0, complained
    assert first.returncode == 1
    assert "took this run over" in said
    assert "Traceback" not in said
    assert saccade(*arguments, tmp_path / "alone").returncode == 0
    assert results(tmp_path / "run") == results(tmp_path / "alone")
