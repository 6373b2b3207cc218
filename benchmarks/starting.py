"""Starting ``saccade run`` as a process of its own, and watching its journal for signs of life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 900.0
LOOK_SECONDS = 0.005
SIGNS = {"opened": b'"kind":"opened"', "started": b'"kind":"started"', "answered": b'"pass":'}
LAST_SIGN = {"complete": b'"kind":"image"'}
COMMAND = (sys.executable, "-c", "from saccade.jobs.cli import main; main()", "run")


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds from the start of the process until something was seen in its journal."""

    opened: float
    """The run's folder is taken over."""
    started: float
    """A unit is given to a worker that stands."""
    answered: float
    """The first unit of a sweep is done, its receipt written down: there are new tiles."""
    peak_nbytes: int
    """Largest resident memory of the driver until then."""


def start_run(recipe: Path, images: Path, output: Path, workers: str) -> Started:
    """Run the command until its first new tile, then kill it; what it did so far stays.

    Raises:
        RuntimeError: it ended, or time ran out, before there was a new tile.
    """
    journal, since, process = _begin(recipe, images, output, workers)
    try:
        seen = _watch(process, journal, since, SIGNS)
        return Started(**seen, peak_nbytes=_peak_nbytes(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def whole_run(recipe: Path, images: Path, output: Path, workers: str) -> dict[str, float]:
    """Run the command to its end over one image; seconds until each sign, 'complete' the last.

    Raises:
        RuntimeError: it failed, or time ran out.
    """
    journal, since, process = _begin(recipe, images, output, workers)
    try:
        seen = _watch(process, journal, since, SIGNS | LAST_SIGN)
        process.wait(PATIENCE_SECONDS)
        return seen
    finally:
        process.kill()
        process.wait()


def _begin(
    recipe: Path, images: Path, output: Path, workers: str
) -> tuple[Path, float, subprocess.Popen[bytes]]:
    """Where its journal will be, when it was started, the process."""
    journal = output / "journal" / f"{_epochs(output) + 1:06d}.jsonl"
    arguments = map(str, (recipe, images, "-o", output, "--workers", workers, "--device", "cpu"))
    since = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, start_new_session=True
    )
    return journal, since, process


def _watch(
    process: subprocess.Popen[bytes], journal: Path, since: float, signs: dict[str, bytes]
) -> dict[str, float]:
    """When each sign was seen for the first time."""
    seen: dict[str, float] = {}
    while len(seen) < len(signs):
        text = journal.read_bytes() if journal.exists() else b""
        now = time.perf_counter() - since
        seen |= {name: now for name, sign in signs.items() if sign in text and name not in seen}
        if process.poll() is not None and len(seen) < len(signs):
            raise RuntimeError(f"the command ended with {process.returncode}; seen: {seen}")
        if now > PATIENCE_SECONDS:
            raise RuntimeError(f"not done within {PATIENCE_SECONDS:.0f} s; seen: {seen}")
        time.sleep(LOOK_SECONDS)
    return seen


def _epochs(output: Path) -> int:
    return len(list((output / "journal").glob("*.jsonl")))


def _peak_nbytes(pid: int) -> int:
    """Of a living process, where the system tells; else 0."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
