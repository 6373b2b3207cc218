"""What fits in memory: a glance's resolution, and how much may run at once. Pure.

Where nothing fits it refuses, and names the worst offender and the remedy. Which of the windows and
batches that fit is the fastest is decided by ``pipeline.execution``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saccade.pipeline.errors import PlanError, UnitTooLarge
from saccade.pipeline.geometry import Shape, round_up
from saccade.workers.memory import Budget, MemoryModel
from saccade.workers.memory_size import format_nbytes

CANDIDATES_PER_OCTAVE = 2
"""Resolutions tried between one and its half."""


@dataclass(frozen=True, slots=True)
class Work:
    """One pass's forward pass, as large as it will get."""

    name: str
    """Of the pass, for messages."""
    model: MemoryModel
    """What it needs."""
    batch: int
    """Windows at once."""
    shape: Shape
    """Height and width of a window with its halo, in input pixels."""
    beside_nbytes: int = 0
    """What lanes hold of the pass meanwhile, where that is the same memory."""

    @property
    def projected_nbytes(self) -> int:
        """What it is expected to hold, without any margin."""
        return self.model.predict(self.batch, self.shape) + self.beside_nbytes

    @property
    def safe_nbytes(self) -> int:
        """What must be free for it."""
        return self.model.safe(self.batch, self.shape) + self.beside_nbytes

    def fits(self, budget: Budget) -> bool:
        """Whether it may run alone."""
        return self.safe_nbytes <= budget.free_nbytes

    def __str__(self) -> str:
        height, width = self.shape
        return f"pass {self.name!r}: a batch of {self.batch} of {height} x {width} px"


# ------------------------------------------------------------------------------------- resolution


def whole_candidates(
    level0_shape: Shape, finest: float, coarsest: float, multiple: int = 1
) -> dict[float, Shape]:
    """Resolutions to try for a glance in one forward pass, from finest to coarsest.

    Args:
        level0_shape: the image's height and width.
        finest: smallest downsample that the recipe permits, 1 or more.
        coarsest: largest one.
        multiple: what the model's input sizes are multiples of.

    Returns:
        Downsample to the shape that the model would see, padded to ``multiple``.
    """
    if not 1 <= finest <= coarsest:
        raise ValueError(f"1 <= finest <= coarsest expected; found {finest} and {coarsest}")
    # a power of two is what pyramids have, so the steps are counted from 1 and not from the finest
    first = math.ceil(math.log2(finest) * CANDIDATES_PER_OCTAVE)
    last = math.floor(math.log2(coarsest) * CANDIDATES_PER_OCTAVE)
    steps = (2 ** (i / CANDIDATES_PER_OCTAVE) for i in range(first, last + 1))
    downsamples = {finest, coarsest, *(s for s in steps if finest <= s <= coarsest)}
    height, width = level0_shape
    return {
        d: (round_up(math.ceil(height / d), multiple), round_up(math.ceil(width / d), multiple))
        for d in sorted(downsamples)
    }


def largest_whole(
    name: str, model: MemoryModel, budget: Budget, candidates: Mapping[float, Shape]
) -> float:
    """The finest resolution at which the whole image fits in one forward pass.

    Args:
        name: of the pass, for messages.
        model: what its model needs.
        budget: of the device.
        candidates: downsample to the padded shape of the whole image; at least one.

    Returns:
        A downsample, one of the candidates.

    Raises:
        PlanError: even the coarsest does not fit.
    """
    for downsample in sorted(candidates):
        if model.fits(budget, 1, candidates[downsample]):
            return downsample
    coarsest = max(candidates)
    least = Work(name, model, 1, candidates[coarsest])
    raise PlanError(
        f"{_too_much(least, budget)}; it is the whole image at 1/{coarsest:g}, the coarsest "
        "permitted: permit a coarser resolution, set 'tile' to go over the image in tiles, or "
        "allow more memory"
    )


# ---------------------------------------------------------------------------------- several at once


def side_by_side(works: Sequence[Work], budget: Budget) -> int:
    """How many of these passes' works one device runs at once, whichever they are.

    Raises:
        UnitTooLarge: one of them does not fit alone; names the worst.
    """
    check_each_fits(works, budget)
    room, count = budget.free_nbytes, 0
    for nbytes in sorted((work.safe_nbytes for work in works), reverse=True):
        room -= nbytes
        if room < 0:
            break
        count += 1
    return count


def check_each_fits(works: Sequence[Work], budget: Budget) -> None:
    """Refuse what can't run even alone.

    Raises:
        UnitTooLarge: names the work that needs most.
    """
    worst = max(works, key=lambda work: work.safe_nbytes, default=None)
    if worst is not None and not worst.fits(budget):
        raise UnitTooLarge(f"{_too_much(worst, budget)}; {_SMALLER}")


_SMALLER = (
    "set a smaller 'batch', 'window' or 'tile' for this pass, or allow more memory "
    "(--gpu-memory for a GPU, --memory for a CPU)"
)


def _too_much(work: Work, budget: Budget) -> str:
    projected = format_nbytes(work.projected_nbytes)
    return (
        f"{work} needs {format_nbytes(work.safe_nbytes)} (projected {projected} and a margin) "
        f"where {format_nbytes(budget.free_nbytes)} are free ({budget})"
    )
