"""What an adapter is asked for and what it gives back, whichever library it adapts.

Knows no library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from saccade.pipeline.errors import ModelContract

ATTENTION = ("attention", "attn")
"""What the classes of layers that look at a whole window are called, in part."""


@dataclass(frozen=True)
class Wanted:
    """A model of a library, as a recipe asks for it."""

    source: str
    """As in the recipe, for messages."""
    name: str
    """What the library calls it."""
    options: Mapping[str, Any]
    """Of the recipe; those that the adapter does not know go to the library."""
    classes: tuple[str, ...] | None
    """Names of the score channels, where the recipe states them."""
    weights: Path | None
    """The recipe's file of weights."""
    base_folder: Path
    """The recipe's folder."""

    def option(self, name: str, kind: type, default: Any) -> Any:
        """One of the adapter's own options.

        Raises:
            ModelContract: it is of another type.
        """
        value = self.options.get(name, default)
        right = (value is None and default is None) or isinstance(value, kind)
        if not right or (kind is int and isinstance(value, bool)):
            raise ModelContract(
                f"{self.source}: option {name!r} is a {kind.__name__}; found {value!r}"
            )
        return value

    def others(self, *own: str) -> dict[str, Any]:
        """Options that are the library's."""
        return {key: value for key, value in self.options.items() if key not in (*own, "seed")}

    @property
    def count(self) -> int | None:
        """Score channels, where the recipe states them."""
        return len(self.classes) if self.classes else None


@dataclass(frozen=True)
class Borrowed:
    """A model that a library built."""

    module: nn.Module
    """What a pass calls."""
    declaration: dict[str, Any] = field(default_factory=dict)
    """Fields of a ``ModelSpec`` that the library knows."""
    weighed: nn.Module | None = None
    """Whose names a file of weights uses; by default the module's."""

    @property
    def takes_weights(self) -> nn.Module:
        """Where a file of weights goes."""
        return self.module if self.weighed is None else self.weighed


def sees_all(module: nn.Module) -> bool:
    """Whether there is attention among its layers, so that no halo is exact.

    Attention within fixed windows is counted too: its windows move with the input's corner.
    """
    names = {type(one).__name__.lower() for one in module.modules()}
    return any(part in name for name in names for part in ATTENTION)


def activation_for(count: int) -> str:
    """How logits of so many exclusive classes become probabilities."""
    return "softmax" if count > 1 else "sigmoid"


def first_line(error: Exception) -> str:
    """A library's own reason, short enough for a message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
