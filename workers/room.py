"""How many workers a cluster carries, and what each may hold. Pure; knows no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from saccade.workers.memory_host import LaneBudgets
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.tasks import WorkerSpec


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine of a cluster offers."""

    cpus: float
    """Processors."""
    gpus: float
    """GPUs."""
    memory_nbytes: int
    """Memory."""

    @classmethod
    def of_resources(cls, has: Mapping[str, Any]) -> Node:
        """From what a scheduler says of a machine: 'CPU', 'GPU', 'memory' in bytes."""
        return cls(has.get("CPU", 0.0), has.get("GPU", 0.0), int(has.get("memory", 0)))


@dataclass(frozen=True, slots=True)
class RayPlace:
    """Which Ray, and what each worker takes of it."""

    address: str | None = None
    """Of a cluster; None starts a Ray of its own on this machine."""
    cpus: float = 1
    """Processors that Ray accounts to one worker."""
    gpus: float = 0
    """GPUs, or a fraction of one, that Ray accounts to one worker."""
    memory_nbytes: int = 0
    """Memory that Ray accounts to one worker, and that it keeps to; 0 is not settled."""

    def carried_by(self, node: Node) -> int:
        """Workers of this kind for which a node has room."""
        shares = [(node.cpus, self.cpus), (node.gpus, self.gpus)]
        shares.append((node.memory_nbytes, self.memory_nbytes))
        # a thousandth more, because fractions such as a third of a GPU do not add up to one
        return int(min((has / takes + 1e-3 for has, takes in shares if takes), default=1))

    def settled(self, nodes: Iterable[Node]) -> RayPlace:
        """With memory: as stated, else an even part of the node that has the least for each."""
        if self.memory_nbytes:
            return self
        parts = [n.memory_nbytes // self.carried_by(n) for n in nodes if self.carried_by(n)]
        return replace(self, memory_nbytes=min(parts, default=0))


def missing(nodes: Iterable[Node], place: RayPlace, asked: int | None, have: int) -> int:
    """Workers to begin beside those that there are.

    Args:
        nodes: of the cluster, as it is now.
        place: what each worker takes.
        asked: the number stated: it may wait for nodes that are yet to come; None follows the
            cluster as it grows.
        have: workers that stand or are waited for.
    """
    wanted = asked or max(1, sum(map(place.carried_by, nodes)))
    return max(0, wanted - have)


def spec_on(place: RayPlace, spec: WorkerSpec) -> WorkerSpec:
    """A worker's orders where a cluster's scheduler sets memory aside for it.

    Lanes take their parts of that memory; on a CPU it is also the limit of the forward passes.
    """
    if not place.memory_nbytes:
        return spec
    lanes = LaneBudgets.within(place.memory_nbytes)
    spec = replace(spec, read_nbytes=lanes.read_nbytes, write_nbytes=lanes.write_nbytes)
    if spec.device != "cpu":
        return spec
    return replace(spec, limit=MemoryLimit(nbytes=place.memory_nbytes), sharing=1)


def spec_within(node: Node, place: RayPlace, spec: WorkerSpec) -> WorkerSpec:
    """The orders of a worker for which no memory is set aside: it shares its node."""
    if place.address is None or place.memory_nbytes or spec.device != "cpu":
        return spec
    return replace(spec, sharing=max(1, place.carried_by(node)))
