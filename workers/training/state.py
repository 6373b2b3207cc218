"""What a training holds besides its models: optimiser, running mean, step. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.learners import Learners


class Average:
    """A running mean of weights (Polyak & Juditsky); short of memory at first, as it must be."""

    def __init__(self, memory: float, state: Mapping[str, Tensor]) -> None:
        """Begin with a state; a memory of 0 follows the last one."""
        self.memory = memory
        self.held = {name: tensor.detach().clone() for name, tensor in state.items()}

    @torch.no_grad()
    def follow(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take the weights after a step (counted from 1) in."""
        memory = min(self.memory, (1 + step) / (10 + step)) if self.memory else 0.0
        for name, tensor in state.items():
            if tensor.is_floating_point():
                self.held[name].lerp_(tensor.detach(), 1 - memory)
            else:
                self.held[name].copy_(tensor)


def make_optimiser(config: TrainRecipe, learners: Learners) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101), by owner of the weights and by decay.

    A pass with weights of its own has its own learning rate, as a factor in its group.
    """
    groups: list[dict[str, Any]] = []
    by_name = learners.parameters()
    for owner, users in learners.owners.items():
        held = [w for name, w in by_name.items() if name.startswith(f"{owner}/")]
        rates = {one.name: one.learning_rate for one in config.passes}
        factor = rates[users[0].name] if len(users) == 1 else 1.0
        for decays in (True, False):
            chosen = [weight for weight in held if (weight.ndim > 1) == decays]
            if chosen:
                decay = config.optimiser.weight_decay if decays else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
    return torch.optim.AdamW(groups, lr=config.optimiser.learning_rate)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of a step, times each group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def clip(parameters: list[nn.Parameter], longest: float | None) -> None:
    """Shorten the gradient over all weights to at most ``longest``."""
    if longest is not None:
        nn.utils.clip_grad_norm_(parameters, longest)
