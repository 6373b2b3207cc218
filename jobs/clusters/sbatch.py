"""Jobs of Slurm through its commands, without its database of accounts.

Translates only: what is asked for is written in ``rendering.slurm``.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from saccade.jobs.clusters.allocation import Allocation
from saccade.jobs.clusters.rendering import slurm
from saccade.jobs.clusters.submission import ENDED, Submission, attempts_among
from saccade.jobs.stopping import EXIT_INTERRUPTED
from saccade.pipeline.errors import RunError

POLL_SECONDS = 2.0
STATES = {
    "RUNNING": "running",
    "COMPLETING": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETED": "done",
    "CANCELLED": "stopped",
    "BOOT_FAIL": "failed",
    "DEADLINE": "failed",
    "FAILED": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "TIMEOUT": "failed",
}
"""Of a task; all others are on their way to running."""
WORST_FIRST = ("running", "waiting", "failed", "stopped", "done")
"""Which of its tasks' states is an array's."""
LOG = re.compile(r"^   StdOut=(.*)$", re.MULTILINE)
EXIT_CODE = re.compile(r"\bExitCode=(\d+):(\d+)")


class Slurm:
    """The jobs of whoever asks, as Slurm remembers them: for minutes after their end.

    Args:
        allocation: what submitted jobs ask for; others need none.
        say: prints.
    """

    def __init__(
        self, allocation: Allocation | None = None, *, say: Callable[[str], None] = print
    ) -> None:
        self._allocation = allocation or Allocation()
        self._say = say

    def submit(self, submission: Submission) -> None:
        """Hand a run over; makes the folder of its logs, which Slurm does not.

        Raises:
            RunError: it was refused.
        """
        script = slurm.render(submission, self._allocation)
        Path(slurm.logs_of(submission)).mkdir(parents=True, exist_ok=True)
        _call("sbatch", "--parsable", given=script)

    def attempts(self, name: str) -> Mapping[int, str]:
        """The attempts at a run that are remembered, and their states."""
        tasks: dict[str, list[str]] = {}
        for job, state in _tasks("%j"):
            tasks.setdefault(job, []).append(state)
        return attempts_among({job: state_of(states) for job, states in tasks.items()}, name)

    def tell(self, job: str, *, follow: bool) -> None:
        """Print what a job's tasks said, in their order; following, until all end."""
        told: dict[Path, int] = {}
        while True:
            ended = not follow or state_of(self._states(job)) in ENDED
            for path in sorted({Path(log) for log in LOG.findall(self._shown(job))}):
                told[path] = self._tell_on(path, told.get(path, 0))
            if ended:
                return
            time.sleep(POLL_SECONDS)

    def exit_code(self, job: str) -> int:
        """Of the task that ended worst: an error before an interruption before images set aside."""
        if "stopped" in self._states(job):
            return EXIT_INTERRUPTED
        found = EXIT_CODE.findall(self._shown(job))
        return worst_code(int(code) if signal == "0" else 1 for code, signal in found)

    def stop(self, job: str) -> None:
        """Cancel a job: its tasks are sent SIGTERM, and ended when Slurm's patience is over."""
        _call("scancel", f"--name={job}")

    def _tell_on(self, path: Path, offset: int) -> int:
        """Print a file from there on; returns where it ended."""
        if not path.exists():
            return offset
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        if data:
            self._say(data.decode(errors="replace"))
        return offset + len(data)

    def _states(self, job: str) -> list[str]:
        return [state for name, state in _tasks("%j") if name == job]

    def _shown(self, job: str) -> str:
        """All that Slurm knows of a job's tasks."""
        numbers = sorted({number for name, number, _ in _listed("%j|%F|%T") if name == job})
        return "".join(_call("scontrol", "show", "job", number) for number in numbers)


def state_of(states: Iterable[str]) -> str:
    """A job's state, from its tasks'."""
    return min(states, key=WORST_FIRST.index, default="done")


def worst_code(codes: Iterable[int]) -> int:
    """One exit code for many tasks."""
    order = {0: 0, 3: 1, EXIT_INTERRUPTED: 2}
    return max(codes, key=lambda code: order.get(code, 3), default=1)


def _tasks(label: str) -> list[tuple[str, str]]:
    """A label of every task of this user's, and its state."""
    return [(name, STATES.get(state, "waiting")) for name, state in _listed(f"{label}|%T")]


def _listed(form: str) -> list[tuple[str, ...]]:
    said = _call("squeue", "--me", "--array", "--noheader", "--states=all", f"--format={form}")
    return [tuple(line.split("|")) for line in said.splitlines()]


def _call(*words: str, given: str | None = None) -> str:
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RunError(
            f"{words[0]} is not installed here; 'saccade render' prints the script"
        ) from error
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise RunError(f"{words[0]}: {said}")
    return done.stdout
