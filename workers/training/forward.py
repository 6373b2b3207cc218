"""One step forward: every pass answers for its crops, guided by the coarser one; losses of all.

Guidance and features are handed on as a run hands them on: detached, upsampled to the finer grid,
rounded as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from saccade.pipeline.models.answers import Answer
from saccade.pipeline.models.base import ScaleUnit, Views
from saccade.workers.training.batch import Batch
from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.learners import Learner, Learners
from saccade.workers.training.losses import (
    answer_loss,
    each_loss,
    gain_between,
    is_right,
    mean_where,
    own_loss,
    squashed,
)
from saccade.workers.training.nested import pool, upsample

UINT8_STEPS = 255


@dataclass(frozen=True, slots=True, eq=False)
class PassAnswer:
    """What a pass said of its crops, turned as they are."""

    logits: Tensor
    """``(N, K, h, w)`` float32, with gradient where the pass learns."""
    scores: Tensor
    """The same as probabilities, without gradient."""
    answer: Answer
    """All that the module returned."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What a step is judged by."""

    total: Tensor
    """What is minimised."""
    parts: dict[str, float] = field(default_factory=dict)
    """By name, each before its weight."""


def answer_batch(
    learners: Learners,
    batch: Batch,
    learns: Sequence[bool],
    *,
    norms_frozen: bool,
    guidance_kept: Sequence[np.ndarray],
    precision: str = "float32",
) -> list[PassAnswer]:
    """Every pass of a batch, from coarse to fine.

    Args:
        learners: models of all passes.
        batch: crops of the first passes.
        learns: per pass; the others answer as in a run, and remember nothing.
        norms_frozen: whether batch norms answer as in a run.
        guidance_kept: per pass, ``(N,)`` bool: who is given guidance.
        precision: 'float32' or 'bfloat16'.
    """
    answers: list[PassAnswer] = []
    for index in range(len(batch.passes)):
        learner = learners[index]
        learner.mode(learns[index], norms_frozen)
        before = (learners[index - 1], answers[-1]) if answers else None
        views = _views(batch, index, learner, before, guidance_kept[index])
        with torch.set_grad_enabled(learns[index]), _arithmetic(views.pixels, precision):
            answer = learner.model.raw(views)
        logits = answer.scores.float()
        answers.append(PassAnswer(logits, logits.detach().sigmoid(), answer))
    return answers


def _arithmetic(like: Tensor, precision: str) -> AbstractContextManager[object]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(like.device.type, torch.bfloat16)


@torch.no_grad()
def _views(
    batch: Batch,
    index: int,
    learner: Learner,
    before: tuple[Learner, PassAnswer] | None,
    kept: np.ndarray,
) -> Views:
    part = batch.passes[index]
    guidance = features = None
    if before is not None and learner.guided:
        given = guidance_of(batch, index, known(batch, index - 1, stored(before[1].scores)))
        guidance = given * torch.from_numpy(kept).to(given)[:, None, None, None]
    if before is not None and learner.spec.takes_features:
        features = _features_of(batch, index, learner, *before)
    return Views(
        pixels=part.pixels,
        valid=part.valid,
        guidance=guidance,
        context=part.context,
        features=features,
        pixel_sizes=_told_sizes(batch, index, learner.spec.pixel_size),
    )


def _told_sizes(batch: Batch, index: int, unit: ScaleUnit) -> Tensor | None:
    """``(N,)``: pixel sizes as they were asked for; None where none is wanted or none is known."""
    planes = [place.asked for place in batch.passes[index].places]
    sizes = [p.pixel_size.mean_in("um") for p in planes if p.pixel_size is not None]
    told = [plane.downsample for plane in planes] if unit == "downsample" else sizes
    if unit == "none" or len(told) < len(planes):
        return None
    return torch.tensor(told, dtype=torch.float32, device=batch.passes[index].pixels.device)


def stored(scores: Tensor) -> Tensor:
    """Scores as a run stores them by default, in steps of 1/255."""
    return (scores * UINT8_STEPS).round() / UINT8_STEPS


def known(batch: Batch, index: int, scores: Tensor) -> Tensor:
    """Scores of a pass as the next one is told of them: 0 where no pixel below holds data."""
    part = batch.passes[index]
    if part.valid is None:
        return scores
    return scores * max_pool2d(part.valid.to(scores), part.places[0].stride)


def guidance_of(batch: Batch, index: int, scores: Tensor) -> Tensor:
    """``(N, K, H, W)``: scores of pass ``index - 1`` at the pixels of pass ``index``."""
    return _handed_on(batch, index, scores, batch.passes[index - 1].places[0].stride, 1)


def _features_of(
    batch: Batch, index: int, learner: Learner, before: Learner, said: PassAnswer
) -> Tensor | None:
    given = said.answer.extras.get("features")
    if given is None or before.spec.features is None or learner.spec.features is None:
        return None
    rounded = given.detach().to(torch.float16).float()
    strides = before.spec.features[1], learner.spec.features[1]
    return _handed_on(batch, index, rounded, *strides)


