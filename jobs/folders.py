"""Opening a run's folder: is it the same run, what is done, what is left, who works on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from saccade.jobs.evidence import charge, crash_logged, crashed
from saccade.jobs.hardware import WorkerChoice, cpus, threads_per_worker, worker_count
from saccade.jobs.identity import RunIdentity, check_same, read_identity, write_identity
from saccade.jobs.journal import Journal, Record, Replay, read_records, replay
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
from saccade.workers.ray_settings import prepare_environment
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
    restarted = _to_restart(folder, then, now, entries, options)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal.open(folder.journal))
        _start_over(folder, journal, restarted)
        _write_facts(folder, now, recipe, entries)
        settled = settle(folder, recipe, now.model_hashes, model_folder)
        spec = _worker_spec(folder, settled, model_folder, now, device, options)
        crash = _take_stock(folder, journal)
        if choice.kind == "local":
            stack.enter_context(crash_logged(folder, journal.epoch))
            # the next crash tells which unit it was only if no other is in flight here
            choice = replace(choice, count=1) if crash else choice
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


def _take_stock(folder: RunFolder, journal: Journal) -> str:
    """Charge a crash of the driver before to its unit; says how it crashed, or nothing."""
    crash = crashed(folder, journal)
    if crash:
        charge(journal, crash, replay(folder.journal))
    return crash


# ---------------------------------------------------------------------------- is it the same run?


def _to_restart(
    folder: RunFolder,
    then: RunIdentity | None,
    now: RunIdentity,
    entries: Sequence[ImageEntry],
    options: RunOptions,
) -> set[str]:
    """Images to begin anew: all known ones when the recipe changed, else those that changed.

    Those that were being begun anew when their driver died are among them, and with ``retry``
    those that were set aside.

    Raises:
        ResumeRefused: something changed, and ``force`` was not given.
    """
    history = _History.read(folder)
    if then is None:
        return history.half_restarted
    known = known_images(folder)
    if then.differences(now):
        if history.receipts and not options.force:
            check_same(folder, then, now)
        return set(known)
    again = history.half_restarted | (history.set_aside if options.retry else set())
    changed = _changes(known, history, [e for e in entries if e.name not in again])
    if changed and not options.force:
        listed = "\n  ".join(f"{name}: {why}" for name, why in list(changed.items())[:20])
        raise ResumeRefused(
            f"{folder.root}: these images are not those that the run was made from:\n  {listed}\n"
            "put the old files back, or start these images over with --force"
        )
    return set(changed) | again


@dataclass
class _History:
    """What the journal says of images, as far as it decides which of them begin anew."""

    identities: dict[str, Identity] = field(default_factory=dict)
    """What each image was when it was prepared."""
    half_restarted: set[str] = field(default_factory=set)
    """Images of which nothing was done since they were to begin anew."""
    set_aside: set[str] = field(default_factory=set)
    """Images that were quarantined."""
    receipts: int = 0
    """Units done, all images; where there is none, nothing can be lost."""

    @classmethod
    def read(cls, folder: RunFolder) -> _History:
        """From the journal of a run; empty for a new one."""
        history = cls()
        for record in read_records(folder.journal):
            history._take_in(record)
        return history

    def _take_in(self, record: Record) -> None:
        kind, image = record["kind"], record.get("image", "")
        if kind == "receipt":
            self.receipts += 1
            self.half_restarted.discard(image)
        elif kind == "quarantine":
            self.set_aside.add(image)
        elif kind == "restart":
            self.half_restarted.add(image)
            self.set_aside.discard(image)
            self.identities.pop(image, None)
        if "identity" in record:
            self.identities[image] = Identity(**record["identity"])


def known_images(folder: RunFolder) -> dict[str, ImageEntry]:
    """The images of earlier calls, by name."""
    if not folder.images.exists():
        return {}
    entries = map(entry_from_json, folder.images.read_text().splitlines())
    return {entry.name: entry for entry in entries}


def _changes(
    known: Mapping[str, ImageEntry], history: _History, entries: Iterable[ImageEntry]
) -> dict[str, str]:
    """What is different about images that were prepared before, by name."""
    changes = {}
    for entry in entries:
        before, identity = known.get(entry.name), history.identities.get(entry.name)
        if before is None or identity is None:
            continue
        if why := _row_changed(before, entry) or _moved_on(identity, Path(entry.uri)):
            changes[entry.name] = why
    return changes


def _row_changed(then: ImageEntry, now: ImageEntry) -> str:
    """What else is asked of an image than before; empty where it is the same."""
    for what in ("mpp", "gsd", "overrides"):
        before, after = getattr(then, what), getattr(now, what)
        if before != after:
            return f"{what} was {before or 'not given'}, is {after or 'not given'}"
    return ""


def _moved_on(then: Identity, path: Path) -> str:
    """How a file differs from what it was, by size and time; empty where it does not."""
    if path.is_dir():
        return ""
    try:
        stat = path.stat()
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
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
    address = options.address or os.environ.get("RAY_ADDRESS")
    prepare_environment(address)
    from saccade.workers.actor import RayPlace, RayWorkers

    place = RayPlace(
        address=address,
        cpus=min(spec.torch_threads, cpus() / count) if address is None else spec.torch_threads,
        gpus=min(1.0, gpus / count) if gpus else 0,
    )
    asked = choice.count if address else count
    return RayWorkers(replace(spec, read_threads=1), asked, place)
