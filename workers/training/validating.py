"""How good every pass is on images that nothing is learned from: average precision on fixed crops.

Crops lie anywhere on the foreground, drawn once; every pass is guided by the one before it and held
against the truth on its own score grid (max-pooled). It is an estimate while training; a run and
its evaluation are the measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from saccade.workers.training.batch import collate
from saccade.workers.training.feeding import Feeder, Read
from saccade.workers.training.forward import answer_batch
from saccade.workers.training.groups import Group, Visit
from saccade.workers.training.learners import Learners
from saccade.workers.training.rounds import visits_to_make

STEPS = 1000
"""Steps of score that average precision is counted in."""


class Counts:
    """Scores of pixels in and outside a class, counted by step of score."""

    def __init__(self, classes: int) -> None:
        """Count nothing yet."""
        self._held = np.zeros((2, classes, STEPS + 1), np.int64)

    def add(self, scores: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> None:
        """Take in ``(N, K, h, w)`` scores and bool truth, where ``(N, h, w)`` counts."""
        steps = np.rint(scores * STEPS).astype(np.int64)
        for k in range(self._held.shape[1]):
            seen, marked = steps[:, k][counts], truth[:, k][counts]
            for row, part in ((1, seen[marked]), (0, seen[~marked])):
                self._held[row, k] += np.bincount(part, minlength=STEPS + 1)

    def average_precision(self) -> list[float | None]:
        """Per class; None where the truth has none of it."""
        return [
            average_precision(inside, outside) for outside, inside in zip(*self._held, strict=True)
        ]


def average_precision(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """Sum over thresholds of precision times the recall that is gained there.

    Args:
        inside: pixels of the class per step of score, lowest first.
        outside: the others.
    """
    hits, misses = np.cumsum(inside[::-1]), np.cumsum(outside[::-1])
    if not hits[-1]:
        return None
    precision = hits / np.maximum(hits + misses, 1)
    return float((precision * inside[::-1]).sum() / hits[-1])


def validate(
    learners: Learners, visits: Sequence[Visit], read: Read, groups: int, device: str, threads: int
) -> dict[str, dict[str, float | None]]:
    """Average precision by pass and class.

    Args:
        learners: models of all passes; they answer as in a run.
        visits: what is looked at.
        read: gives the groups of a visit.
        groups: looked at together.
        device: as torch names it.
        threads: visits read at once.
    """
    counts = [Counts(len(learner.spec.classes)) for learner in learners]
    scales = [learner.spec.scale for learner in learners]
    never = [False] * len(learners)
    for some in _by(groups, _groups(visits, read, len(learners), threads)):
        batch = collate(some, scales, False, 0.0, device)
        kept = [np.ones(len(some), bool)] * len(learners)
        answers = answer_batch(learners, batch, never, norms_frozen=True, guidance_kept=kept)
        for held, said, part in zip(counts, answers, batch.passes, strict=True):
            scores, truth = said.scores.cpu().numpy(), part.truth.cpu().numpy() > 0
            held.add(scores, truth, part.counts[:, 0].cpu().numpy())
    return {
        one.name: dict(zip(one.spec.classes, held.average_precision(), strict=True))
        for one, held in zip(learners, counts, strict=True)
    }


def _groups(visits: Sequence[Visit], read: Read, passes: int, threads: int) -> Iterator[Group]:
    total = sum(len(visit.draws) for visit in visits)
    largest = max((len(visit.draws) for visit in visits), default=1)
    with Feeder(read, largest * (threads + 1), threads) as feeder:
        feeder.submit(visits_to_make(visits, 0, [passes] * total))
        for position in range(total):
            yield feeder.take((0, position))


def _by(size: int, groups: Iterator[Group]) -> Iterator[list[Group]]:
    while some := list(islice(groups, size)):
        yield some


def mean_of(metrics: dict[str, float | None]) -> float | None:
    """Over the classes that there are."""
    known = [value for value in metrics.values() if value is not None]
    return sum(known) / len(known) if known else None
