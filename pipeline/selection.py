"""Which tiles the next pass visits, and why. Pure: scores, costs and a selector in, a choice out.

Rules that hold for every selector:

* A higher score is chosen first; of equal scores the tile with the lower number is.
* A tile whose score is NaN is never chosen by its score.
* Only candidates are chosen, except that *dilate* may add any tile of the grid.
* Forced tiles (the previous pass could not read them) are always chosen. They are judged by nobody:
  no selector counts them among its candidates, and every budget pays for them first.

This module knows no image and no file, and never looks at a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.geometry import Grid
from saccade.pipeline.saliency import Column, TileTable
from saccade.pipeline.selectors import (
    AllTiles,
    Budget,
    Dilate,
    Foreground,
    Scored,
    Selector,
    Threshold,
    TopFraction,
    TopK,
    Uncertainty,
    Union,
)

FORCED = "forced: the previous pass could not read it"
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
    value that it was told; absent where it chose nothing."""
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
        seconds_per_pixel: the model's measured speed, for budgets in seconds.

    Raises:
        RecipeError: a budget is in seconds and no speed is known, or the tree has too many parts.
        ValueError: an array does not have one value per tile, or a cost is not positive.
    """
    for name, array in (("cost_px", cost_px), ("candidates", candidates), ("forced", forced)):
        if array.shape != (len(grid),):
            raise ValueError(
                f"{name}: one value for each of {len(grid)} tiles; found {array.shape}"
            )
    if (cost_px <= 0).any():
        raise ValueError(f"cost_px: every tile costs at least 1; found {cost_px.min()}")
    judge = _Judge(table, grid, cost_px, forced, seconds_per_pixel)
    pool = candidates & ~forced
    reason_of = judge.choose(selector, selector.by, pool)
    return _as_selection(judge, np.where(forced, 0, reason_of), int(pool.sum()))


def _as_selection(judge: _Judge, reason_of: np.ndarray, candidates: int) -> Selection:
    tiles = np.flatnonzero(reason_of != _NOT)
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


_NOT = -1
"""Reason of a tile that is not chosen."""


@dataclass
class _Judge:
    """Walks a tree of selectors once, and notes why each tile was chosen."""

    table: TileTable
    grid: Grid
    cost_px: np.ndarray
    forced: np.ndarray
    seconds_per_pixel: float | None
    reasons: list[str] = field(default_factory=lambda: [FORCED])
    thresholds: dict[str, float] = field(default_factory=dict)

    def choose(self, node: Selector, path: str, pool: np.ndarray) -> np.ndarray:
        """``(ntiles,)`` int32: the reason of every tile that ``node`` chooses from ``pool``."""
        match node:
            case AllTiles():
                return self._because("all", pool)
            case Union():
                return self._any_of(node, path, pool)
            case Dilate():
                return self._around(node, path, pool)
            case Foreground():
                return self._foreground(node, path, pool)
            case _:
                return self._judged(node, path, pool)

    def _because(self, reason: str, chosen: np.ndarray) -> np.ndarray:
        self.reasons.append(reason)
        return np.where(chosen, len(self.reasons) - 1, _NOT).astype(np.int32)

    def _any_of(self, node: Union, path: str, pool: np.ndarray) -> np.ndarray:
        reason_of = np.full(len(self.grid), _NOT, np.int32)
        for i, part in enumerate(node.of):
            found = self.choose(part, f"{path}[{i}].{part.by}", pool)
            reason_of = np.where(reason_of == _NOT, found, reason_of)
        return reason_of

    def _around(self, node: Dilate, path: str, pool: np.ndarray) -> np.ndarray:
        inner = self.choose(node.of, f"{path}.{node.of.by}", pool)
        cells = (inner != _NOT).reshape(self.grid.rows, self.grid.columns)
        around = self._because(f"dilated by {node.tiles}", dilate(cells, node.tiles).reshape(-1))
        return np.where(inner == _NOT, around, inner)

    def _foreground(self, node: Foreground, path: str, pool: np.ndarray) -> np.ndarray:
        chosen = pool & (self.table[Column.of(node)] >= np.float32(node.share))
        if chosen.any():
            self.thresholds[path] = node.share
        text = f"foreground: {node.signal} above {node.above:g} in a share >= {node.share:g}"
        return self._because(text, chosen)

    def _judged(self, node: Scored | Uncertainty, path: str, pool: np.ndarray) -> np.ndarray:
        if node.within is not None:
            inner = f"{path}.within.{node.within.by}"
            pool = pool & (self.choose(node.within, inner, pool) != _NOT)
        scores = self.table[Column.of(node)]
        chosen = np.zeros(len(pool), bool)
        chosen[self._take(node, scores, pool)] = True
        if not chosen.any():
            return self._because("", chosen)
        told = node.at_least if isinstance(node, Threshold) else None
        self.thresholds[path] = lowest = float(scores[chosen].min()) if told is None else told
        return self._because(f"{_rule(node)}: score >= {lowest:.3g}", chosen)

    def _take(self, node: Scored | Uncertainty, scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The numbers of the tiles that one judging selector chooses."""
        match node:
            case TopFraction() | Uncertainty():
                return best_first(scores, pool)[: whole_tiles(node.fraction, int(pool.sum()))]
            case TopK():
                return best_first(scores, pool)[: node.k]
            case Threshold():
                return np.flatnonzero(pool & (scores >= np.float32(node.at_least)))
            case Budget(share=float(share)):
                left = whole_tiles(share, len(scores)) - int(self.forced.sum())
                return best_first(scores, pool & (scores > 0))[: max(0, left)]
            case Budget():
                worth = np.where(pool & (scores > 0), scores / self.cost_px, np.nan)
                order = best_first(worth, pool)
                return order[affordable(self.cost_px[order], self._limit_px(node))]
        raise TypeError(f"no rule for the selector {node!r}")

    def _limit_px(self, node: Budget) -> float:
        """Pixels that a budget leaves once forced tiles are paid for."""
        if node.pixels is not None:
            limit = node.pixels
        elif self.seconds_per_pixel is not None and node.seconds is not None:
            limit = node.seconds / self.seconds_per_pixel
        else:
            raise RecipeError(
                f"a budget of {node.seconds:g} seconds needs the model's measured speed; none is "
                f"known: state the budget in pixels"
            )
        return limit - float(self.cost_px[self.forced].sum())


