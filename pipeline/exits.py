"""Which tiles of a pass need no closer look. Pure: columns and a rule in, tiles that leave out.

* *Confidence*: LGViT (Xu, Hao, Shen, Hu, Luo, Lin, Shen, *LGViT: Dynamic Early Exiting for
  Accelerating Vision Transformer*, ACM Multimedia 2023, arXiv 2308.00255, section 3) leaves a
  network at the first internal classifier whose confidence passes a threshold. Ours leaves the
  sequence of passes, and asks every tile of a dense answer instead of the one label of an image.
* *Convergence*: MuE (Tang, Wang, Kong, Zhang, Li, Ding, Wang, Liang, Xu, *You Need Multiple
  Exiting: Dynamic Early Exiting for Accelerating Unified Vision Language Model*, CVPR 2023, arXiv
  2211.11152, section 3) stops once the states of successive layers are alike, on the assumption
  that they stay so. Ours compares the answers of successive passes.

What leaving costs. A tile that left keeps the answer it has. For *confidence* that is all that is
promised. For *convergence* with ``within: e``: where every later pass changes the answer of the
tile at most ``q`` times as much as the pass before it did, the tile's mean answer without the exit
is at most ``e * (q + q**2 + ...)`` away, but for what upsampling mixes in from its neighbours;
``q`` is the model's affair, and nothing bounds it in general.

A tile leaves a pass when its column says so; a tile of a later pass is left out when all the ground
below it has left. So what left stays out, however the later passes' tiles lie on the earlier ones'.
Only what was answered leaves: a tile that could not be read is still looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.pipeline.exit_rules import (
    AllExits,
    AnyExit,
    ConfidenceExit,
    ConvergenceExit,
    ExitRule,
    leaves,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import tiles_touching
from saccade.pipeline.saliency import Column, TileTable
from saccade.pipeline.signals import DOUBT

CHANGE = "change"
"""Signal: how far a pass's answer is from that of the pass before it; read on its own."""
Leaf = ConfidenceExit | ConvergenceExit


@dataclass(frozen=True, slots=True, eq=False)
class Leaving:
    """What leaves after a pass."""

    left: np.ndarray
    """``(tile rows, tile columns)`` bool, of the pass: tiles that need no closer look."""
    asked: int
    """Tiles that were answered, and had not left before."""
    agreed: dict[str, int]
    """Per rule, in words, how many of these said yes."""

    def to_dict(self) -> dict[str, Any]:
        """For plans and receipts; plain JSON."""
        return {"left": int(self.left.sum()), "of": self.asked, "agreed": dict(self.agreed)}


def exit_columns(rule: ExitRule) -> tuple[Column, ...]:
    """The columns that a rule judges by, over the tiles of its own pass, each once."""
    return tuple(dict.fromkeys(_column(leaf) for leaf in leaves(rule)))


def _column(leaf: Leaf) -> Column:
    if isinstance(leaf, ConfidenceExit):
        return Column(DOUBT, leaf.statistic)
    return Column(CHANGE, "mean")


def leave(rule: ExitRule, table: TileTable, asked: np.ndarray) -> Leaving:
    """Which tiles of a pass leave.

    Args:
        rule: the recipe's.
        table: the columns that ``exit_columns`` asks for, over all tiles of the pass; a tile whose
            number is NaN stays.
        asked: ``(tile rows, tile columns)`` bool, tiles that were answered and had not left before.
    """
    agreed = {_words(leaf): int(_says_yes(leaf, table, asked).sum()) for leaf in leaves(rule)}
    return Leaving(_left(rule, table, asked), int(asked.sum()), agreed)


def _left(rule: ExitRule, table: TileTable, asked: np.ndarray) -> np.ndarray:
    if isinstance(rule, AnyExit | AllExits):
        join = np.logical_or if isinstance(rule, AnyExit) else np.logical_and
        left: np.ndarray = join.reduce([_left(part, table, asked) for part in rule.of])
        return left
    agreed = _says_yes(rule, table, asked)
    if rule.scope == "tile":
        return agreed
    count = int(asked.sum())
    together = count > 0 and int(agreed.sum()) >= rule.share * count
    return asked & together


def _says_yes(leaf: Leaf, table: TileTable, asked: np.ndarray) -> np.ndarray:
    values = table[_column(leaf)].reshape(asked.shape)
    # 1 - 0.95 in float32, so that a confidence of just 0.95 is enough
    limit = leaf.within if isinstance(leaf, ConvergenceExit) else 1 - leaf.at_least
    said: np.ndarray = asked & (values <= np.float32(limit))
    return said


def _words(leaf: Leaf) -> str:
    whole = "" if leaf.scope == "tile" else f", in a share of {leaf.share:g} of the image"
    if isinstance(leaf, ConvergenceExit):
        return f"changed by <= {leaf.within:g}{whole}"
    return f"confidence >= {leaf.at_least:g} ({leaf.statistic} of doubt){whole}"


def left_before(before: PassLayout, after: PassLayout, left: np.ndarray) -> np.ndarray:
    """Tiles of a pass all of whose ground has left.

    Args:
        before: the pass that ``left`` belongs to.
        after: the pass that is asked about.
        left: ``(tile rows, tile columns)`` bool, tiles that left after it or earlier.

    Returns:
        ``(tile rows, tile columns)`` bool of ``after``.
    """
    return ~tiles_touching(before, after, ~left)


@dataclass(frozen=True, slots=True, eq=False)
class ExitRecord:
    """What a frozen plan says of exits."""

    left: np.ndarray
    """``(tile rows, tile columns)`` bool, of the planned pass: tiles on ground that has left."""
    after: Leaving | None
    """What left after the pass before it; None where that has no exit."""

    def to_dict(self) -> dict[str, Any]:
        """As written beside the plan; plain JSON."""
        after = None if self.after is None else self.after.to_dict()
        return {"left_runs": to_runs(self.left), "after": after}


def to_runs(flags: np.ndarray) -> list[int]:
    """Flags as the positions, row by row, where they change; the first turns them on."""
    padded = np.concatenate([[False], flags.reshape(-1), [False]])
    return [int(at) for at in np.flatnonzero(padded[1:] != padded[:-1])]


def from_runs(runs: list[int], shape: tuple[int, int]) -> np.ndarray:
    """The inverse of ``to_runs``."""
    steps = np.zeros(shape[0] * shape[1] + 1, np.int8)
    steps[runs[0::2]] = 1
    steps[runs[1::2]] = -1
    return steps[:-1].cumsum().astype(bool).reshape(shape)
