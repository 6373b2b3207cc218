"""Opening a run's folder: is it the same run, what is done, what is left, who works on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.jobs.catalogue import Catalogue
from saccade.jobs.claiming import claim, folder_locked, refuse_living
from saccade.jobs.evidence import charge, crash_logged, crashed
from saccade.jobs.hardware import (
    WorkerChoice,
    choose_device,
    cpus,
    memory_nbytes,
    threads_per_worker,
    worker_count,
)
from saccade.jobs.identity import RunIdentity, read_identity, write_identity
from saccade.jobs.journal import Journal, Replay
from saccade.jobs.options import RunOptions
from saccade.jobs.placing import gpus_for, place
from saccade.jobs.resuming import Asked, images_to_restart, start_over
from saccade.jobs.settling import settle
from saccade.jobs.starting import ray_address, ray_begun, seems_ended
from saccade.jobs.stock import Stock
from saccade.jobs.tally import Tally
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import recipe_text
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.device import gpu_count
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.local import LocalWorkers
from saccade.workers.outcome import Workers
from saccade.workers.tasks import ImageEntry, WorkerSpec

if TYPE_CHECKING:
    from saccade.workers.actor import EmptyActors


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run's folder, ready to be worked on by one driver."""

    folder: RunFolder
    """Where everything stands."""
    recipe: Recipe
    """What is run."""
    journal: Journal
    """This driver's."""
    replay: Replay
    """What earlier drivers did."""
    tally: Tally
    """The same, counted for people; of the images asked for now."""
    asked: Catalogue
    """Images asked for now, of this driver's part of the run."""
    unfinished: Catalogue
    """Of them, those that are neither complete nor set aside."""
    workers: Workers
    """Not yet started."""


@contextmanager
def open_run(
    root: Path,
    recipe: Recipe,
    model_folder: Path,
    entries: Catalogue | Iterable[ImageEntry],
    options: RunOptions,
) -> Iterator[OpenRun]:
    """Take a run's folder, or a part of it, over for the length of a block.

    Raises:
        ResumeRefused: the folder belongs to another recipe, other weights or other images.
        RunError: another living driver works on images of this part.
    """
    keep_large_blocks()
    folder = RunFolder(root.absolute())
    listed = entries if isinstance(entries, Catalogue) else Catalogue.spooled(entries)
    asked = listed.shard(options.shard)
    choice = WorkerChoice.parse(options.workers)
    device = choose_device(options.device, gpu_count())
    threads = _torch_threads(folder, options)
    ended = seems_ended(folder.journal, asked.names, options)
    with ExitStack() as stack:
        stack.enter_context(ray_begun(options, needed=not ended))
        actors = None if ended else _empty_actors(choice, device, threads, options)
        now = RunIdentity.of(recipe, model_folder, device, threads)
        stock = Stock.taken(folder.journal, asked.names, options.shard)
        with folder_locked(folder.lock):
            # another driver may have settled it since
            now = replace(now, torch_threads=_torch_threads(folder, options))
            journal = stack.enter_context(_take_over(folder, now, asked, stock, options))
            _write_facts(folder, now, recipe, model_folder, listed)
            settled = settle(folder, recipe, now.model_hashes, model_folder)
        spec = _worker_spec(folder, settled, model_folder, now, device, options)
        crash = _charge_crash(folder, journal, stock)
        if choice.kind == "local":
            stack.enter_context(crash_logged(folder, journal.epoch, options.shard))
            # the next crash tells which unit it was only if no other is in flight here
            choice = replace(choice, count=1) if crash else choice
        stock.update()
        unfinished = asked.part(stock.tally.unfinished())
        if ended and len(unfinished):
            stack.enter_context(ray_begun(options))
            actors = _empty_actors(choice, device, now.torch_threads, options)
        workers = _workers(choice, spec, options, actors)
        stack.callback(workers.close)
        yield OpenRun(
            folder, recipe, journal, stock.replay, stock.tally, asked, unfinished, workers
        )


def _torch_threads(folder: RunFolder, options: RunOptions) -> int:
    """Of a forward pass: as the run was begun, else as suits this host."""
    then = read_identity(folder)
    return then.torch_threads if then else threads_per_worker(cpus(), memory_nbytes(options.memory))


def _take_over(
    folder: RunFolder,
    now: RunIdentity,
    asked: Catalogue,
    stock: Stock,
    options: RunOptions,
) -> Journal:
    """Begin an epoch, once nothing speaks against it, and images anew where they have to."""
    refuse_living(folder.journal, options.shard)
    stock.update()
    wanted = Asked(asked, Catalogue.opened(folder.images), options)
    restarted = images_to_restart(folder, stock.history, read_identity(folder), now, wanted)
    journal = claim(folder.journal, options.shard)
    try:
        start_over(folder, journal, restarted)
    except BaseException:
        journal.close()
        raise
    return journal


def _charge_crash(folder: RunFolder, journal: Journal, stock: Stock) -> str:
    """Charge a crash of the driver before to its unit; says how it crashed, or nothing."""
    crash = crashed(folder, journal)
    if crash:
        stock.update()
        charge(journal, crash, stock.replay)
    return crash


# ------------------------------------------------------------------------------ what stands there


def _write_facts(
    folder: RunFolder,
    identity: RunIdentity,
    recipe: Recipe,
    model_folder: Path,
    listed: Catalogue,
) -> None:
    write_identity(folder, identity, model_folder)
    write_whole(folder.recipe, recipe_text(recipe))
    listed.merged_into(folder.images, Catalogue.opened(folder.images))


# ------------------------------------------------------------------------------- who works on it?


def _worker_spec(
    folder: RunFolder,
    recipe: Recipe,
    model_folder: Path,
    identity: RunIdentity,
    device: str,
    options: RunOptions,
) -> WorkerSpec:
    return WorkerSpec(
        folder=folder.root,
        recipe_json=recipe.canonical_json(),
        model_folder=model_folder,
        provenance=identity.provenance(),
        device=device,
        torch_threads=identity.torch_threads,
        limit=options.memory if device == "cpu" else options.gpu_memory,
        fsync=options.fsync,
    )


def _empty_actors(
    choice: WorkerChoice, device: str, torch_threads: int, options: RunOptions
) -> EmptyActors | None:
    """The processes of workers on Ray, on their way before their work is settled.

    As many as the processors carry: those that turn out not to fit the memory are let go.
    """
    if choice.kind == "local":
        return None
    from saccade.workers.actor import EmptyActors, RayPlace

    address, gpus = ray_address(options), gpus_for(device)
    count = worker_count(choice, gpus, cpus(), torch_threads)
    ray_place = RayPlace(
        address=address,
        cpus=min(torch_threads, cpus() / count) if address is None else torch_threads,
        gpus=min(1.0, gpus / count) if gpus else 0,
    )
    return EmptyActors(choice.count if address else count, ray_place)


def _workers(
    choice: WorkerChoice, spec: WorkerSpec, options: RunOptions, actors: EmptyActors | None
) -> Workers:
    spec, count = place(choice, spec, options.memory)
    if actors is None:  # also on Ray where nothing is left to do: workers that never start
        return LocalWorkers(spec, count)
    from saccade.workers.actor import RayWorkers

    most = None if ray_address(options) else count
    # where actors compute on processors, one reads while it computes and another does
    placed = spec if gpus_for(spec.device) else replace(spec, read_threads=1)
    return RayWorkers(placed, actors, most)
