"""A real Slurm on this machine for the length of a test session, by ``infra/slurm.sh``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "infra" / "slurm.sh"
PATIENCE_SECONDS = 300


def missing() -> str:
    """Why there can be no Slurm here; empty where there can."""
    for program in ("sbatch", "slurmctld", "slurmd", "munged"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"Slurm: {program} expected (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "Slurm: slurmd runs as root only"


class Cluster:
    """Its commands, and an environment in which this saccade is ``python -m saccade.jobs``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment: Mapping[str, str] = {
            **os.environ,
            "PATH": f"{path}:/usr/sbin:/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }

    def call(self, *words: object, code: int | None = 0, given: str | None = None) -> str:
        """What a command prints."""
        done = subprocess.run(
            [str(word) for word in words],
            input=given,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=PATIENCE_SECONDS,
        )
        assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout

    def saccade(self, *words: object, code: int | None = 0) -> str:
        """What a saccade command prints."""
        return self.call(sys.executable, "-m", "saccade.jobs", *words, code=code)

    def shown(self, task: str) -> dict[str, str]:
        """What Slurm knows of a task: JobState, ExitCode, Restarts..."""
        said = self.call("scontrol", "show", "job", task)
        return dict(re.findall(r"(\w+)=(\S*)", said))

    def wait(self, what: str, reached: Callable[[], bool]) -> None:
        """Look again until it is so."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert time.monotonic() < until, f"{what}: not within {PATIENCE_SECONDS} s"
            time.sleep(0.05)


@contextmanager
def slurm(nodes: int) -> Iterator[Cluster]:
    """Started, and stopped whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder / "here")
    try:
        cluster.call(SCRIPT, "up", cluster.folder, nodes)
        yield cluster
    finally:
        cluster.call(SCRIPT, "down", cluster.folder, code=None)
        shutil.rmtree(folder, ignore_errors=True)
