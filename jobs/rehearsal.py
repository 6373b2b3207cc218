"""A recipe resolved on one image without a run: what `saccade tune` and `saccade plan` look at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saccade.jobs.hardware import (
    WorkerChoice,
    choose_device,
    cpus,
    memory_nbytes,
    threads_per_worker,
)
from saccade.jobs.placing import place
from saccade.jobs.settling import settle
from saccade.pipeline.models.loading import fingerprint
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources.base import Source
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.context import WorkerContext
from saccade.workers.device import gpu_count
from saccade.workers.folder import RunFolder
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.resolving import Resolver
from saccade.workers.tasks import ImageEntry, WorkerSpec
from saccade.workers.tuning import SECONDS


@dataclass(frozen=True, slots=True)
class Conditions:
    """On what a recipe is tried."""

    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1', 'auto' or 'simulated:8GiB'."""
    workers: str = "ray"
    """As in a run; none is started."""
    memory: MemoryLimit | None = None
    """What the run may hold of a host's memory."""
    gpu_memory: MemoryLimit | None = None
    """What the run may hold of each GPU's."""
    mpp: float | None = None
    """Micrometres per pixel of level 0, where the file is silent or wrong."""
    gsd: float | None = None
    """Metres per pixel, likewise."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One image, open, before one worker of a run that is never made."""

    resolver: Resolver
    """Lays the recipe over the image."""
    spec: WorkerSpec
    """Of the worker."""
    count: int
    """Workers that a run would have on this host."""


@contextmanager
def rehearse(
    recipe: Recipe,
    model_folder: Path,
    uri: str,
    conditions: Conditions,
    *,
    fresh: bool = False,
    seconds: float = SECONDS,
) -> Iterator[Rehearsal]:
    """Everything as a run would have it, for the length of a block.

    Args:
        recipe: to be tried.
        model_folder: what relative paths of models are relative to.
        uri: of the image.
        conditions: on what.
        fresh: measure speeds although the user's cache knows them.
        seconds: time for measuring speeds, all passes together.

    Raises:
        SaccadeError: the recipe or the image does not open, or they do not fit each other.
    """
    keep_large_blocks()
    device = choose_device(conditions.device, gpu_count())
    with tempfile.TemporaryDirectory() as scratch:
        # a run settles models the same way, so that both look for the same thing in the cache
        hashes = {one.name: fingerprint(one.model, model_folder) for one in recipe.passes}
        settled = settle(RunFolder(Path(scratch)), recipe, hashes, model_folder)
        limit = conditions.memory if device == "cpu" else conditions.gpu_memory
        spec = WorkerSpec(
            folder=Path(scratch),
            recipe_json=settled.canonical_json(),
            model_folder=model_folder,
            device=device,
            torch_threads=threads_per_worker(cpus(), memory_nbytes(conditions.memory)),
            limit=limit,
        )
        spec, count = place(WorkerChoice.parse(conditions.workers), spec, conditions.memory)
        entry = ImageEntry("image", uri, mpp=conditions.mpp, gsd=conditions.gsd)
        context = WorkerContext(spec)
        source: Source = context.opened(entry)
        try:
            resolver = context.resolver(entry, source, fresh=fresh, seconds=seconds)
            yield Rehearsal(resolver, spec, count)
        finally:
            source.close()
