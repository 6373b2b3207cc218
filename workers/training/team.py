"""Who trains together: one process alone, or several that share the groups of every step.

Processes find each other by ``torch.distributed``; who starts them is not this module's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, distributed


class Team(Protocol):
    """Processes that take the same steps, each on groups of its own."""

    rank: int
    """Which of them this is; 0 writes."""
    size: int
    """How many there are."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the team; all bring the same shapes."""
        ...

    def everyone(self, value: Any) -> list[Any]:
        """What each of them says, in order of rank."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Of one, the mean is what it is."""

    def everyone(self, value: Any) -> list[Any]:
        """One voice."""
        return [value]


class Distributed:
    """The processes of a group that ``torch.distributed`` has set up already."""

    def __init__(self) -> None:
        """Join it."""
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """One message for all tensors."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def everyone(self, value: Any) -> list[Any]:
        """What each says, known to all."""
        said: list[Any] = [None] * self.size
        distributed.all_gather_object(said, value)
        return said
