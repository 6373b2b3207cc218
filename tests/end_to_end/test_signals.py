"""Being asked to stop, and being brought down by what runs: exit codes, and what resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Results = Callable[[Path], dict[str, bytes]]

MODEL = '''
"""A mean of the channels that is slow, or ends its process, where a file beside it says so."""
import ctypes, os, time
from pathlib import Path

import torch

HERE = Path(__file__).parent

class Mean(torch.nn.Module):
    def forward(self, x):
        if (HERE / "slow").exists():
            time.sleep(float((HERE / "slow").read_text()))
        dark = x.mean() < 0.2
        if dark and (HERE / "abort").exists():
            os.abort()
        if dark and (HERE / "exit").exists():
            os._exit(11)
        return x.mean(1, keepdim=True)

def build():
    return Mean()
'''
RECIPE = """
passes:
  - name: only
    resolution: {downsample: 1}
    model:
      {source: "model.py:build", classes: [a], halo: 0, stride: 1, channels: 3, activation: none}
    tile: 64
    window: 64
    batch: 1
output: {chunk: 64, shard: 64}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, a recipe, and ``slow``, ``abort`` and ``exit`` to switch on."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def dark(place: Path, make_image: Callable[..., Path]) -> Path:
    """An image with one dark tile, at which the model's process ends where it is told to."""
    import numpy as np
    import tifffile

    pixels = np.full((200, 200, 3), 230, np.uint8)
    pixels[64:128, 64:128] = 5
    tifffile.imwrite(place / "dark.tif", pixels, tile=(64, 64), photometric="rgb")
    return place / "dark.tif"


def command(place: Path, *images: Path, workers: str = "local:1") -> tuple[object, ...]:
    return ("run", place / "recipe.yaml", *images, "-o", place / "run", "--workers", workers)


def wait_for_receipts(process: subprocess.Popen[str], run: Path, count: int) -> None:
    """Until a run's journal holds so many receipts, or its driver ended."""
    while process.poll() is None and receipts(run) < count:
        time.sleep(0.02)


def slow_down(process: subprocess.Popen[str], place: Path) -> None:
    """Let a run that is at work take most of a minute for its next unit."""
    (place / "slow").write_text("0.2")
    wait_for_receipts(process, place / "run", 3)
    (place / "slow").write_text("45")
    time.sleep(1)


def receipts(run: Path) -> int:
    texts = (path.read_bytes() for path in (run / "journal").glob("*.jsonl"))
    return sum(text.count(b'"kind":"receipt"') for text in texts)


def last_record(run: Path) -> dict[str, object]:
    newest = max((run / "journal").glob("*.jsonl"))
    record: dict[str, object] = json.loads(newest.read_text().splitlines()[-1])
    return record


