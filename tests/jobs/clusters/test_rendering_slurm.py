"""Submissions as batch scripts: by the rules of bash and sbatch, and run with stand-ins."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.jobs.clusters.allocation import Allocation, Mode
from saccade.jobs.clusters.rendering import slurm
from saccade.jobs.clusters.submission import Submission
from saccade.jobs.options import WorkerSize
from saccade.pipeline.errors import UsageError

GIB = 2**30
BIG = Submission("/data/recipe.yaml", ("/data/images.jsonl",), "/data/runs/big", "big")
RULES = {
    "job-name": r"[a-z][-a-z0-9]*",
    "array": r"1-[1-9]\d*",
    "nodes": r"[1-9]\d*",
    "ntasks": "1",
    "ntasks-per-node": "1",
    "output": r"/.*/slurm-(%A_%a|%j)\.txt",
    "open-mode": "append",
    "requeue": "",
    "signal": r"B:TERM@\d+",
    "cpus-per-task": r"[1-9]\d*",
    "mem": r"[1-9]\d*M",
    "gres": r"gpu:[1-9]\d*",
    "time": r"\d+-([01]\d|2[0-3]):[0-5]\d:[0-5]\d",
    "partition": r".+",
    "account": r".+",
}
"""What sbatch takes for each option that is written."""

hostile = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12
)
"""Names that a file system takes."""
nameable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])).map(
    lambda text: "n " + re.sub(r"[/\\]", "'", text)
)
"""Names that Slurm takes too: all that a person sees, without a backslash."""
submissions = st.builds(
    replace,
    st.just(BIG),
    workers=st.none() | st.integers(1, 40),
    worker=st.builds(
        WorkerSize,
        cpus=st.none() | st.sampled_from([0.5, 1, 3]),
        gpus=st.sampled_from([None, 0, 0.25, 1]),
        memory_nbytes=st.none() | st.integers(1, 2**40),
    ),
    run=nameable.map("/data/{}/run".format),
    deadline_seconds=st.none() | st.integers(1, 10**6),
    grace_seconds=st.integers(0, 600),
    retries=st.integers(0, 9),
)
allocations = st.builds(
    Allocation,
    mode=st.sampled_from(Mode),
    count=st.integers(1, 40),
    partition=st.none() | nameable,
    account=st.sampled_from([None, "lab"]),
)


def directives(script: str) -> dict[str, str]:
    """Options of sbatch, as it reads them: up to the first command."""
    found = {}
    for line in script.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "), comments=True)
            name, _, value = word.removeprefix("--").partition("=")
            found[name] = value
    return found


@given(submissions, allocations)
def test_every_option_is_one_that_sbatch_takes(
    submission: Submission, allocation: Allocation
) -> None:
    script = slurm.render(submission, allocation)
    written = directives(script)
    assert script.count("\n#SBATCH ") == len(written)
    for name, value in written.items():
        assert re.fullmatch(RULES[name], value), (name, value)
    logs = str(slurm.logs_of(submission))
    assert written["output"].replace("%%", "%").startswith(logs)


@settings(max_examples=20, deadline=None)
@given(submissions, allocations)
def test_every_script_is_bash(submission: Submission, allocation: Allocation) -> None:
    script = slurm.render(submission, allocation)
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_what_the_workers_of_a_node_take_together_is_asked_for() -> None:
    big = replace(BIG, workers=11, worker=WorkerSize(3, 1, 7 * GIB))
    array = directives(slurm.render(big, Allocation(count=5)))
    assert array["array"] == "1-5"
    assert array["cpus-per-task"] == "33"
    assert array["mem"] == f"{(11 * 7 + 1) * 1024}M"
    assert array["gres"] == "gpu:11"
    ray = directives(slurm.render(big, Allocation(Mode.RAY, 3)))
    assert ray["nodes"] == "3"
    assert ray["cpus-per-task"] == "12"
    assert ray["mem"] == f"{(4 * 7 + 1) * 1024}M"
    assert ray["gres"] == "gpu:4"


def test_nothing_is_asked_for_that_nobody_stated() -> None:
    assert set(directives(slurm.render(BIG, Allocation()))) == {
        *("job-name", "array", "output", "open-mode", "requeue", "signal", "ntasks")
    }


def test_a_part_with_one_worker_needs_no_ray() -> None:
    sized = replace(BIG, worker=WorkerSize(3, 1, GIB))
    line = slurm.command_line(sized, Allocation(count=7))
    assert "--workers local" in line
    assert "--device cuda" in line
    assert "--worker-memory" not in line
    assert "--workers ray:5" in slurm.command_line(replace(BIG, workers=5), Allocation())


def test_the_signal_comes_as_long_before_the_end_as_a_run_takes_to_stop() -> None:
    written = directives(slurm.render(replace(BIG, grace_seconds=37), Allocation()))
    assert written["signal"] == "B:TERM@67"


def test_what_a_person_adds_stands_in_the_script() -> None:
    added = Allocation(options=("--constraint=a100",), setup=("module load cuda",))
    lines = slurm.render(BIG, added).splitlines()
    assert lines.index("#SBATCH --constraint=a100") < lines.index("module load cuda")
    for option in ("constraint=a100", "--x\nrm", ""):
        with pytest.raises(UsageError, match="--sbatch"):
            Allocation(options=(option,))


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\tb"])
def test_a_folder_that_slurm_can_not_write_to_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="Slurm takes no names"):
        slurm.render(replace(BIG, run=f"/data/{name}"), Allocation())


PYTHON = """\
#!{python}
import json, os, pathlib, signal, sys, time
here = pathlib.Path({folder!r})
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
(here / "said").write_text(json.dumps(sys.argv[1:]))
code = int((here / "code").read_text())
while code < 0:
    time.sleep(0.01)
