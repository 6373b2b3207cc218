"""A submission as a batch script for Slurm. Pure; knows no Slurm.

Either an array of independent drivers, or one driver on a Ray that spans the allocation.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from saccade.jobs.clusters.allocation import Allocation, Mode
from saccade.jobs.clusters.rendering.slurm_parts import ENDING, RAY, WATCHING
from saccade.jobs.clusters.submission import Submission
from saccade.pipeline.errors import UsageError

MIB = 2**20
STOP_SECONDS = 30
"""What a run may take to stop beyond its grace period."""
DRIVER_NBYTES = 2**30
"""What a job holds on a node beside its workers."""
PLAIN = re.compile(r"[\w@+=:,./%-]*", re.ASCII)
"""Text that sbatch takes literally; other text needs quotes."""
DAY, HOUR, MINUTE = 86400, 3600, 60


def render(submission: Submission, allocation: Allocation) -> str:
    """A script for ``sbatch``.

    Raises:
        UsageError: the run's folder has a name that Slurm can't write logs to.
    """
    lines = [f"#SBATCH {option}" for option in options(submission, allocation)]
    logs = shlex.quote(str(logs_of(submission)))
    parts = [
        "#!/bin/bash",
        f"# The logs' folder is there first: {_one_line(f'mkdir -p {logs}')}",
        *lines,
        "set -u",
        *allocation.setup,
        "",
        WATCHING + (RAY if allocation.mode is Mode.RAY else ""),
        command_line(submission, allocation) + " &",
        ENDING.format(retries=submission.retries),
    ]
    return "\n".join(parts)


def logs_of(submission: Submission) -> PurePosixPath:
    """Where what jobs say is written."""
    return PurePosixPath(submission.run) / "logs"


def options(submission: Submission, allocation: Allocation) -> Iterator[str]:
    """Of sbatch, one per line of the script."""
    array = allocation.mode is Mode.ARRAY
    yield f"--job-name={submission.job}"
    yield f"--array=1-{allocation.count}" if array else f"--nodes={allocation.count}"
    file = "slurm-%A_%a.txt" if array else "slurm-%j.txt"
    yield f"--output={_quoted(logs_of(submission), percent='%%')}/{file}"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:TERM@{submission.grace_seconds + STOP_SECONDS}"
    yield "--ntasks=1" if array else "--ntasks-per-node=1"
    yield from _resources(submission, allocation)
    if submission.deadline_seconds:
        yield f"--time={_time(submission.deadline_seconds)}"
    if allocation.partition:
        yield f"--partition={_quoted(allocation.partition)}"
    if allocation.account:
        yield f"--account={_quoted(allocation.account)}"
    yield from allocation.options


def _resources(submission: Submission, allocation: Allocation) -> Iterator[str]:
    """Of one node: what its workers take together."""
    size = submission.worker
    nodes = 1 if allocation.mode is Mode.ARRAY else allocation.count
    workers = math.ceil((submission.workers or nodes) / nodes)
    if size.cpus or submission.workers:
        yield f"--cpus-per-task={math.ceil(workers * (size.cpus or 1))}"
    if size.memory_nbytes:
        yield f"--mem={math.ceil((workers * size.memory_nbytes + DRIVER_NBYTES) / MIB)}M"
    if size.gpus:
        yield f"--gres=gpu:{math.ceil(workers * size.gpus)}"


def command_line(submission: Submission, allocation: Allocation) -> str:
    """What a job runs, as a line of bash."""
    if allocation.mode is Mode.RAY:
        return submission.entrypoint() + ' --address "$address"'
    if submission.workers in (None, 1):
        # one worker per part needs no Ray; what it may take is what Slurm gives the job
        size = replace(submission.worker, cpus=None, memory_nbytes=None)
        submission = replace(submission, workers=None, worker=size, local=True)
    return f'{submission.entrypoint()} --shard "$SLURM_ARRAY_TASK_ID/{allocation.count}"'


def _quoted(value: PurePosixPath | str, percent: str = "%") -> str:
    """As sbatch reads it back from a script.

    Raises:
        UsageError: it never would.
    """
    text = str(value)
    if "\\" in text or not text.isprintable():
        raise UsageError(f"Slurm takes no names with \\ or control characters; found {text!r}")
    text = text.replace("%", percent)
    if PLAIN.fullmatch(text):
        return text
    return '"{}"'.format(text.replace('"', r"\""))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _time(seconds: int) -> str:
    days, rest = divmod(seconds, DAY)
    return f"{days}-{rest // HOUR:02}:{rest % HOUR // MINUTE:02}:{rest % MINUTE:02}"
