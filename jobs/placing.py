"""Workers onto machines: how many, and what each of them may hold. Starts nothing."""

from __future__ import annotations

from dataclasses import replace

from saccade.jobs.hardware import WorkerChoice, cpus, lane_threads, worker_count
from saccade.jobs.options import WorkerSize
from saccade.pipeline.errors import UsageError
from saccade.workers.device import gpu_count
from saccade.workers.device_meter import allowed_memory
from saccade.workers.memory_host import (
    WORKING_NBYTES,
    LaneBudgets,
    share_of,
    workers_that_fit,
)
from saccade.workers.memory_size import MemoryLimit, format_nbytes
from saccade.workers.tasks import WorkerSpec


def gpus_for(device: str) -> int:
    """GPUs that workers on such a device are spread over; 0 where it is none."""
    if not device.startswith("cuda"):
        return 0
    return 1 if ":" in device else gpu_count()


def place(
    choice: WorkerChoice, spec: WorkerSpec, memory: MemoryLimit | None
) -> tuple[WorkerSpec, int]:
    """What one worker may hold, and how many there are on this host.

    A count that is stated is kept; one that is not is made to fit the memory. To be called once
    models are loaded: then this process holds about what each worker will.

    Args:
        choice: which workers were asked for.
        spec: of a worker, without its part of the memory.
        memory: what the run may hold of this host's.

    Raises:
        UsageError: not even one worker fits.
    """
    gpus = gpus_for(spec.device)
    count = worker_count(choice, gpus, cpus(), spec.torch_threads)
    processes = choice.kind == "ray"
    host = allowed_memory("cpu", memory)
    if choice.count is None:
        count = workers_that_fit(host, count, processes=processes)
    lanes = LaneBudgets.within(share_of(host, count, processes=processes).free_nbytes)
    sharing = -(-count // gpus) if gpus else count
    read_threads, write_threads = lane_threads(gpus, cpus(), count)
    placed = replace(
        spec,
        read_nbytes=lanes.read_nbytes,
        write_nbytes=lanes.write_nbytes,
        read_threads=read_threads,
        write_threads=write_threads,
        sharing=sharing,
        own_process=processes,
    )
    return placed, count


def check_memory(worker: WorkerSize) -> None:
    """Refuse workers elsewhere that would have no memory left to work with.

    To be called once models are loaded: this process holds about what each worker will.

    Raises:
        UsageError: they are given less than that.
    """
    if worker.memory_nbytes is None:
        return
    reserved_nbytes = allowed_memory("cpu").reserved_nbytes
    least_nbytes = reserved_nbytes + WORKING_NBYTES
    if worker.memory_nbytes < least_nbytes:
        raise UsageError(
            f"--worker-memory: {format_nbytes(least_nbytes)} or more expected, because the "
            f"interpreter, its libraries and the models hold {format_nbytes(reserved_nbytes)}; "
            f"found {format_nbytes(worker.memory_nbytes)}"
        )