sys.exit(code)
"""
SLURM = """\
#!/bin/sh
echo "$(basename "$0") $*" >> {folder}/asked
cat {folder}/state
"""


class Stage:
    """A PATH on which python and Slurm's commands are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._program("python", PYTHON)
        for name in ("squeue", "scontrol"):
            self._program(name, SLURM)
        (folder / "state").write_text("RUNNING")

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text.format(python=sys.executable, folder=str(self.folder)))
        path.chmod(0o755)

    def start(self, script: str, code: int, **variables: str) -> subprocess.Popen[str]:
        """The script as Slurm starts it; below 0 its run goes on until it is asked to stop."""
        (self.folder / "code").write_text(str(code))
        for name in ("said", "asked"):
            (self.folder / name).unlink(missing_ok=True)
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
        file = self.folder / "script"
        file.write_text(script)
        return subprocess.Popen(
            ["bash", file],
            env={**os.environ, **job, **variables, "PATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, code: int, **variables: str) -> int:
        process = self.start(script, code, **variables)
        process.communicate(timeout=60)
        return process.returncode

    def said(self) -> list[str]:
        words: list[str] = json.loads((self.folder / "said").read_text())
        return words

    def requeued(self) -> bool:
        asked = self.folder / "asked"
        return asked.exists() and "scontrol requeue 5_3" in asked.read_text().splitlines()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "stage")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(hostile, hostile, nameable, st.lists(hostile, max_size=2))
def test_every_word_reaches_the_run_as_it_was(
    stage: Stage, recipe: str, image: str, run: str, more: list[str]
) -> None:
    submission = replace(
        *(BIG,), recipe=recipe, images=(image,), run=f"/data/{run}", run_options=tuple(more)
    )
    assert stage.run(slurm.render(submission, Allocation(count=4)), 0) == 0
    expected = replace(submission, local=True).command()[1:]
    assert stage.said() == [*expected, "--shard", "3/4"]


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_how_a_run_says_that_it_ended_is_how_the_job_ends(stage: Stage, code: int) -> None:
    assert stage.run(slurm.render(BIG, Allocation()), code) == code
    assert not stage.requeued()


@pytest.mark.parametrize("code", [75, 137, 86])
def test_a_run_that_was_cut_short_is_queued_again_as_often_as_allowed(
    stage: Stage, code: int
) -> None:
    script = slurm.render(replace(BIG, retries=2), Allocation())
    assert stage.run(script, code) == 75
    assert stage.requeued()
    assert stage.run(script, code, SLURM_RESTART_COUNT="1") == 75
    assert stage.requeued()
    assert stage.run(script, code, SLURM_RESTART_COUNT="2") == 75
    assert not stage.requeued()


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
def test_a_run_that_is_asked_to_stop_is_queued_again_unless_it_was_cancelled(
    stage: Stage, state: str
) -> None:
    (stage.folder / "state").write_text(state)
    process = stage.start(slurm.render(BIG, Allocation()), -1, SLURM_RESTART_COUNT="99")
    while not (stage.folder / "said").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert stage.requeued() == (state == "RUNNING")
