"""Independent drivers that share one run: all of it once, the same bytes, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import read_records
from saccade.jobs.journals.sharing import Shard
from saccade.jobs.monitoring.status import read_tally
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import ResumeRefused, RunError

Results = Callable[[Path], dict[str, bytes]]
Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

IMAGES = 6


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, make_archive: Callable[..., tuple[Path, Path]]
) -> tuple[Path, Path]:
    return make_archive(tmp_path_factory.mktemp("archive"), IMAGES, 100, 130)


def options(shard: str = "1/1", **more: Any) -> RunOptions:
    return RunOptions("local:1", device="cpu", shard=Shard.parse(shard), **more)


@pytest.fixture(scope="module")
def whole(
    archive: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, results: Results
) -> dict[str, bytes]:
    """The results of a run by one driver."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(archive[0], [archive[1]], folder, options())
    return results(folder)


def ended(folder: Path) -> Counter[str]:
    return Counter(r["image"] for r in read_records(folder / "journal") if r["kind"] == "image")


@pytest.mark.slow
def test_three_drivers_at_once_one_killed_and_run_again_leave_what_one_driver_leaves(
    archive: tuple[Path, Path],
    whole: dict[str, bytes],
    results: Results,
    start_saccade: Start,
    saccade: Saccade,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"

    def arguments(index: int) -> tuple[object, ...]:
        shared = ("run", *archive, "-o", folder, "--workers", "local:1", "--device", "cpu")
        return (*shared, "--shard", f"{index}/3")

    drivers = [start_saccade(*arguments(index)) for index in (1, 2, 3)]
    doomed = folder / "journal" / "shard-2-of-3" / "000001.jsonl"
    while drivers[1].poll() is None and not (
        doomed.exists() and b'"kind":"receipt"' in doomed.read_bytes()
    ):
        time.sleep(0.01)
    os.killpg(drivers[1].pid, signal.SIGKILL)
    for driver in (drivers[0], drivers[2]):
        _, said = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
    again = saccade(*arguments(2))
    assert again.returncode == 0, again.stderr
    assert ended(folder) == Counter(f"slide-{number}" for number in range(IMAGES))
    assert read_tally(folder).count("complete") == IMAGES
    assert results(folder) == whole
    lines = (folder / "images.jsonl").read_text().splitlines()
    names = [json.loads(line)["name"] for line in lines]
    assert names == [f"slide-{number}" for number in range(IMAGES)]


def test_what_one_division_completed_is_complete_for_every_other(
    archive: tuple[Path, Path], whole: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    recipe, images = archive
    first = run(recipe, [images], tmp_path, options("1/2"))
    second = run(recipe, [images], tmp_path, options("3/4"))
    assert set(second.complete) <= set(first.complete)
    assert ended(tmp_path) == Counter(first.complete)
    rest = run(recipe, [images], tmp_path, options())
    assert len(rest.complete) == IMAGES
    assert ended(tmp_path) == Counter(rest.complete)
    assert run(recipe, [images], tmp_path, options("2/5")).tally.count("waiting") == 0
    assert results(tmp_path) == whole


def test_a_driver_of_the_whole_is_refused_while_one_of_a_part_lives(
    archive: tuple[Path, Path], whole: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    recipe, images = archive
    refused: list[str] = []

    def intrude(tally: object, over: bool) -> None:
        if len(refused) < 2 and not over:
            for shard in ("1/1", "1/4"):
                with pytest.raises(RunError, match="part 1/2 of it") as error:
                    run(recipe, [images], tmp_path, options(shard))
                refused.append(str(error.value))

    run(recipe, [images], tmp_path, options("1/2"), observe=intrude)
    assert len(refused) == 2
    run(recipe, [images], tmp_path, options())
    assert results(tmp_path) == whole


def test_a_part_can_not_make_another_run_of_the_whole(
    archive: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, images = archive
    run(recipe, [images], tmp_path / "run", options("1/2"))
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("fraction: 0.5", "fraction: 0.25"))
    for force in (False, True):
        with pytest.raises(ResumeRefused):
            run(other, [images], tmp_path / "run", options("2/2", force=force))