def _rule(node: Scored | Uncertainty) -> str:
    match node:
        case Uncertainty():
            return f"uncertainty {node.fraction:g} of {node.measure}"
        case TopFraction():
            return f"top_fraction {node.fraction:g} of {node.signal}"
        case TopK():
            return f"top_k {node.k} of {node.signal}"
        case Budget():
            return f"budget of {_currency(node)} by {node.signal}"
    return f"{node.by} of {node.signal}" if isinstance(node, Threshold) else type(node).__name__


def _currency(budget: Budget) -> str:
    if budget.share is not None:
        return f"a share of {budget.share:g}"
    return f"{budget.seconds:g} s" if budget.pixels is None else f"{budget.pixels:g} pixels"


def best_first(scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Numbers of the pool's tiles, highest score first, equal ones by number, NaN left out."""
    tiles = np.flatnonzero(pool & ~np.isnan(scores))
    return tiles[np.argsort(-scores[tiles], kind="stable")]


def whole_tiles(fraction: float, count: int) -> int:
    """``fraction`` of ``count``, rounded up; the fraction is the decimal number as written."""
    return math.ceil(Fraction(repr(float(fraction))) * count)


def affordable(costs: Iterable[int], limit: float) -> list[int]:
    """Positions that are bought in order: what does not fit is skipped, what follows may still."""
    bought, spent = [], 0
    for position, cost in enumerate(np.asarray(costs).tolist()):
        if spent + cost <= limit:
            spent += cost
            bought.append(position)
    return bought


def dilate(cells: np.ndarray, tiles: int) -> np.ndarray:
    """``(rows, columns)`` bool grown by ``tiles`` in all eight directions."""
    for axis in (0, 1):
        length = cells.shape[axis]
        sums = np.insert(np.cumsum(cells, axis=axis), 0, 0, axis=axis)
        at = np.arange(length)
        last, first = np.minimum(at + tiles + 1, length), np.maximum(at - tiles, 0)
        cells = np.take(sums, last, axis=axis) > np.take(sums, first, axis=axis)
    return cells
