"""How a run is carried out, as opposed to what is run. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.workers.memory_size import MemoryLimit


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
    images_open: int = 0
    """Images in flight at once; 0 is one more than there are workers."""
    max_failures: int = 3
    """Failures of one unit after which its image is set aside."""
    grace_seconds: float = 30.0
    """Time for units in flight when the run is asked to stop."""
    unit_timeout_seconds: float = 1800.0
    """A worker that is silent for so long over one unit is ended."""
    force: bool = False
    """Start over what was made with another recipe, weights or image."""
    retry: bool = False
    """Begin images again that were set aside."""
    fsync: bool = False
    """Force every shard to disk before its receipt; for storage that may lose power."""
    metrics_file: Path | None = None
    """Kept up to date with what the run counts, in Prometheus' text format."""
