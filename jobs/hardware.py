"""How many workers this machine can feed, where nobody says. Pure but for asking the system."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from saccade.pipeline.errors import UsageError
from saccade.workers.memory_curve import MemoryCurve, is_simulated
from saccade.workers.memory_limits import host_memory
from saccade.workers.memory_size import MemoryLimit

MOST_CPU_WORKERS = 8
"""Workers on one machine without a GPU; more processors give each of them more threads."""

LANE_NBYTES = 5 * 2**28
"""Memory that one worker without a GPU is given: pixels, scores, and a model of a usual size."""

DEVICE = re.compile(r"cpu|cuda(:\d+)?|simulated:.+")


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """Which workers, and how many."""

    kind: str
    """'local' or 'ray'."""
    count: int | None = None
    """How many; None leaves it to the machine."""

    @classmethod
    def parse(cls, text: str) -> WorkerChoice:
        """From 'local', 'ray', 'ray:4' or just '4'.

        Raises:
            UsageError: none of these.
        """
        kind, _, count = ("ray", "", text) if text.isdigit() else text.partition(":")
        valid = kind in ("local", "ray") and (not count or (count.isdigit() and int(count) > 0))
        if not valid:
            raise UsageError(f"--workers: 'local', 'ray' or 'ray:4' expected; found {text!r}")
        return cls(kind, int(count) if count else None)


def choose_device(asked: str, gpus: int) -> str:
    """The device that was asked for; for 'auto', a GPU where there is one.

    Raises:
        UsageError: no such kind of device, or fewer GPUs than that.
    """
    if asked == "auto":
        return "cuda" if gpus else "cpu"
    if not DEVICE.fullmatch(asked):
        raise UsageError(f"--device: 'cpu', 'cuda', 'cuda:1' or 'auto' expected; found {asked!r}")
    if is_simulated(asked):
        MemoryCurve.parse(asked)
        return asked
    if asked.startswith("cuda") and int(asked.partition(":")[2] or 0) >= gpus:
        found = f"{gpus} GPUs" if gpus else "no GPU"
        raise UsageError(f"--device {asked}: {found} found here; use 'cpu' or 'auto'")
    return asked


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_nbytes(limit: MemoryLimit | None = None) -> int:
    """Memory that this process is granted, used or not: the same whenever it is asked."""
    total = host_memory().total_nbytes
    return total if limit is None else limit.of(total)


def threads_per_worker(processors: int, memory_nbytes: int) -> int:
    """Threads of one forward pass, where a run is begun on such a machine.

    Lanes come first, because threads of one forward pass wait for each other (benchmarks/lanes.py);
    a machine whose memory carries fewer lanes than it has processors gives each lane more of them.
    """
    fitting = max(1, memory_nbytes // LANE_NBYTES)
    return max(1, processors // MOST_CPU_WORKERS, -(-processors // fitting))


def worker_count(choice: WorkerChoice, gpus: int, processors: int, torch_threads: int) -> int:
    """How many workers: as asked, else one per GPU, else as many as the processors carry."""
    if choice.count is not None:
        return choice.count
    return gpus if gpus else max(1, processors // torch_threads)


def lane_threads(gpus: int, processors: int, workers: int) -> tuple[int, int]:
    """Threads of one worker that read and that write.

    Beside a GPU the processors have nothing to do but this; without one they compute, and few
    threads keep up with them.
    """
    share = processors // max(1, workers) if gpus else 0
    return max(2, share // 2), max(1, share // 4)
