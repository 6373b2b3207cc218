"""What to run at which size, so that it fits and is fast. Pure: no device, no clock, no file.

Takes measured throughputs and a fitted memory model; gives a resolution, a window, a batch, and how
much may run at once. Where nothing fits it refuses, and names the worst offender and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saccade.pipeline.errors import PlanError, UnitTooLarge
from saccade.pipeline.geometry import Shape, round_up
from saccade.workers.memory import Budget, MemoryModel
from saccade.workers.memory_size import format_nbytes

TOLERANCE = 0.05
"""Less throughput than the best that does not matter, as a share of it."""
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

    @property
    def safe_nbytes(self) -> int:
        """What must be free for it."""
        return self.model.safe(self.batch, self.shape)

    def fits(self, budget: Budget) -> bool:
        """Whether it may run alone."""
        return self.model.fits(budget, self.batch, self.shape)

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


# ------------------------------------------------------------------------------- batch and window


def choose_batch(
    throughputs: Mapping[int, float],
    model: MemoryModel,
    budget: Budget,
    shape: Shape,
    *,
    name: str = "one",
    tolerance: float = TOLERANCE,
) -> int:
    """The smallest batch that fits and is within ``tolerance`` of the fastest that fits.

    Args:
        throughputs: batch size to measured megapixels per second; at least one.
        model: what a forward pass needs.
        budget: of the device.
        shape: of a window with its halo.
        name: of the pass, for messages.
        tolerance: share of the best throughput that may be given up.

    Raises:
        UnitTooLarge: not even the smallest batch fits.
    """
    fitting = {b: speed for b, speed in throughputs.items() if model.fits(budget, b, shape)}
    if not fitting:
        least = Work(name, model, min(throughputs), shape)
        raise UnitTooLarge(f"{_too_much(least, budget)}; {_SMALLER}")
    return _smallest_fast(fitting, tolerance)


def choose_window(
    throughputs: Mapping[int, float],
    model: MemoryModel,
    budget: Budget,
    halo_px: int,
    *,
    batch: int = 1,
    name: str = "one",
    tolerance: float = TOLERANCE,
) -> int:
    """The smallest window that fits and is within ``tolerance`` of the most *useful* pixels.

    Halos are computed and thrown away, so a large window wins by more than its speed.

    Args:
        throughputs: side of a window without its halo, in pixels, to measured megapixels per second
            through the model, halo included; at least one.
        model: what a forward pass needs.
        budget: of the device.
        halo_px: context on every side of a window.
        batch: windows per forward pass.
        name: of the pass, for messages.
        tolerance: share of the best throughput that may be given up.

    Returns:
        A side, one of the candidates.

    Raises:
        UnitTooLarge: not even the smallest window fits.
    """
    useful = {
        side: speed * useful_share(side, halo_px)
        for side, speed in throughputs.items()
        if model.fits(budget, batch, _with_halo(side, halo_px))
    }
    if not useful:
        least = Work(name, model, batch, _with_halo(min(throughputs), halo_px))
        raise UnitTooLarge(f"{_too_much(least, budget)}; {_SMALLER}")
    return _smallest_fast(useful, tolerance)


def useful_share(side_px: int, halo_px: int) -> float:
    """The part of a window's computed pixels that it answers for."""
    return (side_px / (side_px + 2 * halo_px)) ** 2


def _with_halo(side_px: int, halo_px: int) -> Shape:
    return side_px + 2 * halo_px, side_px + 2 * halo_px


def _smallest_fast(speeds: Mapping[int, float], tolerance: float) -> int:
    best = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= best * (1 - tolerance))


# ------------------------------------------------------------------------------------ out of memory


def back_off(work: Work, budget: Budget, smallest_px: int, multiple: int = 1) -> tuple[int, Shape]:
    """What to try after this work ran out of memory: half the batch, then half the window.

    Sizes that the model rules out are passed over, all but the last resort: one smallest tile is
    tried whatever was projected. Every try is smaller than the one before, so there are no more
    than ``log2(batch) + 2 * log2(side) + 2`` of them.

    Args:
        work: what ran out of memory, with a model that has been taught by it.
        budget: of the device.
        smallest_px: side of the smallest tile with its halo; a multiple of ``multiple``.
        multiple: what the model's input sizes are multiples of.

    Returns:
        Batch and window shape.

    Raises:
        UnitTooLarge: it was one smallest tile that ran out of memory.
    """
    smaller = _smaller(work.batch, work.shape, smallest_px, multiple)
    if smaller is None:
        raise UnitTooLarge(
            f"{_too_much(work, budget)}; this is the smallest tile alone: {_SMALLER}"
        )
    while not work.model.fits(budget, *smaller):
        below = _smaller(*smaller, smallest_px, multiple)
        if below is None:
            break
        smaller = below
    return smaller


def _smaller(batch: int, shape: Shape, smallest_px: int, multiple: int) -> tuple[int, Shape] | None:
    if batch > 1:
        return batch // 2, shape
    halved = tuple(min(side, max(smallest_px, round_up(side // 2, multiple))) for side in shape)
    return None if halved == shape else (1, (halved[0], halved[1]))


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
    projected = format_nbytes(work.model.predict(work.batch, work.shape))
    return (
        f"{work} needs {format_nbytes(work.safe_nbytes)} (projected {projected} and a margin) "
        f"where {format_nbytes(budget.free_nbytes)} are free ({budget})"
    )
