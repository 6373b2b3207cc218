"""What travels to a worker: coordinates and settings, never pixels. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.pipeline.plan import Unit
from saccade.pipeline.sources.base import PixelSize
from saccade.workers.memory_host import MOST_READ_NBYTES, MOST_WRITE_NBYTES
from saccade.workers.memory_size import MemoryLimit


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image of the archive, as the manifest names it."""

    name: str
    """Names the image in the run; safe as a file name."""
    uri: str
    """Where its pixels are."""
    mpp: float | None = None
    """Micrometres per pixel of level 0, where the file is silent or wrong."""
    gsd: float | None = None
    """Metres per pixel of level 0, where the file is silent or wrong."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the recipe for this image alone."""
    pixels: int | None = None
    """Pixels of level 0 where the manifest says, to estimate the cost by; nothing relies on it."""

    @property
    def pixel_size(self) -> PixelSize | None:
        """The override, if there is one."""
        if self.mpp is not None:
            return PixelSize(self.mpp, self.mpp, "um")
        return None if self.gsd is None else PixelSize(self.gsd, self.gsd, "m")


@dataclass(frozen=True, slots=True)
class Task:
    """One unit, to be done by whoever gets it."""

    unit: Unit
    """What to do."""
    attempt: int
    """Which try this is; comes back in the receipt."""
    entry: ImageEntry
    """The image it belongs to."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    """For *finalise*: seconds and dates of the passes, for the record."""
    helps: bool = False
    """Whether another worker has the unit, and this one answers batches ahead of it."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything a worker needs to know once."""

    folder: Path
    """The run."""
    recipe_json: str
    """The recipe, whole."""
    model_folder: Path
    """What relative paths of models are relative to: the recipe's own folder."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Written into every result: recipe, versions, model hashes."""
    device: str = "cpu"
    """'cpu', 'cuda', 'cuda:1'..."""
    torch_threads: int = 1
    """Threads of one forward pass on a CPU."""
    read_threads: int = 2
    """Windows read at once."""
    write_threads: int = 1
    """Units written at once."""
    read_nbytes: int = MOST_READ_NBYTES
    """Pixels that may wait for the device."""
    write_nbytes: int = MOST_WRITE_NBYTES
    """Scores that may wait for storage."""
    limit: MemoryLimit | None = None
    """What all workers on one device may hold of its memory; None leaves it to what there is."""
    sharing: int = 1
    """Workers that share the device: those of a host where it is a CPU."""
    own_process: bool = False
    """Whether each worker is a process of its own, beside the driver's."""
    fsync: bool = False
    """Whether shards are forced to disk before their receipt; survives a power cut."""

    def __post_init__(self) -> None:
        if min(self.torch_threads, self.read_threads, self.write_threads) < 1:
            raise ValueError(f"a worker has a thread or more in every lane; found {self}")
