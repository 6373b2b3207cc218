"""SIGKILL at random moments until the run completes; the result is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ray_actors import actors_below

Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Results = Callable[[Path], dict[str, bytes]]

MOST_KILLS = 12
EXAMPLE = Path(__file__).parents[2] / "examples" / "three-pass.yaml"


def journal_nbytes(run: Path) -> int:
    return sum(path.stat().st_size for path in (run / "journal").glob("*.jsonl"))


def wait_for_journal(process: subprocess.Popen[str], run: Path, more_nbytes: int) -> None:
    """Until the run has written so much more to its journal, or its driver ended."""
    goal = journal_nbytes(run) + more_nbytes
    while process.poll() is None and journal_nbytes(run) < goal:
        time.sleep(0.005)


def kill_until_done(
    start: Start, arguments: Sequence[object], run: Path, seed: int, journal_nbytes: int
) -> int:
    """Run a command and kill it, again and again; at last let it end. Returns the kills.

    A life ends after a random amount of progress, so that no machine is too slow to get anywhere.
    """
    chance = random.Random(seed)
    kills = 0
    while kills < MOST_KILLS:
        process = start(*arguments)
        wait_for_journal(process, run, chance.randrange(200, journal_nbytes))
        if process.poll() is not None:
            break
        time.sleep(chance.random() / 20)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    process = start(*arguments)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return kills


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_leaves_the_same_bytes(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    start_saccade: Start,
) -> None:
    images = inputs / "one.tif", inputs / "two.tif"
    command = ("run", inputs / "recipe.yaml", *images, "-o", tmp_path, "--workers", "local:1")
    kills = kill_until_done(start_saccade, command, tmp_path, seed=3, journal_nbytes=12_000)
    assert kills >= 3
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_a_driver_killed_on_a_real_slide_leaves_the_same_bytes(
    data: Path, results: Results, tmp_path: Path, start_saccade: Start, saccade: Saccade
) -> None:
    slide = data / "slides" / "cmu-1-small-region.svs"
    command = ("run", EXAMPLE, slide, "--workers", "local:1", "-o")
    assert saccade(*command, tmp_path / "alone").returncode == 0
    run = tmp_path / "run"
    kills = kill_until_done(start_saccade, (*command, run), run, seed=5, journal_nbytes=9_000)
    assert kills >= 2
    assert results(run) == results(tmp_path / "alone")


@pytest.mark.slow
def test_actors_killed_at_random_moments_leave_the_same_bytes(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    start_saccade: Start,
) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are found through /proc")
    images = inputs / "one.tif", inputs / "two.tif"
    command = ("run", inputs / "recipe.yaml", *images, "-o", tmp_path, "--workers", "ray:2")
    process = start_saccade(*command, "--max-failures", "9")
    chance = random.Random(7)
    kills = 0
    while process.poll() is None and kills < 5:
        wait_for_journal(process, tmp_path, chance.randrange(500, 4_000))
        if actors := actors_below(process.pid):
            os.kill(chance.choice(actors), signal.SIGKILL)
            kills += 1
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert kills >= 2
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_a_killed_driver_leaves_no_actor_behind_and_the_run_resumes(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    start_saccade: Start,
    saccade: Saccade,
) -> None:
    images = inputs / "one.tif", inputs / "two.tif"
    command = ("run", inputs / "recipe.yaml", *images, "-o", tmp_path, "--workers", "ray:2")
    process = start_saccade(*command)
    wait_for_journal(process, tmp_path, 8_000)
    actors = actors_below(process.pid)
    assert actors
    process.kill()
    process.communicate()
    done = saccade(*command)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == expected
    patience = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in actors):
        assert time.monotonic() < patience, "actors outlive their driver"
        time.sleep(0.2)
