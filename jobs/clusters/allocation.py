"""What a run asks of Slurm: how it is divided, where it goes, what comes before it.

Values and their rules; knows no Slurm. ``rendering.slurm`` writes them down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from saccade.pipeline.errors import UsageError


class Mode(StrEnum):
    """How a run is laid upon Slurm."""

    ARRAY = "array"
    """A job array: independent drivers, each with a part of the images."""
    RAY = "ray"
    """One job of several nodes, which carry a Ray."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is asked for beside the run itself."""

    mode: Mode = Mode.ARRAY
    """Many small jobs, or one large one."""
    count: int = 1
    """Of parts, each a task of the array; or of nodes."""
    partition: str | None = None
    """None is the cluster's own choice; likewise below."""
    account: str | None = None
    """Who pays."""
    options: tuple[str, ...] = ()
    """More of sbatch: '--exclusive', '--constraint=a100'."""
    setup: tuple[str, ...] = ()
    """Lines of bash before the run: 'module load cuda'."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--shards, --nodes: 1 or more expected; found {self.count}")
        for option in self.options:
            if not option.startswith("-") or "\n" in option:
                raise UsageError(
                    f"--sbatch: an option such as '--constraint=a100' expected; found {option!r}"
                )
