"""Walking a tree of selectors: which tiles each part chooses, and why. Pure.

``selection`` states the rules that hold for all of them; here stands what each one does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from saccade.pipeline.choosing import affordable, best_first, dilate, whole_tiles
from saccade.pipeline.errors import RecipeError
from saccade.pipeline.geometry import Grid
from saccade.pipeline.proposals import ProposedBoxes, propose
from saccade.pipeline.saliency import Column, TileTable, cell_grid, cells_per_tile, spread
from saccade.pipeline.selectors import (
    AllTiles,
    Budget,
    Dilate,
    Escalate,
    Foreground,
    Proposals,
    Scored,
    Selector,
    Threshold,
    TopFraction,
    TopK,
    Uncertainty,
    Union,
)

FORCED = "forced: the previous pass could not read it"
NOT = -1
"""Reason of a tile that is not chosen."""
NAMED_PROPOSALS = 64
"""So many proposals have a reason of their own, the largest; the others share one."""


@dataclass
class Judge:
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
            case Escalate():
                return self._escalated(node, path, pool)
            case Foreground():
                return self._foreground(node, path, pool)
            case Proposals():
                return self._proposed(node, path, self._within(node, path, pool))
            case _:
                return self._judged(node, path, pool)

    def _because(self, reason: str, chosen: np.ndarray) -> np.ndarray:
        self.reasons.append(reason)
        return np.where(chosen, len(self.reasons) - 1, NOT).astype(np.int32)

    def _any_of(self, node: Union, path: str, pool: np.ndarray) -> np.ndarray:
        reason_of = np.full(len(self.grid), NOT, np.int32)
        for i, part in enumerate(node.of):
            found = self.choose(part, f"{path}[{i}].{part.by}", pool)
            reason_of = np.where(reason_of == NOT, found, reason_of)
        return reason_of

    def _around(self, node: Dilate, path: str, pool: np.ndarray) -> np.ndarray:
        inner = self.choose(node.of, f"{path}.{node.of.by}", pool)
        cells = (inner != NOT).reshape(self.grid.rows, self.grid.columns)
        around = self._because(f"dilated by {node.tiles}", dilate(cells, node.tiles).reshape(-1))
        return np.where(inner == NOT, around, inner)

    def _foreground(self, node: Foreground, path: str, pool: np.ndarray) -> np.ndarray:
        chosen = pool & (self.table[Column.of(node)] >= np.float32(node.share))
        if chosen.any():
            self.thresholds[path] = node.share
        text = f"foreground: {node.signal} above {node.above:g} in a share >= {node.share:g}"
        return self._because(text, chosen)

    def _escalated(self, node: Escalate, path: str, pool: np.ndarray) -> np.ndarray:
        scores = self.table[Column.of(node.when)][pool]
        known = scores[~np.isnan(scores)]
        mean = float(known.mean(dtype=np.float64)) if len(known) else 0.0
        self.thresholds[f"{path}.when"] = mean
        if mean <= node.when.above:
            return self.choose(node.of, f"{path}.of.{node.of.by}", pool)
        before = len(self.reasons)
        chosen = self.choose(node.to, f"{path}.to.{node.to.by}", pool)
        why = f"escalated: mean {node.when.signal} {mean:.3g} above {node.when.above:g}"
        self.reasons[before:] = [f"{why}; {reason}" for reason in self.reasons[before:]]
        return chosen

    def _proposed(self, node: Proposals, path: str, pool: np.ndarray) -> np.ndarray:
        cells = cells_per_tile(self.grid, node.cells)
        finer = cell_grid(self.grid, cells)
        values = self.table[Column.of(node)].reshape(finer.rows, finer.columns)
        open_ = spread(pool.reshape(self.grid.rows, self.grid.columns), cells, finer)
        found = propose(np.where(open_, values, np.nan), cells, node.alpha, node.min_area)
        holder = found.paint((self.grid.rows, self.grid.columns)).reshape(-1)
        holder[~pool] = NOT
        if (holder != NOT).any():
            self.thresholds[path] = found.threshold
        first = len(self.reasons)
        self.reasons += _proposal_reasons(node, found)
        named = np.minimum(holder, NAMED_PROPOSALS)
        reason_of: np.ndarray = np.where(holder == NOT, NOT, named + first).astype(np.int32)
        return reason_of

    def _within(self, node: Scored | Uncertainty, path: str, pool: np.ndarray) -> np.ndarray:
        """The part of the pool that the selector's own ``within`` leaves."""
        if node.within is None:
            return pool
        chosen = self.choose(node.within, f"{path}.within.{node.within.by}", pool)
        left: np.ndarray = pool & (chosen != NOT)
        return left

    def _judged(self, node: Scored | Uncertainty, path: str, pool: np.ndarray) -> np.ndarray:
        pool = self._within(node, path, pool)
        scores = self.table[Column.of(node)]
        if isinstance(node, Threshold | Budget) and node.calibration is not None:
            scores = node.calibration.apply(scores)
        chosen = np.zeros(len(pool), bool)
        chosen[self._take(node, scores, pool)] = True
        if not chosen.any():
            return self._because("", chosen)
        bound = _binding(node, scores, pool, chosen) if isinstance(node, Threshold) else ""
        told = node.at_least if isinstance(node, Threshold) and not bound else None
        self.thresholds[path] = lowest = float(scores[chosen].min()) if told is None else told
        return self._because(f"{_rule(node)}{bound}: {_word(node)} >= {lowest:.3g}", chosen)

    def _take(self, node: Scored | Uncertainty, scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The numbers of the tiles that one judging selector chooses."""
        match node:
            case TopFraction() | Uncertainty():
                return best_first(scores, pool)[: whole_tiles(node.fraction, int(pool.sum()))]
            case TopK():
                return best_first(scores, pool)[: node.k]
            case Threshold():
                return _reaching(node, scores, pool)
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


def _reaching(node: Threshold, scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Tiles that reach the threshold; more or fewer of the best where a share bounds them."""
    count = int((pool & (scores >= np.float32(node.at_least))).sum())
    if node.least is not None:
        count = max(count, whole_tiles(node.least, int(pool.sum())))
    if node.most is not None:
        count = min(count, whole_tiles(node.most, int(pool.sum())))
    return best_first(scores, pool)[:count]


def _binding(node: Threshold, scores: np.ndarray, pool: np.ndarray, chosen: np.ndarray) -> str:
    """Which bound decided instead of the threshold, in words; nothing where none did."""
    reach = int((pool & (scores >= np.float32(node.at_least))).sum())
    if chosen.sum() == reach:
        return ""
    if chosen.sum() > reach:
        return f", at least a share of {node.least:g}"
    return f", at most a share of {node.most:g}"


def _proposal_reasons(node: Proposals, found: ProposedBoxes) -> list[str]:
    """One for each of the largest, one for all that follow."""
    why = f"of {node.signal} above {found.threshold:.3g}"
    named = [
        f"proposal {rank + 1}: {area:.3g} tiles {why}"
        for rank, area in enumerate(found.areas[:NAMED_PROPOSALS].tolist())
    ]
    return [*named, f"proposals after the {NAMED_PROPOSALS} largest {why}"]


def _word(node: Scored | Uncertainty) -> str:
    """What is compared: a score, or the gain that it is calibrated to."""
    calibrated = isinstance(node, Threshold | Budget) and node.calibration is not None
    return "gain" if calibrated else "score"


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
