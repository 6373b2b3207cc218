"""Opening a run's folder: is it the same run, what is done, what is left, who works on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.jobs.hardware import WorkerChoice, choose_device
from saccade.jobs.identity import RunIdentity, read_identity, write_identity
from saccade.jobs.journals.claiming import claim, folder_locked, refuse_living
from saccade.jobs.journals.evidence import charge, crash_logged, crashed
from saccade.jobs.journals.journal import Journal, Replay
from saccade.jobs.journals.stock import Stock
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.options import RunOptions
from saccade.jobs.results_place import settle_results
from saccade.jobs.resuming import Asked, images_to_restart, start_over
from saccade.jobs.settling import settle
from saccade.jobs.starting import ray_begun, seems_ended
from saccade.jobs.workforce import empty_actors, forward_threads, gpus_in_reach, workers_for
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import recipe_text
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.outcome import Workers
from saccade.workers.tasks import ImageEntry, WorkerSpec


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
    device = choose_device(options.device, gpus_in_reach(options))
    threads = _torch_threads(folder, options)
    ended = seems_ended(folder.journal, asked.names, options)
    with ExitStack() as stack:
        stack.enter_context(ray_begun(options, needed=not ended))
        actors = None if ended else empty_actors(choice, device, threads, options)
        now = RunIdentity.of(recipe, model_folder, device, threads)
        stock = Stock.taken(folder.journal, asked.names, options.shard)
        with folder_locked(folder.lock):
            # another driver may have settled it since
            now = replace(now, torch_threads=_torch_threads(folder, options))
            known = read_identity(folder) is not None
            results = settle_results(folder, options.results, known=known)
            journal = stack.enter_context(_take_over(folder, now, asked, stock, options))
            _write_facts(folder, now, recipe, model_folder, results)
            listed.merged_into(folder.images, Catalogue.opened(folder.images))
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
            actors = empty_actors(choice, device, now.torch_threads, options)
        workers = workers_for(choice, spec, options, actors)
        stack.callback(workers.close)
        yield OpenRun(
            folder, recipe, journal, stock.replay, stock.tally, asked, unfinished, workers
        )


def _torch_threads(folder: RunFolder, options: RunOptions) -> int:
    """Of a forward pass: as the run was begun, else as suits this host."""
    then = read_identity(folder)
    return then.torch_threads if then else forward_threads(options)


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
    results: str | None,
) -> None:
    write_identity(folder, identity, model_folder, results)
    write_whole(folder.recipe, recipe_text(recipe))


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
