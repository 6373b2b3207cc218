"""Which tiles the next pass visits, and why. Pure: scores, costs and a selector in, a choice out.

Rules that hold for every selector:

* A higher score is chosen first; of equal scores the tile with the lower number is.
* A tile whose score is NaN is never chosen by its score.
* Only candidates are chosen, except that *dilate* may add any tile of the grid.
* Forced tiles (the previous pass could not read them) are always chosen. They are judged by nobody:
  no selector counts them among its candidates, and every budget pays for them first.
* Tiles that left after an earlier pass (``exits``) are chosen by nobody, *dilate* included.

This module knows no image and no file, and never looks at a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.geometry import Grid
from saccade.pipeline.judging import FORCED, NOT, Judge
from saccade.pipeline.saliency import TileTable
from saccade.pipeline.selectors import Selector

__all__ = ["FORCED", "MAX_REASONS", "Selection", "select"]

MAX_REASONS = 256
"""Reasons are counted in a byte."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The tiles that a pass visits, with the reason for each."""

    tiles: tuple[int, ...]
    """Numbers of the chosen tiles, ascending."""
    reason_of: np.ndarray
    """``(len(tiles),)`` uint8: for each chosen tile the index of its reason; read-only."""
    reasons: tuple[str, ...]
    """Every reason that occurs, for people."""
    thresholds: dict[str, float]
    """Per judging selector in the tree ('union[1].top_fraction'): the lowest score it chose, or the
    value that it was told or compared with; absent where it chose nothing. Under 'escalate.when'
    the image's number."""
    candidates: int
    """Tiles that could have been chosen by their score."""

    def __post_init__(self) -> None:
        self.reason_of.flags.writeable = False
        if len(self.reason_of) != len(self.tiles):
            raise ValueError(f"{len(self.tiles)} tiles, but {len(self.reason_of)} reasons")
        if any(b <= a for a, b in zip(self.tiles, self.tiles[1:], strict=False)):
            raise ValueError("chosen tiles are ascending and differ")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def mask(self, grid: Grid) -> np.ndarray:
        """``(tile rows, tile columns)`` bool, True where a tile is chosen."""
        flags = np.zeros(len(grid), bool)
        flags[list(self.tiles)] = True
        return flags.reshape(grid.rows, grid.columns)

    def counts(self) -> dict[str, int]:
        """How many tiles each reason chose."""
        found = np.bincount(self.reason_of, minlength=len(self.reasons))
        return dict(zip(self.reasons, map(int, found), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """As written beside the plan; plain JSON."""
        return {
            "tiles": list(self.tiles),
            "reason_of": self.reason_of.tolist(),
            "reasons": list(self.reasons),
            "thresholds": dict(self.thresholds),
            "candidates": self.candidates,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Selection:
        """The inverse of ``to_dict``."""
        return cls(
            tiles=tuple(tree["tiles"]),
            reason_of=np.array(tree["reason_of"], np.uint8),
            reasons=tuple(tree["reasons"]),
            thresholds=dict(tree["thresholds"]),
            candidates=tree["candidates"],
        )


def select(
    selector: Selector,
    table: TileTable,
    *,
    grid: Grid,
    cost_px: np.ndarray,
    candidates: np.ndarray,
    forced: np.ndarray,
    left: np.ndarray | None = None,
    seconds_per_pixel: float | None = None,
) -> Selection:
    """Choose the tiles of the next pass.

    Args:
        selector: the recipe's tree.
        table: the columns that ``saliency.needed_columns`` asks for, over all tiles of the grid.
        grid: the tiles.
        cost_px: ``(ntiles,)`` int, pixels that visiting a tile computes; positive.
        candidates: ``(ntiles,)`` bool, tiles that may be chosen by their score.
        forced: ``(ntiles,)`` bool, tiles that are visited whatever their score.
        left: ``(ntiles,)`` bool, tiles that are not visited unless they are forced; none if None.
        seconds_per_pixel: the model's measured speed, for budgets in seconds.

    Raises:
        RecipeError: a budget is in seconds and no speed is known, or the tree has too many parts.
        ValueError: an array does not have one value per tile, or a cost is not positive.
    """
    left = np.zeros(len(grid), bool) if left is None else left
    facts = {"cost_px": cost_px, "candidates": candidates, "forced": forced, "left": left}
    for name, array in facts.items():
        if array.shape != (len(grid),):
            raise ValueError(
                f"{name}: one value for each of {len(grid)} tiles; found {array.shape}"
            )
    if (cost_px <= 0).any():
        raise ValueError(f"cost_px: every tile costs at least 1; found {cost_px.min()}")
    judge = Judge(table, grid, cost_px, forced, seconds_per_pixel)
    pool = candidates & ~forced & ~left
    reason_of = np.where(left, NOT, judge.choose(selector, selector.by, pool))
    return _as_selection(judge, np.where(forced, 0, reason_of), int(pool.sum()))


def _as_selection(judge: Judge, reason_of: np.ndarray, candidates: int) -> Selection:
    tiles = np.flatnonzero(reason_of != NOT)
    used, compact = np.unique(reason_of[tiles], return_inverse=True)
    if len(used) > MAX_REASONS:
        raise RecipeError(f"a selector has at most {MAX_REASONS} parts; found {len(used)}")
    return Selection(
        tiles=tuple(tiles.tolist()),
        reason_of=compact.reshape(-1).astype(np.uint8),
        reasons=tuple(judge.reasons[i] for i in used),
        thresholds=judge.thresholds,
        candidates=candidates,
    )
