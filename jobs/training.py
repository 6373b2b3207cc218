"""``saccade train``: a configuration and its files become a training that goes on where it was.

Reads what is named, refuses to continue as another training, tells how far it is. Learns nothing
itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from saccade.jobs.identity import differences
from saccade.jobs.manifests.manifest import find_images
from saccade.jobs.monitoring.progress import duration
from saccade.pipeline.errors import Interrupted, ManifestError, ResumeRefused, StoreError
from saccade.pipeline.recipe_file import load_tree
from saccade.pipeline.truth import TruthRecipe, load_truth, read_split
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.facts import hash_of
from saccade.workers.folder import write_whole
from saccade.workers.tasks import ImageEntry
from saccade.workers.training.config import RayRecipe, TrainRecipe

if TYPE_CHECKING:
    from saccade.workers.training.card import Facts
    from saccade.workers.training.trainer import Moment, TrainJob

IDENTITY = "training.json"
"""What a training is; beside what it leaves behind."""
PLAIN_SECONDS = 10.0
"""Between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Materials:
    """Everything that a configuration names, found."""

    config: TrainRecipe
    """How to train."""
    folder: Path
    """Of the configuration: relative paths start there."""
    out: Path
    """Where what is left behind goes."""
    parts: Mapping[str, tuple[ImageEntry, ...]]
    """Images by part, in the order of the split."""
    truth: TruthRecipe
    """Of all images."""

    def part(self, name: str | None) -> tuple[ImageEntry, ...]:
        """The images of a part; none of no part."""
        return () if name is None else self.parts.get(name, ())

    def identity(self) -> dict[str, Any]:
        """What decides the weights: configuration, truth, who is in which part."""
        used = [name for name in (self.config.data.train, self.config.data.validation) if name]
        return {
            "config": self.config.identity(),
            "truth": self.truth.model_dump(mode="json", exclude={"path"}),
            "images": {name: [entry.name for entry in self.part(name)] for name in used},
        }


