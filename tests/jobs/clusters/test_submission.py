"""Runs handed over: their rules, their names, the command that a job runs."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.clusters.submission import (
    NAME,
    Claim,
    Submission,
    attempts_among,
    name_of_run,
    next_attempt,
    seconds_of,
)
from saccade.jobs.options import WorkerSize
from saccade.pipeline.errors import UsageError

PLAIN = Submission("/data/recipe.yaml", ("/data/images.jsonl",), "/data/runs/big", "big")


def test_a_job_runs_the_run_under_supervision() -> None:
    assert PLAIN.entrypoint() == (
        "python -m saccade.jobs supervise --restarts 5 run /data/recipe.yaml /data/images.jsonl "
        "-o /data/runs/big --workers ray --grace 30"
    )


def test_what_each_worker_takes_reaches_the_run() -> None:
    size = WorkerSize(cpus=3, gpus=0.5, memory_nbytes=7 * 2**30)
    words = replace(PLAIN, worker=size, workers=11, run_options=("--fsync",)).command()
    assert words[words.index("--workers") + 1] == "ray:11"
    tail = words[words.index("--worker-cpus") :]
    assert tail == (
        *("--worker-cpus", "3", "--worker-gpus", "0.5", "--device", "cuda"),
        *("--worker-memory", "7516192768B", "--fsync"),
    )


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
def test_a_shell_reads_the_words_back_as_they_were(images: list[str]) -> None:
    submission = replace(PLAIN, images=tuple(images))
    assert tuple(shlex.split(submission.entrypoint())) == submission.command()


@given(st.text(max_size=80))
def test_every_run_folder_gives_a_name_that_clusters_take(run: str) -> None:
    assert NAME.fullmatch(name_of_run(run))


@given(st.from_regex(NAME, fullmatch=True), st.integers(1, 999_999))
def test_a_job_s_name_is_a_label_that_kuberay_takes(name: str, attempt: int) -> None:
    job = replace(PLAIN, name=name, attempt=attempt).job
    assert len(job) <= 47
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job)


@pytest.mark.parametrize("name", ["", "Big", "1st", "a_b", "-a", "a-", "a" * 41])
def test_a_name_that_clusters_refuse_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        replace(PLAIN, name=name)


def test_the_next_attempt_is_the_one_after_the_last_that_is_remembered() -> None:
    known = {"big-1": "failed", "big-7": "stopped", "bigger-9": "running", "big-x": "running"}
    attempts = attempts_among(known, "big")
    assert attempts == {1: "failed", 7: "stopped"}
    assert next_attempt(PLAIN, attempts).job == "big-8"
    assert next_attempt(PLAIN, {}).job == "big-1"


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_run_that_has_a_job_at_work_gets_no_second(state: str) -> None:
    with pytest.raises(UsageError, match=f"big-3 is {state}.*stop"):
        next_attempt(PLAIN, {2: "done", 3: state})


def test_fewer_workers_than_the_least_are_refused() -> None:
    for workers in (None, 4):
        with pytest.raises(UsageError, match="--least-workers"):
            replace(PLAIN, workers=workers, least_workers=5)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("7m", 420), ("5h", 18_000), ("2d", 172_800)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3m", "1.5h", "3 weeks"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="'90s', '30m'"):
        seconds_of(text)


def test_a_claim_holds_what_lies_below_its_mount() -> None:
    claim = Claim.parse("archive:/data")
    assert claim == Claim("archive", "/data")
    assert claim.holds("/data/a/b")
    assert not claim.holds("/database")
    for text in ("archive", "archive:data", ":/data"):
        with pytest.raises(UsageError, match="--claim"):
            Claim.parse(text)


@pytest.mark.parametrize(
    "size", [{"cpus": 0}, {"gpus": -1}, {"gpus": 1.5}, {"memory_nbytes": 0}], ids=str
)
def test_what_a_worker_takes_is_a_positive_amount_or_a_part_of_one_gpu(
    size: dict[str, float],
) -> None:
    with pytest.raises(UsageError, match="--worker-"):
        WorkerSize(**size)  # type: ignore[arg-type]
