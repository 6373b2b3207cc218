"""How wrong answers are: elementwise losses on logits, means over what counts. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from saccade.workers.training.config import LossRecipe

EPSILON = 1e-6


def answer_loss(logits: Tensor, truth: Tensor, counts: Tensor, recipe: LossRecipe) -> Tensor:
    """How far an answer is from its truth.

    Args:
        logits: ``(N, K, h, w)``.
        truth: the same shape, in [0, 1].
        counts: ``(N, 1, h, w)`` bool.
        recipe: which loss.

    Returns:
        One number: the mean over what counts, plus the weighted Dice loss.
    """
    each = each_loss(logits, truth, recipe)
    loss = mean_where(each, counts)
    if recipe.dice:
        loss = loss + recipe.dice * dice_loss(logits.sigmoid(), truth, counts)
    return loss


def each_loss(logits: Tensor, truth: Tensor, recipe: LossRecipe) -> Tensor:
    """``(N, K, h, w)``: cross-entropy in nats, focused and weighted as the recipe says."""
    weight = _positive_weight(recipe, logits)
    each = binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=weight)
    if recipe.kind == "bce":
        return each
    agreement = 1 - (logits.sigmoid() - truth).abs()
    focused: Tensor = each * (1 - agreement).clamp(min=EPSILON) ** recipe.gamma
    return focused


def _positive_weight(recipe: LossRecipe, like: Tensor) -> Tensor:
    """``(K or 1, 1, 1)``."""
    values = recipe.positive_weight
    stated = values if isinstance(values, tuple) else (values,)
    return torch.tensor(stated, dtype=like.dtype, device=like.device)[:, None, None]


def mean_where(each: Tensor, counts: Tensor) -> Tensor:
    """Mean over what counts, of all channels; 0 where nothing does."""
    held = counts.to(each.dtype)
    return (each * held).sum() / (held.sum() * each.shape[1]).clamp(min=1)


def dice_loss(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """1 - soft Dice per class over the whole batch, mean over the classes that are there.

    Milletari et al., V-Net, arXiv 1606.04797, section 3. Over the batch, because most crops hold
    nothing of most classes.
    """
    held = counts.to(scores.dtype)
    both = (scores * truth * held).sum((0, 2, 3))
    sums = ((scores * scores + truth * truth) * held).sum((0, 2, 3))
    present = (truth * held).sum((0, 2, 3)) > 0
    loss = 1 - 2 * both / sums.clamp(min=EPSILON)
    return (loss * present).sum() / present.sum().clamp(min=1)


def own_loss(said: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of a probability that a model gives about itself.

    Args:
        said: ``(N, 1, h, w)`` in [0, 1].
        truth: the same shape, in [0, 1].
        counts: ``(N, 1, h, w)`` bool.
    """
    inside = said.float().clamp(EPSILON, 1 - EPSILON)
    each = -(truth * inside.log() + (1 - truth) * (1 - inside).log())
    return mean_where(each, counts)


def is_right(scores: Tensor, truth: Tensor) -> Tensor:
    """``(N, 1, h, w)`` float: whether every class is on the right side of one half."""
    agrees = (scores >= 0.5) == (truth >= 0.5)
    return agrees.all(1, keepdim=True).to(scores.dtype)


def gain_between(coarse: Tensor, fine: Tensor, truth: Tensor) -> Tensor:
    """By how many nats, over all classes, a finer answer is nearer to the truth; may be negative.

    Args:
        coarse: ``(K, h, w)`` scores, upsampled to where the fine ones are.
        fine: ``(K, h, w)`` scores.
        truth: ``(K, h, w)`` at the fine scores.

    Returns:
        ``(1, h, w)``.
    """
    return (_nats(coarse, truth) - _nats(fine, truth)).sum(0, keepdim=True)


def _nats(scores: Tensor, truth: Tensor) -> Tensor:
    inside = scores.float().clamp(1e-4, 1 - 1e-4)
    return -(truth * inside.log() + (1 - truth) * (1 - inside).log())


def squashed(gain: Tensor, scale: float) -> Tensor:
    """A gain as a number in [0, 1): 0 where nothing was gained, 63 % at ``scale``."""
    return 1 - torch.exp(-gain.clamp(min=0) / scale)
