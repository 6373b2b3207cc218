"""Who learns at which step, and how fast. Pure functions of the step; nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.workers.training.config import Optimiser, Stage


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a schedule."""

    learns: tuple[bool, ...]
    """Per pass, whether it learns. Passes after the last that does are not run at all."""
    rate: float
    """Learning rate."""
    norms_frozen: bool
    """Whether batch norms answer as in a run."""

    @property
    def count(self) -> int:
        """Passes that are run: up to the finest that learns."""
        return max(i for i, one in enumerate(self.learns) if one) + 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Stages one after the other, one learning-rate curve over all of them."""

    passes: tuple[str, ...]
    """Names, from coarse to fine."""
    stages: Sequence[Stage]
    """In order."""
    optimiser: Optimiser
    """Of all of them."""

    @property
    def steps(self) -> int:
        """From the first to the last."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> Moment:
        """What happens at a step, counted from 0; beyond the last it is as at the last."""
        frozen = step >= self.optimiser.freeze_norm_after * self.steps
        stage = self._stage(step)
        learns = tuple(name in stage.train for name in self.passes)
        return Moment(learns, rate_at(step, self.steps, self.optimiser), frozen)

    def _stage(self, step: int) -> Stage:
        end = 0
        for stage in self.stages:
            end += stage.steps
            if step < end:
                return stage
        return self.stages[-1]


def rate_at(step: int, steps: int, optimiser: Optimiser) -> float:
    """Learning rate: a line up, then half a cosine down (Loshchilov & Hutter, arXiv 1608.03983)."""
    warm = min(1.0, (step + 1) / (optimiser.warmup + 1))
    along = min(1.0, max(0, step - optimiser.warmup) / max(1, steps - optimiser.warmup))
    cosine = optimiser.final + (1 - optimiser.final) * (1 + math.cos(math.pi * along)) / 2
    return optimiser.learning_rate * warm * cosine
