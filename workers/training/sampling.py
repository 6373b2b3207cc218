"""Which groups a round reads, and which of them each step takes: pure draws from seed and round.

So what a step sees depends on no thread, and a resumed training draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.workers.training.config import Augment, Sampling
from saccade.workers.training.groups import Draw, Hardest, Kind, Point, Visit

SURVEY, ROUND, TURN, DROPOUT = 0, 1, 2, 3
"""Draws for different purposes come from different sequences."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageIndex:
    """Where on an image things are, on a coarse grid."""

    shape: Shape
    """Of the image at level 0."""
    cell_px: float
    """Side of a cell, in pixels of level 0."""
    lesions: tuple[np.ndarray, ...]
    """Per class with any truth here, ``(n, 2)`` rows and columns of cells."""
    foreground: np.ndarray
    """``(n, 2)`` rows and columns of cells that are worth looking at."""
    look_px: float
    """Side of the finest pass's crop, in pixels of level 0."""
    held: np.ndarray | None = None
    """``(rows, columns)`` bool: cells that hold data; None where all do."""

    def holds(self, point: Point) -> bool:
        """Whether a point of level 0 lies in a cell that holds data."""
        if self.held is None:
            return True
        cell = (int(at // self.cell_px) for at in point)
        row, column = (min(i, last - 1) for i, last in zip(cell, self.held.shape, strict=True))
        return bool(self.held[row, column])


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round: what is read, in order, and what each step takes of it."""

    visits: tuple[Visit, ...]
    """In the order of reading."""
    steps: tuple[tuple[int, ...], ...]
    """Per step, positions of its groups among all draws in the order of reading."""
    pool: int
    """Groups that must be allowed to wait, so that no step waits for one that can't be read."""

    @property
    def draws(self) -> tuple[Draw, ...]:
        """All of them, in the order of reading."""
        return tuple(draw for visit in self.visits for draw in visit.draws)


def steps_per_round(images: int, sampling: Sampling, size: int = 1) -> int:
    """Steps that the groups of one round are enough for; at least one."""
    return max(1, images // size * size * sampling.per_image // sampling.groups)


def plan_round(
    seed: int,
    number: int,
    indices: Sequence[ImageIndex],
    hardest: Hardest,
    sampling: Sampling,
    augment: Augment,
    pool: int,
    rank: int = 0,
    size: int = 1,
) -> RoundPlan:
    """Draw a round: every image once, or as often as the groups of one step need.

    Args:
        seed: of the training.
        number: of the round, from 0.
        indices: of all images.
        hardest: where the glance was wrong, as known now.
        sampling: what is wanted.
        augment: what is changed.
        pool: groups that may wait.
        rank: which of the processes that share a round; each visits images of its own.
        size: how many they are; they share the groups of a step.
    """
    together = np.random.default_rng([seed, ROUND, number])
    generator = np.random.default_rng([seed, ROUND, number, 1 + rank])
    groups = sampling.groups // size
    count = steps_per_round(len(indices), sampling, size) * groups
    visits: list[Visit] = []
    while count:
        for image in together.permutation(len(indices))[rank::size].tolist():
            some = min(count, sampling.per_image)
            if some:
                index = indices[image]
                visits.append(_visit(generator, image, some, index, hardest, sampling, augment))
            count -= some
    total = sum(len(visit.draws) for visit in visits)
    order = shuffled(generator, total, pool)
    steps = tuple(tuple(order[start : start + groups]) for start in range(0, total, groups))
    return RoundPlan(tuple(visits), steps, pool)


def _visit(
    generator: np.random.Generator,
    image: int,
    size: int,
    index: ImageIndex,
    hardest: Hardest,
    sampling: Sampling,
    augment: Augment,
) -> Visit:
    scale = float(1 + generator.uniform(-1, 1) * augment.scale)
    draws = []
    for _ in range(size):
        kind, centre = draw_centre(generator, index, hardest.of(image), sampling)
        flips = generator.random(2) < 0.5
        colour_seed = int(generator.integers(2**31)) if augment.colour else None
        flip_y, flip_x = (bool(flip) and augment.flips for flip in flips)
        draws.append(Draw(image, centre, kind, flip_y, flip_x, colour_seed))
    return Visit(image, scale, tuple(draws))


def draw_centre(
    generator: np.random.Generator,
    index: ImageIndex,
    hardest: Sequence[tuple[float, float, float]],
    sampling: Sampling,
) -> tuple[Kind, Point]:
    """A centre: on truth, where the glance was wrong, or anywhere on the foreground.

    Where there is no truth, or no mistake is known, it is anywhere.
    """
    chance = generator.random()
    if chance < sampling.lesion_share and index.lesions:
        cells = index.lesions[int(generator.integers(len(index.lesions)))]
        return "lesion", _in_cell(generator, cells, index, sampling.jitter)
    if sampling.lesion_share <= chance < sampling.lesion_share + sampling.hard_share and hardest:
        _, y, x = hardest[int(generator.integers(len(hardest)))]
        return "hard", _moved(generator, (y, x), index, sampling.jitter)
    return "any", _in_cell(generator, index.foreground, index, sampling.jitter)


def _in_cell(
    generator: np.random.Generator, cells: np.ndarray, index: ImageIndex, jitter: float = 0.0
) -> Point:
    row, column = cells[int(generator.integers(len(cells)))]
    within = generator.random(2)
    point = (float(row + within[0]) * index.cell_px, float(column + within[1]) * index.cell_px)
    return _moved(generator, point, index, jitter)


def _moved(generator: np.random.Generator, point: Point, index: ImageIndex, jitter: float) -> Point:
    """The point moved a little, still on the image; where that leaves the data, as it was."""
    dy, dx = generator.uniform(-1, 1, 2) * jitter * index.look_px
    height, width = index.shape
    moved = float(np.clip(point[0] + dy, 0, height)), float(np.clip(point[1] + dx, 0, width))
    return moved if index.holds(moved) else point


def shuffled(generator: np.random.Generator, total: int, pool: int) -> list[int]:
    """Positions ``0 .. total - 1`` in the order in which a pool of ``pool`` gives them away.

    The pool is filled in order of reading; each turn gives one of those in it away at random, and
    the next one read takes its place. So position ``p`` never leaves before turn ``p - pool``.
    """
    waiting = list(range(min(pool, total)))
    order = []
    for following in range(len(waiting), total + len(waiting)):
        place = int(generator.integers(len(waiting)))
        order.append(waiting[place])
        if following < total:
            waiting[place] = following
        else:
            waiting[place] = waiting[-1]
            waiting.pop()
    return order


def is_transposed(seed: int, step: int, augment: Augment) -> bool:
    """Whether the groups of a step have rows and columns exchanged."""
    return augment.rotations and bool(np.random.default_rng([seed, TURN, step]).integers(2))


def keeps_guidance(
    seed: int, step: int, groups: int, index: int, dropout: float, rank: int = 0
) -> np.ndarray:
    """``(groups,)`` bool: which groups of a step are given guidance in a pass."""
    generator = np.random.default_rng([seed, DROPOUT, step, index, rank])
    kept: np.ndarray = generator.random(groups) >= dropout
    return kept


def survey(seed: int, indices: Sequence[ImageIndex], groups: int) -> tuple[Visit, ...]:
    """Groups to validate on: so many per image, anywhere on the foreground, nothing changed."""
    visits = []
    for image, index in enumerate(indices):
        generator = np.random.default_rng([seed, SURVEY, image])
        draws = [Draw(image, _in_cell(generator, index.foreground, index)) for _ in range(groups)]
        visits.append(Visit(image, 1.0, tuple(draws)))
    return tuple(visits)
