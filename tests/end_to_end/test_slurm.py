"""Runs on a real Slurm: whoever is killed or queued again, the bytes of one undisturbed driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_here import Cluster, missing, slurm

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import read_records
from saccade.jobs.options import RunOptions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

Results = Callable[[Path], dict[str, bytes]]

IMAGES = 6
SHARDS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm(nodes=2) as one:
        yield one


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, make_archive: Callable[..., tuple[Path, Path]]
) -> tuple[Path, Path]:
    return make_archive(tmp_path_factory.mktemp("an archive's"), IMAGES, 190, 230)


@pytest.fixture(scope="module")
def whole(
    archive: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, results: Results
) -> dict[str, bytes]:
    """The results of a run by one driver, here."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(archive[0], [archive[1]], folder, RunOptions("local:1", device="cpu"))
    return results(folder)


def submitted(cluster: Cluster, archive: tuple[Path, Path], folder: Path, *more: object) -> str:
    """The number of the job that Slurm made of it."""
    given = ("--to", "slurm", "--name", "big", "--run-options", "--device cpu", *more)
    script = cluster.saccade("render", *archive, "-o", folder, *given)
    (folder / "logs").mkdir(parents=True)
    job: str = cluster.call("sbatch", "--parsable", given=script)
    return job.strip()


def ended(cluster: Cluster, *tasks: str) -> dict[str, dict[str, str]]:
    """What Slurm says of tasks at their end."""

    def over() -> bool:
        states = {cluster.shown(task)["JobState"] for task in tasks}
        return not states & {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"}

    cluster.wait("the end of every task", over)
    return {task: cluster.shown(task) for task in tasks}


def at_work(cluster: Cluster, folder: Path, shard: int) -> list[int]:
    """The processes of a part's driver, the run itself first, once it has something to lose."""
    journal = folder / "journal" / f"shard-{shard}-of-{SHARDS}"

    def begun() -> bool:
        return any(b'"kind":"receipt"' in path.read_bytes() for path in journal.glob("*.jsonl"))

    cluster.wait(f"a receipt of part {shard}", begun)
    return sorted(drivers(folder, shard), reverse=True)


def drivers(folder: Path, shard: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(folder) in words and f"{shard}/{SHARDS}" in words:
            yield int(path.parent.name)


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "logs").glob("slurm-*.txt")))


def all_once(folder: Path) -> bool:
    records = read_records(folder / "journal")
    images = Counter(record["image"] for record in records if record["kind"] == "image")
    return images == Counter(f"slide-{number}" for number in range(IMAGES))


@pytest.mark.parametrize("way", ["killed", "asked", "requeued"])
def test_a_task_that_is_cut_short_goes_on_and_the_array_leaves_what_one_driver_leaves(
    cluster: Cluster,
    archive: tuple[Path, Path],
    whole: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    way: str,
) -> None:
    folder = tmp_path / "the run's 'own' folder"
    job = submitted(cluster, archive, folder, "--shards", SHARDS, "--restarts", 0)
    doomed = f"{job}_2"
    processes = at_work(cluster, folder, 2)
    if way == "killed":
        os.kill(processes[0], signal.SIGKILL)
    elif way == "asked":
        cluster.call("scancel", "--batch", "--signal=TERM", doomed)
    else:
        cluster.call("scontrol", "requeue", doomed)
    cluster.wait("another start", lambda: cluster.shown(doomed)["Restarts"] == "1")
    tasks = ended(cluster, *(f"{job}_{shard}" for shard in range(1, SHARDS + 1)))
    assert {task["ExitCode"] for task in tasks.values()} == {"0:0"}, said(folder)
    assert {task["JobState"] for task in tasks.values()} == {"COMPLETED"}
    assert all_once(folder)
    assert results(folder) == whole


def test_a_task_that_is_cancelled_stays_ended_and_the_next_submission_goes_on(
    cluster: Cluster,
    archive: tuple[Path, Path],
    whole: dict[str, bytes],
    results: Results,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    job = submitted(cluster, archive, folder, "--shards", SHARDS)
    at_work(cluster, folder, 2)
    cluster.call("scancel", job)
    tasks = ended(cluster, *(f"{job}_{shard}" for shard in range(1, SHARDS + 1)))
    assert {task["Restarts"] for task in tasks.values()} == {"0"}
    assert "CANCELLED" in {task["JobState"] for task in tasks.values()}
    cluster.saccade(
        *("submit", *archive, "-o", folder, "--to", "slurm", "--name", "big", "--follow"),
        *("--shards", SHARDS, "--run-options", "--device cpu"),
    )
    assert all_once(folder)
    assert results(folder) == whole


def test_how_a_run_ends_is_how_its_job_ends(
    cluster: Cluster, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    """An image that can't be read is set aside: 3."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.tif").write_bytes(b"II*\0" + bytes(100))
    folder = tmp_path / "run"
    words = (archive[0], tmp_path / "images", "-o", folder, "--to", "slurm", "--name", "bad")
    script = cluster.saccade("render", *words)
    (folder / "logs").mkdir(parents=True)
    waiting = subprocess.run(
        ["sbatch", "--wait"], input=script, text=True, env=cluster.environment, timeout=300
    )
    assert waiting.returncode == 3, said(folder)
    cluster.saccade("submit", *words, "--follow", code=3)
    assert "bad-1\tfailed" in cluster.saccade("job", "status", "bad", "--to", "slurm")


def test_a_ray_over_two_nodes_leaves_what_one_driver_leaves_and_nothing_else(
    cluster: Cluster,
    archive: tuple[Path, Path],
    whole: dict[str, bytes],
    results: Results,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    more = ("--slurm-mode", "ray", "--nodes", 2, "--workers", 2)
    job = submitted(cluster, archive, folder, *more)
    assert ended(cluster, job)[job]["ExitCode"] == "0:0", said(folder)
    assert results(folder) == whole
    assert not Path(f"/tmp/saccade-ray-{job}").exists()
    assert not any(f"saccade-ray-{job}/" in line for line in command_lines())


def test_a_ray_that_does_not_start_is_a_failed_job_that_says_so(
    cluster: Cluster, archive: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # ray start that ends as if all were well, on the second node only
    real = Path(sys.executable).with_name("ray")
    ray = f'[ "$SLURMD_NODENAME" = trial2 ] && exit 0; exec {real} "$@"'
    (tmp_path / "ray").write_text(f"#!/bin/sh\n{ray}\n")
    (tmp_path / "ray").chmod(0o755)
    setup = f"export PATH={tmp_path}:$PATH"
    more = ("--slurm-mode", "ray", "--nodes", 2, "--workers", 2, "--setup", setup)
    job = submitted(cluster, archive, folder, *more)
    task = ended(cluster, job)[job]
    assert (task["JobState"], task["ExitCode"]) == ("FAILED", "1:0")
    assert re.search(r"Ray did not start on 2 of 2 nodes \(trial1 trial2\)", said(folder))
    assert not (folder / "journal").exists()


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode(errors="replace")
        except OSError:
            continue
