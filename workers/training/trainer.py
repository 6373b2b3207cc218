"""Steps: groups in, weights changed; checkpoints that go on exactly where they were.

Everything a step depends on is in its checkpoint or follows from seed and step. Knows no command
line and no way of reading a configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from saccade.pipeline.errors import Interrupted
from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.truth import TruthRecipe
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry
from saccade.workers.training.batch import Batch, collate
from saccade.workers.training.checkpoint import Checkpoint, last_checkpoint, save_checkpoint
from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.feeding import Feeder
from saccade.workers.training.forward import answer_batch, losses_of
from saccade.workers.training.frozen import Freezer, FrozenImage, freeze_images
from saccade.workers.training.groups import Group, Visit
from saccade.workers.training.indexing import index_images
from saccade.workers.training.journal import StepLog
from saccade.workers.training.learners import Learners, build_learners
from saccade.workers.training.mining import from_plain, merged, mined, to_plain
from saccade.workers.training.reading import TrainingImage, read_visit
from saccade.workers.training.rounds import Rounds, Tables
from saccade.workers.training.running import recipe_to_run
from saccade.workers.training.sampling import is_transposed, keeps_guidance, survey
from saccade.workers.training.schedule import Schedule
from saccade.workers.training.sights import check_classes, check_shared, nbytes_of, sights_of
from saccade.workers.training.state import Average, clip, make_optimiser, set_rate
from saccade.workers.training.team import Alone, Team
from saccade.workers.training.validating import validate

MIB = 2**20
MANY_STEPS = 1_000_003
"""Draws of two steps never come from one seed: steps are counted in multiples of this."""

Metrics = dict[str, dict[str, float | None]]
Observe = Callable[["Moment"], None]


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What is trained, on which images, where."""

    config: TrainRecipe
    """How."""
    model_folder: Path
    """Relative paths of models start there."""
    out: Path
    """What is left behind goes there."""
    images: tuple[ImageEntry, ...]
    """Learned from."""
    validation: tuple[ImageEntry, ...]
    """Measured on; may be none."""
    truth: TruthRecipe
    """Of all of them."""
    device: str = "cpu"
    """As torch names it."""
    teacher: Path | None = None
    """A run whose answers are soft truth."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a training is."""

    step: int
    """Steps taken."""
    steps: int
    """Of all."""
    seconds: float
    """Since this process began to take steps."""
    taken: int
    """Steps since then."""
    losses: dict[str, float]
    """Of the last step."""
    metrics: Metrics | None = None
    """Where it was validated just now."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of it."""

    learners: Learners
    """With the weights that are given away."""
    metrics: Metrics
    """Average precision by pass and class; empty without validation images."""
    steps: int
    """Taken in all."""
    seconds: float
    """Of all processes that worked on it, one after the other."""


