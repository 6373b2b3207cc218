"""Who trains together. Alone by default; ``ray_train`` brings a team of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn


class Team(Protocol):
    """Processes that take the same steps, each on groups of its own."""

    rank: int
    """Which of them this is; 0 writes."""
    size: int
    """How many there are."""

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the team; a missing one counts as zero."""
        ...

    def everyone(self, value: Any) -> list[Any]:
        """What each of them says, in order of rank."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """A single gradient is its own mean."""

    def everyone(self, value: Any) -> list[Any]:
        """One voice."""
        return [value]
