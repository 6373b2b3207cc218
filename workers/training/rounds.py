"""The stream of batches: rounds planned one ahead, read ahead, given away step by step.

A round is planned with the hard negatives that were known when the round before it began, so that
reading never waits for learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.feeding import Errand, Feeder
from saccade.workers.training.groups import Group, Hardest, Visit
from saccade.workers.training.sampling import (
    ImageIndex,
    RoundPlan,
    plan_round,
    steps_per_round,
)
from saccade.workers.training.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Tables:
    """Hard negatives at three ages."""

    current: Hardest = field(default_factory=Hardest)
    """This round was planned with these."""
    following: Hardest = field(default_factory=Hardest)
    """The next one with these."""
    gathering: Hardest = field(default_factory=Hardest)
    """As known now."""

    def turned(self, gathered: Hardest) -> Tables:
        """At the end of a round, with what all processes gathered."""
        return Tables(self.following, gathered, gathered)


class Rounds:
    """What every step takes, from any step on."""

    def __init__(
        self,
        config: TrainRecipe,
        schedule: Schedule,
        indices: Sequence[ImageIndex],
        feeder: Feeder,
        pool: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """Plan nothing yet."""
        self._config, self._schedule, self._indices = config, schedule, indices
        self._feeder, self._pool, self._rank, self._size = feeder, pool, rank, size
        self._plans: dict[int, RoundPlan] = {}
        self.steps = steps_per_round(len(indices), config.sampling, size)
        """Of one round."""

    def begin(self, step: int, tables: Tables) -> None:
        """Read ahead from a step on."""
        number = step // self.steps
        self._plan(number, tables.current, step)
        self._plan(number + 1, tables.following, step)

    def take(self, step: int) -> list[Group]:
        """The groups of a step, waited for."""
        number, within = divmod(step, self.steps)
        return [self._feeder.take((number, p)) for p in self._plans[number].steps[within]]

    def ends_with(self, step: int) -> bool:
        """Whether a round is over after this step."""
        return (step + 1) % self.steps == 0

    def turn(self, step: int, tables: Tables) -> None:
        """After the last step of a round: forget it, read the one after the next."""
        number = step // self.steps
        self._plans.pop(number, None)
        self._plan(number + 2, tables.following, step + 1)

    def _plan(self, number: int, hardest: Hardest, from_step: int) -> None:
        config = self._config
        plan = plan_round(
            config.seed,
            number,
            self._indices,
            hardest,
            config.sampling,
            config.augment,
            self._pool,
            self._rank,
            self._size,
        )
        self._plans[number] = plan
        self._feeder.submit(errands(plan, number, self._passes(plan, number, from_step)))

    def _passes(self, plan: RoundPlan, number: int, from_step: int) -> list[int]:
        """Per draw, how many passes its step needs; 0 where that step is over or never comes."""
        passes = [0] * len(plan.draws)
        for within, positions in enumerate(plan.steps):
            step = number * self.steps + within
            if from_step <= step < self._schedule.steps:
                for position in positions:
                    passes[position] = self._schedule.at(step).count
        return passes


def errands(plan: RoundPlan, number: int, passes: Sequence[int]) -> list[Errand]:
    """The visits of a round, each with what is read on it."""
    return visits_to_make(plan.visits, number, passes)


def visits_to_make(visits: Sequence[Visit], number: int, passes: Sequence[int]) -> list[Errand]:
    """Visits as errands; draws are numbered on from one visit to the next."""
    made, first = [], 0
    for visit in visits:
        end = first + len(visit.draws)
        made.append(Errand(visit, (number, first), tuple(passes[first:end])))
        first = end
    return made
