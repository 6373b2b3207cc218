"""Which workers a run gets: in this process, on a Ray of its own, or on a cluster.

Makes them; gives them nothing to do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from saccade.jobs.hardware import (
    WorkerChoice,
    cpus,
    lane_threads,
    memory_nbytes,
    threads_per_worker,
    worker_count,
)
from saccade.jobs.options import RunOptions
from saccade.jobs.placing import check_memory, gpus_for, place
from saccade.jobs.starting import ray_address
from saccade.workers.device import gpu_count
from saccade.workers.local import LocalWorkers
from saccade.workers.outcome import Workers
from saccade.workers.room import RayPlace
from saccade.workers.tasks import WorkerSpec

if TYPE_CHECKING:
    from saccade.workers.actor import EmptyActors


def gpus_in_reach(options: RunOptions) -> int:
    """GPUs that a run may count on: this machine's, or those that workers elsewhere are given."""
    asked = options.device.startswith("cuda") or bool(options.worker.gpus)
    return max(gpu_count(), int(asked and ray_address(options) is not None))


def forward_threads(options: RunOptions) -> int:
    """Threads of one forward pass, in a run that is begun now."""
    if options.worker.cpus and ray_address(options) is not None:
        return max(1, int(options.worker.cpus))
    return threads_per_worker(cpus(), memory_nbytes(options.memory))


def empty_actors(
    choice: WorkerChoice, device: str, torch_threads: int, options: RunOptions
) -> EmptyActors | None:
    """The processes of workers on Ray, on their way before their work is settled.

    As many as the processors carry: those that turn out not to fit the memory are let go.
    """
    if choice.kind == "local":
        return None
    from saccade.workers.actor import EmptyActors

    address = ray_address(options)
    if address is not None:
        return EmptyActors(choice.count, cluster_place(address, device, torch_threads, options))
    gpus = gpus_for(device)
    count = worker_count(choice, gpus, cpus(), torch_threads)
    each = min(1.0, gpus / count) if gpus else 0
    return EmptyActors(count, RayPlace(cpus=min(torch_threads, cpus() / count), gpus=each))


def cluster_place(address: str, device: str, torch_threads: int, options: RunOptions) -> RayPlace:
    """What each worker takes of a cluster: as stated, else a processor per thread, and a GPU."""
    stated = options.worker
    gpus = stated.gpus if stated.gpus is not None else float(device.startswith("cuda"))
    return RayPlace(address, stated.cpus or torch_threads, gpus, stated.memory_nbytes or 0)


def workers_for(
    choice: WorkerChoice, spec: WorkerSpec, options: RunOptions, actors: EmptyActors | None
) -> Workers:
    """The workers, not yet started.

    Raises:
        UsageError: not even one fits the memory.
    """
    if actors is None:  # also on Ray where nothing is left to do: workers that never start
        spec, count = place(choice, spec, options.memory)
        return LocalWorkers(spec, count)
    from saccade.workers.actor import RayWorkers

    if actors.place.address is not None:
        check_memory(options.worker)
        return RayWorkers(elsewhere(spec, actors.place), actors)
    spec, count = place(choice, spec, options.memory)
    # where actors compute on processors, one reads while it computes and another does
    placed = spec if gpus_for(spec.device) else replace(spec, read_threads=1)
    return RayWorkers(placed, actors, count)


def elsewhere(spec: WorkerSpec, place: RayPlace) -> WorkerSpec:
    """The orders of a worker on a cluster, as far as they depend on what it takes of it."""
    if not place.gpus:  # one reads while it computes and another does
        return replace(spec, own_process=True, read_threads=1)
    read_threads, write_threads = lane_threads(1, int(place.cpus), 1)
    return replace(
        spec,
        own_process=True,
        sharing=max(1, round(1 / place.gpus)),
        read_threads=read_threads,
        write_threads=write_threads,
    )