class Trainer:
    """A training between two steps."""

    def __init__(self, job: TrainJob, team: Team | None = None) -> None:
        """Build models and find out where things are; nothing is learned yet."""
        config = job.config
        self.job, self.team = job, team or Alone()
        check_shared(config.sampling.groups, len(job.images), self.team.size)
        self.learners = build_learners(config, job.model_folder, job.device)
        self.sights = sights_of(config, self.learners)
        check_classes(job.truth, self.sights)
        names = tuple(one.name for one in config.passes)
        self.schedule = Schedule(names, config.stages, config.optimiser)
        self.optimiser = make_optimiser(config, self.learners)
        self.average = Average(config.ema, self.learners.state())
        self.tables, self.step, self.seconds_before = Tables(), 0, 0.0
        self.images, self.validation = self._frozen(job.images), self._frozen(job.validation)
        index = partial(index_images, truth=job.truth, sights=self.sights, threads=config.readers)
        self.indices = index(self.images, folder=job.out / "index")
        known = index(self.validation, folder=job.out / "index")
        self.survey = survey(config.seed, known, config.output.validation_groups)
        self._weights = list(self.learners.parameters().values())

    def _frozen(self, entries: Sequence[ImageEntry]) -> tuple[FrozenImage, ...]:
        """Images as a run of what is trained would see them."""
        config, specs = self.job.config, tuple(one.spec for one in self.learners)
        recipe, folder = recipe_to_run(config, self.learners), RunFolder(self.job.out)
        freeze = Freezer(recipe, specs, folder, config.augment.scale)
        return freeze_images(entries, freeze, config.readers, self.team)

    def resume(self) -> bool:
        """Go on from the last checkpoint, where there is one."""
        held = last_checkpoint(self.checkpoints, self.job.device)
        if held is None:
            return False
        self.learners.load(held.weights)
        self.optimiser.load_state_dict(held.rest["optimiser"])
        for name, tensor in held.rest["average"].items():
            self.average.held[name].copy_(tensor)
        self.tables = Tables(*(from_plain(tree) for tree in held.rest["tables"]))
        self.step, self.seconds_before = held.step, float(held.rest["seconds"])
        return True

    @property
    def checkpoints(self) -> Path:
        """Their folder."""
        return self.job.out / "checkpoints"

    def run(
        self,
        observe: Observe | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Trained:
        """Take all steps that are left.

        Args:
            observe: is told about every step.
            stop: asked after every step; True ends it with a checkpoint.

        Raises:
            Interrupted: it was asked to stop; the same again goes on.
        """
        begun, first = time.monotonic(), self.step
        log = StepLog(self.job.out / "log.jsonl", self.step, self.team.rank == 0)
        with log, self._feeder() as feeder:
            rounds = self._rounds(feeder)
            rounds.begin(self.step, self.tables)
            while self.step < self.schedule.steps:
                losses = self._take_step(rounds)
                seconds = time.monotonic() - begun
                metrics = self._validated_now()
                log.add(self.step, losses, self.schedule.at(self.step - 1).rate, metrics)
                stopping = any(self.team.everyone(bool(stop and stop())))
                self._save_now(seconds, stopping)
                if observe:
                    taken = self.step - first
                    observe(Moment(self.step, self.schedule.steps, seconds, taken, losses, metrics))
                if stopping and self.step < self.schedule.steps:
                    raise Interrupted(f"stopped after step {self.step}; the same command goes on")
        self.learners.load(self.average.held)
        seconds = self.seconds_before + time.monotonic() - begun
        return Trained(self.learners, self._validate(), self.step, seconds)

    def _take_step(self, rounds: Rounds) -> dict[str, float]:
        config, step = self.job.config, self.step
        moment = self.schedule.at(step)
        batch = self._batch(rounds.take(step))
        set_rate(self.optimiser, moment.rate)
        self.optimiser.zero_grad(set_to_none=True)
        kept = [
            keeps_guidance(
                config.seed, step, len(batch), i, config.guidance_dropout, self.team.rank
            )
            for i in range(moment.count)
        ]
        with seeded(config.seed * MANY_STEPS + step * self.team.size + self.team.rank):
            answers = answer_batch(
                self.learners,
                batch,
                moment.learns,
                norms_frozen=moment.norms_frozen,
                guidance_kept=kept,
                precision=config.precision,
            )
            losses = losses_of(config, self.learners, batch, answers, moment.learns)
            losses.total.backward()  # type: ignore[no-untyped-call]
        self._agree()
        clip(self._weights, config.optimiser.clip)
        self.optimiser.step()
        self.average.follow(self.learners.state(), step + 1)
        self._mine(batch, answers[0].scores)
        if rounds.ends_with(step):
            self.tables = self.tables.turned(merged(self.team.everyone(self.tables.gathering)))
            rounds.turn(step, self.tables)
        self.step += 1
        return losses.parts

    def _agree(self) -> None:
        """Gradients, and what batch norms have seen, become those of the whole team."""
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self.team.average([*gradients, *self.learners.statistics()])

    def _batch(self, groups: Sequence[Group]) -> Batch:
        config = self.job.config
        scales = [learner.spec.scale for learner in self.learners]
        transpose = is_transposed(config.seed, self.step, config.augment)
        return collate(groups, scales, transpose, config.augment.colour, self.job.device)

    def _mine(self, batch: Batch, scores: torch.Tensor) -> None:
        """Remember where the glance was wrong."""
        if self.job.config.sampling.hard_share:
            looks = [self.indices[draw.image].look_px for draw in batch.draws]
            gathering = mined(self.tables.gathering, batch, scores, looks)
            self.tables = replace(self.tables, gathering=gathering)

    def _validated_now(self) -> Metrics | None:
        every = self.job.config.output.validate_every
        if not every or self.step % every or self.step == self.schedule.steps:
            return None
        kept = {name: tensor.clone() for name, tensor in self.learners.state().items()}
        self.learners.load(self.average.held)
        metrics = self._validate()
        self.learners.load(kept)
        return metrics

    def _validate(self) -> Metrics:
        config = self.job.config
        if not self.survey or self.team.rank:
            return {}
        read = partial(self._read_of, self.validation)
        return validate(
            self.learners,
            self.survey,
            read,
            config.sampling.groups,
            self.job.device,
            config.readers,
        )

    def _save_now(self, seconds: float, stopping: bool) -> None:
        output = self.job.config.output
        due = self.step % output.every == 0 or self.step == self.schedule.steps
        if (due or stopping) and self.team.rank == 0:
            tables = (self.tables.current, self.tables.following, self.tables.gathering)
            rest = {
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.held,
                "tables": [to_plain(one) for one in tables],
                "seconds": self.seconds_before + seconds,
            }
            state = self.learners.state()
            save_checkpoint(self.checkpoints, Checkpoint(self.step, state, rest), output.keep)

    def _pool(self) -> int:
        """Groups that may wait: those of a few images, within the bytes allowed."""
        sampling = self.job.config.sampling
        wanted = sampling.images_mixed * sampling.per_image
        allowed = sampling.pool_mib * MIB // max(1, sum(map(nbytes_of, self.sights)))
        return max(sampling.groups, min(wanted, allowed))

    def _feeder(self) -> Feeder:
        config = self.job.config
        most = self._pool() + config.sampling.per_image * config.readers
        return Feeder(partial(self._read_of, self.images), most, config.readers)

    def _rounds(self, feeder: Feeder) -> Rounds:
        team, pool = self.team, self._pool()
        parts = (self.job.config, self.schedule, self.indices, feeder, pool)
        return Rounds(*parts, team.rank, team.size)

    def _read_of(
        self, images: Sequence[FrozenImage], visit: Visit, passes: Sequence[int]
    ) -> Iterator[Group]:
        frozen = images[visit.image]
        taught = self.job.teacher if images is self.images else None
        with TrainingImage(frozen, self.job.truth, self.sights, visit.scale, taught) as image:
            yield from read_visit(image, visit, passes)
