"""How good every pass is on images that nothing is learned from: average precision on fixed crops.

Crops lie anywhere on the foreground, drawn once; every pass is guided by the one before it and held
against the truth on its own score grid (max-pooled). It is an estimate while training; a run and
its evaluation are the measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.curves import average_precision
from saccade.workers.training.batch import collate
from saccade.workers.training.feeding import Feeder, Read
from saccade.workers.training.forward import answer_batch
from saccade.workers.training.groups import Group, Visit
from saccade.workers.training.learners import Learners
from saccade.workers.training.rounds import visits_to_make


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
    kind = np.dtype(np.float32)
    counts = [ScoreCounts.none(len(learner.spec.classes), kind) for learner in learners]
    scales = [learner.spec.scale for learner in learners]
    never = [False] * len(learners)
    for some in _by(groups, _groups(visits, read, len(learners), threads)):
        batch = collate(some, scales, False, 0.0, device)
        kept = [np.ones(len(some), bool)] * len(learners)
        answers = answer_batch(learners, batch, never, norms_frozen=True, guidance_kept=kept)
        for index, (said, part) in enumerate(zip(answers, batch.passes, strict=True)):
            scores, truth = said.scores.cpu().numpy(), part.truth.cpu().numpy() > 0
            for one in zip(scores, truth, part.counts[:, 0].cpu().numpy(), strict=True):
                counts[index] = counts[index].counted(*one)
    return {
        one.name: dict(zip(one.spec.classes, _precisions(held), strict=True))
        for one, held in zip(learners, counts, strict=True)
    }


def _precisions(counts: ScoreCounts) -> list[float | None]:
    """Average precision per class; None where the truth has none of it."""
    found = map(average_precision, counts.negatives, counts.positives)
    return [None if math.isnan(one) else one for one in found]


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