def _handed_on(batch: Batch, index: int, maps: Tensor, given: int, wanted: int) -> Tensor:
    """Maps of pass ``index - 1`` at stride ``given``, at stride ``wanted`` of pass ``index``."""
    coarse, fine = batch.passes[index - 1], batch.passes[index]
    parts = []
    for i in range(len(batch)):
        above, below = coarse.places[i].plane, fine.places[i].plane
        ratio = above.downsample * given / (below.downsample * wanted)
        shape = (-(-above.shape[0] // given), -(-above.shape[1] // given))
        box, want = coarse.box(i).reduce(given), fine.box(i).reduce(wanted)
        parts.append(upsample(batch.back(i, maps), box, ratio, want, shape))
    return batch.there(parts)


def losses_of(
    config: TrainRecipe,
    learners: Learners,
    batch: Batch,
    answers: Sequence[PassAnswer],
    learns: Sequence[bool],
) -> Losses:
    """What a step is judged by: every pass that learns, with its weight."""
    total = answers[0].logits.new_zeros(())
    parts: dict[str, float] = {}
    for index, said in enumerate(answers):
        if not learns[index]:
            continue
        one = config.passes[index]
        terms = _terms(config, batch, answers, index, said)
        parts |= {f"{one.name}/{name}": float(term.detach()) for name, (_, term) in terms.items()}
        shared = len(learners.owners[learners[index].weights]) > 1
        factor = config.loss_weights[index] * (one.learning_rate if shared else 1.0)
        total = total + factor * sum((w * t for w, t in terms.values()), total.new_zeros(()))
    return Losses(total, parts | {"total": float(total.detach())})


def _terms(
    config: TrainRecipe,
    batch: Batch,
    answers: Sequence[PassAnswer],
    index: int,
    said: PassAnswer,
) -> dict[str, tuple[float, Tensor]]:
    """Losses of one pass by name, each with its weight."""
    part, heads, distil = batch.passes[index], config.heads, config.distil
    terms = {"answer": (1.0, answer_loss(said.logits, part.truth, part.counts, config.loss))}
    finer = answers[index + 1] if index + 1 < len(answers) else None
    if part.teacher is not None and distil.teacher_weight:
        each = each_loss(said.logits, part.teacher, config.loss)
        terms["teacher"] = (distil.teacher_weight, mean_where(each, part.counts))
    if finer is not None and distil.fine_to_coarse:
        soft, seen = answer_from_finer(batch, index, finer.scores)
        each = each_loss(said.logits, soft, config.loss)
        terms["distil"] = (distil.fine_to_coarse, mean_where(each, seen & part.counts))
    extras = said.answer.extras
    if finer is not None and heads.gain and "saliency" in extras:
        gained, seen = gain_target(batch, index, said.scores, finer.scores, heads.gain_scale)
        loss = own_loss(extras["saliency"], gained, seen & part.counts)
        terms["gain"] = (heads.gain, loss)
    if heads.confidence and "confidence" in extras:
        right = is_right(said.scores, part.truth)
        terms["confidence"] = (heads.confidence, own_loss(extras["confidence"], right, part.counts))
    return terms


@torch.no_grad()
def answer_from_finer(batch: Batch, index: int, finer: Tensor) -> tuple[Tensor, Tensor]:
    """The finer pass's answer on the score grid of pass ``index``, max-pooled as the truth is.

    Returns:
        ``(N, K, h, w)``, and ``(N, 1, h, w)`` bool: where the finer crop was.
    """
    pooled = [_pooled(batch, index, i, batch.back(i, finer), "max") for i in range(len(batch))]
    answer, seen = _both(batch, pooled)
    return answer, seen & _held_finely(batch, index)


@torch.no_grad()
def gain_target(
    batch: Batch, index: int, coarse: Tensor, finer: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """What looking closer gained: nats per finer score, mean over a coarse score, squashed.

    Both answers are held against the truth at the finer scores. Losses and gains inside one coarse
    score are set off against each other, so that noise is no gain.

    Returns:
        ``(N, 1, h, w)`` in [0, 1), and ``(N, 1, h, w)`` bool: where the finer crop was.
    """
    stride = batch.passes[index].places[0].stride
    below = batch.passes[index + 1]
    told = known(batch, index, coarse)
    at_fine = _handed_on(batch, index + 1, told, stride, below.places[0].stride)
    pooled = []
    for i in range(len(batch)):
        three = (batch.back(i, maps) for maps in (at_fine, finer, below.truth))
        pooled.append(_pooled(batch, index, i, gain_between(*three), "mean"))
    gained, seen = _both(batch, pooled)
    return squashed(gained, scale), seen & _held_finely(batch, index)


def _held_finely(batch: Batch, index: int) -> Tensor:
    """``(N, 1, h, w)`` bool, or True: scores below which the finer crop holds data everywhere."""
    below = batch.passes[index + 1]
    if below.valid is None:
        return torch.ones((), dtype=torch.bool, device=below.pixels.device)
    lost = max_pool2d((~below.valid).float(), below.places[0].stride)
    pooled = [_pooled(batch, index, i, batch.back(i, lost), "max")[0] for i in range(len(batch))]
    return batch.there(pooled) == 0


def _pooled(batch: Batch, index: int, i: int, maps: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """One group's maps at the scores of pass ``index + 1`` on the scores of pass ``index``."""
    coarse, fine = batch.passes[index], batch.passes[index + 1]
    ratio = coarse.places[i].scores.downsample / fine.places[i].scores.downsample
    mode = "max" if how == "max" else "mean"
    return pool(maps, fine.score_box(i), ratio, coarse.score_box(i), mode)  # type: ignore[arg-type]


def _both(batch: Batch, pooled: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    maps = batch.there([one for one, _ in pooled])
    return maps, batch.there([whole[None] for _, whole in pooled])
