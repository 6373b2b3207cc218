"""Opening a run's folder: is it the same run, what is done, what is left, who works on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.jobs.hardware import WorkerChoice, cpus, threads_per_worker, worker_count
from saccade.jobs.identity import RunIdentity, check_same, read_identity, write_identity
from saccade.jobs.journal import Journal, Replay, read_records, replay
from saccade.jobs.manifest import entry_from_json, entry_to_json
from saccade.jobs.options import RunOptions
from saccade.jobs.settling import settle
from saccade.jobs.tally import Tally
from saccade.pipeline.errors import ResumeRefused, UsageError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import recipe_text
from saccade.pipeline.sources.base import Identity
from saccade.pipeline.store_shelf import LocalShelf
from saccade.workers.device import gpu_count
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.local import LocalWorkers
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
    unfinished: tuple[ImageEntry, ...]
    """Images that are neither complete nor set aside."""
    workers: Workers
    """Not yet started."""


@contextmanager
def open_run(
    root: Path,
    recipe: Recipe,
    model_folder: Path,
    entries: Sequence[ImageEntry],
    options: RunOptions,
) -> Iterator[OpenRun]:
    """Take a run's folder over for the length of a block.

    Raises:
        ResumeRefused: the folder belongs to another recipe, other weights or other images.
    """
    folder = RunFolder(root.absolute())
    choice = WorkerChoice.parse(options.workers)
    device = _device(options.device)
    then = read_identity(folder)
    threads = then.torch_threads if then else threads_per_worker(cpus())
    now = RunIdentity.of(recipe, model_folder, device, threads)
    restarted = _to_restart(folder, then, now, entries, options.force)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal.open(folder.journal))
        _start_over(folder, journal, restarted)
        _write_facts(folder, now, recipe, entries)
        settled = settle(folder, recipe, now.model_hashes, model_folder)
        spec = _worker_spec(folder, settled, model_folder, now, device, options)
        workers = _workers(choice, spec, options)
        stack.callback(workers.close)
        done = replay(folder.journal)
        tally = _tally(folder, entries)
        unfinished = tuple(
            e for e in entries if tally.images[e.name].state in ("waiting", "running")
        )
        for entry in unfinished:
            LocalShelf(folder.result(entry.name)).sweep_partials()
        yield OpenRun(folder, recipe, journal, done, tally, unfinished, workers)


def _device(asked: str) -> str:
    """'auto' as what there is."""
    gpus = gpu_count()
    if asked == "auto":
        return "cuda" if gpus else "cpu"
    if asked.startswith("cuda") and not gpus:
        raise UsageError(f"--device {asked}: no GPU found here; use 'cpu' or 'auto'")
    return asked


# ---------------------------------------------------------------------------- is it the same run?


def _to_restart(
    folder: RunFolder,
    then: RunIdentity | None,
    now: RunIdentity,
    entries: Sequence[ImageEntry],
    force: bool,
) -> set[str]:
    """Images to begin anew: all known ones when the recipe changed, else those that changed.

    Raises:
        ResumeRefused: something changed, and ``force`` was not given.
    """
    if then is None:
        return set()
    known = known_images(folder)
    if then.differences(now):
        if not force:
            check_same(folder, then, now)
        return set(known)
    changed = _changes(folder, known, entries)
    if changed and not force:
        listed = "\n  ".join(f"{name}: {why}" for name, why in list(changed.items())[:20])
        raise ResumeRefused(
            f"{folder.root}: these images are not those that the run was made from:\n  {listed}\n"
            "put the old files back, or start these images over with --force"
        )
    return set(changed)


def known_images(folder: RunFolder) -> dict[str, ImageEntry]:
    """The images of earlier calls, by name."""
    if not folder.images.exists():
        return {}
    entries = map(entry_from_json, folder.images.read_text().splitlines())
    return {entry.name: entry for entry in entries}


def _changes(
    folder: RunFolder, known: Mapping[str, ImageEntry], entries: Iterable[ImageEntry]
) -> dict[str, str]:
    """What is different about images that the run already knows, by name."""
    identities = _recorded_identities(folder)
    changes = {}
    for entry in entries:
        before = known.get(entry.name)
        if before is None:
            continue
        if (before.pixel_size, before.overrides) != (entry.pixel_size, entry.overrides):
            changes[entry.name] = "its row in the manifest changed"
        elif why := _moved_on(identities.get(entry.name), Path(entry.uri)):
            changes[entry.name] = why
    return changes


def _recorded_identities(folder: RunFolder) -> dict[str, Identity]:
    """What each image was when it was prepared."""
    return {
        record["image"]: Identity(**record["identity"])
        for record in read_records(folder.journal)
        if "identity" in record
    }


def _moved_on(then: Identity | None, path: Path) -> str:
    """How a file differs from what it was, by size and time; empty where it does not."""
    if then is None or path.is_dir():
        return ""
    stat = path.stat()
    if stat.st_size != then.nbytes:
        return f"{path} was {then.nbytes} bytes, is {stat.st_size}"
    if stat.st_mtime_ns != then.modified_ns:
        return f"{path} was modified since"
    return ""


def _start_over(folder: RunFolder, journal: Journal, names: Iterable[str]) -> None:
    """Forget what was made of some images; written down first, so that a crash forgets nothing."""
    for name in sorted(names):
        journal.append({"kind": "restart", "image": name})
        for path in (folder.result(name), folder.image_plan(name).parent):
            if path.exists():
                shutil.rmtree(path)


def _write_facts(
    folder: RunFolder, identity: RunIdentity, recipe: Recipe, entries: Iterable[ImageEntry]
) -> None:
    write_identity(folder, identity)
    write_whole(folder.recipe, recipe_text(recipe))
    union = known_images(folder) | {entry.name: entry for entry in entries}
    write_whole(folder.images, "".join(entry_to_json(e) + "\n" for e in union.values()))


def _tally(folder: RunFolder, entries: Iterable[ImageEntry]) -> Tally:
    tally = Tally.of(entry.name for entry in entries)
    for record in read_records(folder.journal):
        tally.add(record)
    return tally


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
        fsync=options.fsync,
    )


def _workers(choice: WorkerChoice, spec: WorkerSpec, options: RunOptions) -> Workers:
    gpus = gpu_count() if spec.device != "cpu" else 0
    count = worker_count(choice, gpus, cpus(), spec.torch_threads)
    if choice.kind == "local":
        return LocalWorkers(spec, count)
    from saccade.workers.actor import RayPlace, RayWorkers

    place = RayPlace(
        address=options.address,
        cpus=min(spec.torch_threads, cpus() / count),
        gpus=gpus / count if gpus else 0,
    )
    return RayWorkers(replace(spec, read_threads=1), count, place)
