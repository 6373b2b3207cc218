"""How a run is carried out, as opposed to what is run. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saccade.jobs.journals.sharing import WHOLE, Shard
from saccade.jobs.limits import QuarantineLimit
from saccade.pipeline.errors import UsageError
from saccade.workers.memory_size import MemoryLimit


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """What each worker takes of a cluster; None leaves it to the cluster's machines."""

    cpus: float | None = None
    """Processors, and threads of a forward pass in a run that is begun so."""
    gpus: float | None = None
    """GPUs; a fraction of one is shared with other workers."""
    memory_nbytes: int | None = None
    """Memory of the machine that it may hold."""

    def __post_init__(self) -> None:
        for name, least in (("cpus", 1e-9), ("gpus", 0), ("memory_nbytes", 1)):
            found = getattr(self, name)
            if found is not None and found < least:
                option = f"--worker-{name.removesuffix('_nbytes')}"
                raise UsageError(f"{option}: a positive amount expected; found {found}")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise UsageError(
                f"--worker-gpus: a whole number, or a fraction of one, expected; found {self.gpus}"
            )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, as opposed to what: none of it changes a byte of the result."""

    workers: str = "ray"
    """'local' (in this process) or 'ray' (as actors), with a count after a colon: 'ray:4'."""
    address: str | None = None
    """Of a Ray cluster; None starts a local one."""
    device: str = "auto"
    """'cpu', 'cuda', or 'auto': a GPU where there is one."""
    memory: MemoryLimit | None = None
    """What the run may hold of a host's memory; None leaves it to what is available."""
    gpu_memory: MemoryLimit | None = None
    """What the run may hold of each GPU's memory, likewise."""
    worker: WorkerSize = field(default_factory=WorkerSize)
    """What each worker takes of a cluster."""
    images_open: int = 0
    """Images in flight at once; 0 is three for each worker, and one."""
    max_failures: int = 3
    """Failures of one unit after which its image is set aside."""
    max_quarantined: QuarantineLimit | None = None
    """Images set aside after which the run stops; None goes on whatever their number."""
    shard: Shard = WHOLE
    """The part of the run's images that this driver works on."""
    grace_seconds: float = 30.0
    """Time for units in flight when the run is asked to stop."""
    unit_timeout_seconds: float = 1800.0
    """A worker that is silent for so long over one unit is ended, as long as nothing like it was
    done; then what such units took says how long."""
    force: bool = False
    """Start over what was made with another recipe, weights or image."""
    retry: bool = False
    """Begin images again that were set aside."""
    results: str | None = None
    """Where results go: a URI in an object store; None leaves them in the run's folder, or where
    it is known to have them."""
    skip_missing: bool = False
    """Go on without images, rows and names that can't be used."""
    fsync: bool = False
    """Force every shard to disk before its receipt; for storage that may lose power."""
    metrics_file: Path | None = None
    """Kept up to date with what the run counts, in Prometheus' text format."""