def train(
    path: Path,
    *,
    force: bool = False,
    address: str | None = None,
    console: Console | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Train as a file says, or go on where the same training stopped.

    Args:
        path: the configuration (YAML).
        force: start over what was trained otherwise.
        address: of a Ray cluster to train on, data-parallel.
        console: is told how far it is.
        stop: asked after every step; True ends it with a checkpoint.

    Returns:
        The folder that holds weights, card and recipe.

    Raises:
        UsageError: the configuration, or a file that it names, is wrong.
        ResumeRefused: the output folder holds another training.
        Interrupted: it was asked to stop; the same again goes on.
    """
    materials = gather(path)
    claim(materials, force)
    _train(materials, address, Told(console) if console else None, stop)
    return materials.out


def gather(path: Path) -> Materials:
    """Everything that a configuration names.

    Raises:
        UsageError: a file is missing or wrong, or an image of the split is in no manifest.
    """
    config, folder = load_tree(path, TrainRecipe), path.parent
    entries = {entry.name: entry for entry in find_images([str(folder / config.data.images)])}
    split = read_split(folder / config.data.split)
    wanted = {
        name: split.get(name, ()) for name in (config.data.train, config.data.validation) if name
    }
    if not wanted[config.data.train]:
        known = ", ".join(name for name, images in split.items() if images)
        raise ManifestError(
            f"{config.data.split}: images in part {config.data.train!r} expected to learn from; "
            f"found parts {known or 'none'}"
        )
    unknown = [name for names in wanted.values() for name in names if name not in entries]
    if unknown:
        raise ManifestError(
            f"{config.data.images}: every image of the split expected; not found: "
            f"{', '.join(unknown[:10])}"
        )
    parts = {part: tuple(entries[name] for name in names) for part, names in wanted.items()}
    truth = load_truth(folder / config.data.truth)
    return Materials(config, folder, folder / config.output.folder, parts, truth)


def claim(materials: Materials, force: bool) -> None:
    """Say whose the output folder is; refuse one that another training has begun.

    Raises:
        ResumeRefused: with every difference.
        StoreError: what the folder says of itself can't be understood.
    """
    path, now = materials.out / IDENTITY, materials.identity()
    then = _read(path)
    # a word that this version knows and an older one did not, left out, changes nothing
    lines = differences(then, now) if then is not None else ()
    if lines:
        if not force:
            listed = "\n  ".join(lines[:20])
            raise ResumeRefused(
                f"{materials.out}: trained with another configuration:\n  {listed}\n"
                "use another output.folder, put the old values back, or start over with --force"
            )
        for begun in ("checkpoints", "plans"):
            shutil.rmtree(materials.out / begun, ignore_errors=True)
    materials.out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(now, indent=1))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise StoreError(
            f"{path}: can't be understood ({error}); restore it, or use another output.folder"
        ) from error


def job_of(materials: Materials, device: str) -> TrainJob:
    """What the workers are asked to do."""
    from saccade.workers.training.trainer import TrainJob

    config, taught = materials.config, materials.config.distil.teacher
    return TrainJob(
        config=config,
        model_folder=materials.folder,
        out=materials.out,
        images=materials.part(config.data.train),
        validation=materials.part(config.data.validation),
        truth=materials.truth,
        device=device,
        teacher=materials.folder / taught if taught else None,
    )


def _train(
    materials: Materials,
    address: str | None,
    observe: Callable[[Moment], None] | None,
    stop: Callable[[], bool] | None,
) -> None:
    from saccade.jobs.hardware import choose_device
    from saccade.workers.device import gpu_count, set_threads
    from saccade.workers.training.card import Facts, leave_behind
    from saccade.workers.training.trainer import Trainer

    keep_large_blocks()
    config = materials.config
    job = job_of(materials, choose_device(config.device, gpu_count()))
    counts = {name: len(images) for name, images in materials.parts.items()}
    facts = Facts(hash_of(materials.identity()), counts)
    if config.ray is not None or address is not None:
        _train_on_ray(job, facts, address, stop)
        return
    if config.threads is not None:
        set_threads(config.threads)
    trainer = Trainer(job)
    trainer.resume()
    leave_behind(job, trainer.run(observe, stop), facts)


def _train_on_ray(
    job: TrainJob, facts: Facts, address: str | None, stop: Callable[[], bool] | None
) -> None:
    from saccade.workers.ray_settings import prepare_environment

    recipe = job.config.ray or RayRecipe()
    where = address or recipe.address or os.environ.get("RAY_ADDRESS")
    prepare_environment(where)
    from saccade.workers.training.ray_train import train_on_ray

    if not train_on_ray(job, facts, recipe.workers, where, stop):
        raise Interrupted("stopped on request; the same command goes on from the last checkpoint")


class Told:
    """Progress as lines, one every few seconds."""

    def __init__(self, console: Console) -> None:
        """Tell a console."""
        self._console, self._spoke = console, 0.0

    def __call__(self, moment: Moment) -> None:
        """Say how far it is, now and then and where something was measured."""
        over = moment.step == moment.steps
        if over or moment.metrics or moment.seconds - self._spoke >= PLAIN_SECONDS:
            self._spoke = moment.seconds
            self._console.print(line_of(moment), highlight=False, markup=False, soft_wrap=True)


def line_of(moment: Moment) -> str:
    """How far a training is, in one line."""
    parts = [f"step {moment.step}/{moment.steps}", f"loss {moment.losses['total']:.4f}"]
    answers = ((k.rpartition("/")[0], v) for k, v in moment.losses.items() if k.endswith("/answer"))
    parts += [f"{name} {value:.4f}" for name, value in answers]
    if moment.metrics:
        parts += [f"AP {name} {_mean(one)}" for name, one in moment.metrics.items()]
    left = (moment.steps - moment.step) * moment.seconds / max(1, moment.taken)
    if moment.step < moment.steps:
        parts.append(f"about {duration(left)} left")
    return " | ".join(parts)


def _mean(metrics: Mapping[str, float | None]) -> str:
    known: Sequence[float] = [value for value in metrics.values() if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "none"