# ----------------------------------------------------------------------------- being asked to stop


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_closes_the_journal_exits_75_and_the_command_resumes(
    number: signal.Signals,
    place: Path,
    inputs: Path,
    start_saccade: Start,
    saccade: Saccade,
    results: Results,
) -> None:
    (place / "slow").write_text("0.1")
    process = start_saccade(*command(place, inputs / "two.tif"))
    wait_for_receipts(process, place / "run", 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "resumes" in said
    assert "Traceback" not in said
    assert last_record(place / "run")["kind"] == "closed"
    done_before = receipts(place / "run")
    (place / "slow").unlink()
    assert saccade(*command(place, inputs / "two.tif")).returncode == 0
    units = 5 * 7
    assert done_before < 2 + units
    assert receipts(place / "run") == 2 + units
    alone = place / "alone"
    assert saccade(*command(place, inputs / "two.tif")[:-4], "-o", alone, "--workers", "local:1")
    assert results(place / "run") == results(alone)


@pytest.mark.slow
def test_a_signal_drains_a_run_on_actors_too(
    place: Path,
    inputs: Path,
    start_saccade: Start,
    saccade: Saccade,
) -> None:
    """Ray sets handlers of its own, which would abort the driver three seconds after the signal."""
    (place / "slow").write_text("0.5")
    process = start_saccade(*command(place, inputs / "two.tif", workers="ray:2"))
    wait_for_receipts(process, place / "run", 3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert last_record(place / "run")["kind"] == "closed"
    (place / "slow").unlink()
    assert saccade(*command(place, inputs / "two.tif")).returncode == 0


@pytest.mark.slow
def test_a_unit_longer_than_the_grace_period_does_not_hold_the_exit_up(
    place: Path, inputs: Path, start_saccade: Start, saccade: Saccade
) -> None:
    process = start_saccade(*command(place, inputs / "two.tif"), "--grace", "1")
    slow_down(process, place)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert time.monotonic() - asked < 40, "the exit waited for the unit"
    assert last_record(place / "run")["kind"] == "closed"
    (place / "slow").unlink()
    assert saccade(*command(place, inputs / "two.tif")).returncode == 0


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once(
    place: Path, inputs: Path, start_saccade: Start, saccade: Saccade
) -> None:
    process = start_saccade(*command(place, inputs / "two.tif"))
    slow_down(process, place)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    (place / "slow").unlink()
    assert saccade(*command(place, inputs / "two.tif")).returncode == 0


# -------------------------------------------------------------------- being looked at while running


@pytest.mark.slow
def test_status_is_told_while_the_run_goes_on(
    place: Path, inputs: Path, start_saccade: Start, saccade: Saccade
) -> None:
    (place / "slow").write_text("0.3")
    process = start_saccade(*command(place, inputs / "two.tif"))
    wait_for_receipts(process, place / "run", 3)
    told = json.loads(saccade("status", place / "run", "--json").stdout)
    assert told["images"]["running"] == 1
    assert 0 < told["tiles_done"] < 35
    (place / "slow").unlink()
    process.communicate(timeout=120)
    assert process.returncode == 0


# ----------------------------------------------------------------------------------------- poison


@pytest.mark.slow
def test_a_unit_that_crashes_the_driver_again_and_again_is_set_aside(
    place: Path, inputs: Path, dark: Path, saccade: Saccade
) -> None:
    (place / "abort").touch()
    images = dark, inputs / "two.tif"
    codes = []
    while not codes or codes[-1] == -signal.SIGABRT:
        codes.append(saccade(*command(place, *images)).returncode)
        assert len(codes) < 7, codes
    assert codes[-1] == 3
    assert codes.count(-signal.SIGABRT) in (3, 4)
    told = json.loads(saccade("status", place / "run", "--json").stdout)["by_image"]
    assert told["two"]["state"] == "complete"
    assert told["dark"]["state"] == "quarantined"
    assert "Fatal Python error: Aborted" in told["dark"]["reason"]
    (place / "abort").unlink()
    assert saccade(*command(place, *images), "--retry").returncode == 0


@pytest.mark.slow
def test_killing_the_driver_again_and_again_sets_nothing_aside(
    place: Path, dark: Path, start_saccade: Start, saccade: Saccade
) -> None:
    for epoch in range(1, 5):
        (place / "slow").write_text("0")
        process = start_saccade(*command(place, dark))
        journal = place / "run" / "journal" / f"{epoch:06d}.jsonl"
        while not (journal.exists() and b'"started"' in journal.read_bytes()):
            assert process.poll() is None, process.communicate()[1]
            (place / "slow").write_text("45")
            time.sleep(0.05)
        process.kill()
        process.communicate()
    (place / "slow").unlink()
    assert saccade(*command(place, dark)).returncode == 0


@pytest.mark.slow
def test_a_unit_that_ends_its_actors_is_set_aside_and_the_others_complete(
    place: Path, inputs: Path, dark: Path, saccade: Saccade, results: Results
) -> None:
    (place / "exit").touch()
    images = dark, inputs / "two.tif"
    done = saccade(*command(place, *images, workers="ray:2"))
    assert done.returncode == 3, done.stderr
    told = json.loads(saccade("status", place / "run", "--json").stdout)["by_image"]
    assert told["two"]["state"] == "complete"
    assert told["dark"]["state"] == "quarantined"
    assert "worker process ended" in told["dark"]["reason"]
    again = saccade(*command(place, *images, workers="ray:2"))
    assert again.returncode == 3, "what was set aside was forgotten"


@pytest.mark.slow
def test_failures_of_actors_are_remembered_by_the_next_driver(
    place: Path, dark: Path, saccade: Saccade, start_saccade: Start
) -> None:
    (place / "exit").touch()
    process = start_saccade(*command(place, dark, workers="ray:2"), "--max-failures", "100")
    journal = place / "run" / "journal" / "000001.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b'"kind":"failure"') >= 3):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.kill()
    process.communicate()
    done = saccade(*command(place, dark, workers="ray:2"), "--max-failures", "3")
    assert done.returncode == 3
    assert "earlier runs" in done.stderr


def test_the_exit_codes_are_those_of_the_contract() -> None:
    from saccade.jobs import stopping
    from saccade.jobs.commands import words

    assert (words.EXIT_COMPLETE, words.EXIT_ERROR, words.EXIT_USAGE, words.EXIT_QUARANTINED) == (
        0,
        1,
        2,
        3,
    )
    assert words.EXIT_INTERRUPTED == stopping.EXIT_INTERRUPTED == os.EX_TEMPFAIL == 75
    assert sys.platform != "win32"
