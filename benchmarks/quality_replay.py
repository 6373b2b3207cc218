"""What a run would have answered with other tiles chosen, from the dense run's stored passes.

The dense run holds every pass's answer for every tile. Hiding the tiles that were not chosen and
composing what is left, with the function that the engine itself writes with, gives the answer of a
run that chose those tiles: to the bit where a pass is told nothing by the one before it. Choosing
is the library's, too. Nothing is computed by a model here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from saccade.pipeline.answers import read_answers
from saccade.pipeline.compose import FusedRegion, compose_region
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import STATUS_NONE, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import tiles_touching
from saccade.pipeline.saliency import Column, TileTable, needed_columns, score_tiles
from saccade.pipeline.selection import Selection, select
from saccade.pipeline.selectors import Selector, Statistic, TopK
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import pass_path
from saccade.workers.folder import RunFolder

Masks = tuple[np.ndarray, ...]
"""Per later pass, ``(tile rows, tile columns)`` bool: the tiles chosen."""
TileScores = Callable[["Hidden", int], np.ndarray]
"""What is known so far and the index of a pass -> a score for each of its tiles."""


@dataclass
class Stored:
    """One image's arrays, each read from its run once and kept."""

    run: Path
    """Folder of the run."""
    name: str
    """Of the image."""
    plan: ImagePlan = field(init=False)
    """How the passes lie over it."""
    _store: ImageStore = field(init=False)
    _arrays: dict[str, np.ndarray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        folder = RunFolder(self.run)
        self.plan = folder.read_image_plan(self.name)
        self._store = ImageStore.open(folder.result(self.name))

    def read(self, array: str, box: Box) -> np.ndarray:
        """A box of an array, owned by the caller."""
        return self.whole(array)[(..., *box.slices)].copy()

    def whole(self, array: str) -> np.ndarray:
        """All of an array; not to be written to. A single pass's scores are the result's own."""
        if len(self.plan.passes) == 1 and array == pass_path(self.plan.last.name, "scores"):
            array = "0"
        if array not in self._arrays:
            self._arrays[array] = self._store.read(array, self._store.spec(array).area)
        return self._arrays[array]

    def fused(self) -> np.ndarray:
        """``(classes, h, w)``, as stored."""
        return self.whole("0")

    def chosen(self) -> Masks:
        """The tiles that each later pass answered."""
        return tuple(
            was_answered(self.whole(pass_path(layout.name, "status")))
            for layout in self.plan.passes[1:]
        )


@dataclass(frozen=True)
class Hidden:
    """A dense run's arrays as they would be had later passes looked at some tiles only."""

    dense: Stored
    """The dense run's image."""
    masks: Masks
    """Of the later passes that have looked, in order; those after them have not."""

    def read(self, array: str, box: Box) -> np.ndarray:
        """As ``Stored.read``; the status of tiles that were not chosen says so."""
        found = self.dense.read(array, box)
        for layout in self.dense.plan.passes[1:]:
            if array == pass_path(layout.name, "status"):
                looked = layout.index <= len(self.masks)
                kept = self.masks[layout.index - 1][box.slices] if looked else False
                found = np.where(kept, found, np.uint8(STATUS_NONE))
        return found

    def compose(self) -> FusedRegion:
        """The fused answer of the whole image."""
        plan = self.dense.plan
        return compose_region(self, plan, Box.of(plan.shape))

    def candidates(self, index: int) -> np.ndarray:
        """Tiles of a pass on ground that the pass before it answered."""
        before = self.dense.plan.passes[index - 1]
        status = self.read(pass_path(before.name, "status"), cells_of(before))
        return tiles_touching(before, self.dense.plan.passes[index], was_answered(status))


def cells_of(layout: PassLayout) -> Box:
    """All tiles of a pass, in rows and columns."""
    return Box(0, 0, layout.tiles.rows, layout.tiles.columns)


def signal_scores(selector: TopK) -> TileScores:
    """Tiles by a signal of the pass before, as a run judges them."""

    def scores(view: Hidden, index: int) -> np.ndarray:
        before = view.dense.plan.passes[index - 1]
        return tile_scores(view, before, view.dense.plan.passes[index], selector)

    return scores


def tile_scores(
    store: Hidden | Stored, before: PassLayout, following: PassLayout, selector: TopK
) -> np.ndarray:
    """``(ntiles,)`` float32 of a pass, by the signal of another one."""
    grid = following.tiles
    table = score_tiles(
        needed_columns(selector),
        grid=grid,
        ratio=before.score_downsample / following.plane.downsample,
        coarse_shape=before.score_shape,
        read_strip=lambda box: read_answers(store, before, box)[:2],
        classes=before.classes,
    )
    scores = table[Column.of(selector)]
    if selector.within is None:
        return scores
    inside = _selected(selector.within, table, grid, np.ones(len(grid), bool)).mask(grid).ravel()
    kept: np.ndarray = np.where(inside, scores, np.float32(np.nan))
    return kept


def choose(
    dense: Stored, counts: Sequence[int], scores: Mapping[int, TileScores] | TileScores
) -> Masks:
    """The best-scored tiles of every later pass, each on ground that the one before answered.

    Args:
        dense: the image.
        counts: tiles per later pass.
        scores: how tiles are judged; per index of a pass, or one for all.
    """
    masks: Masks = ()
    for index, count in enumerate(counts, 1):
        view = Hidden(dense, masks)
        how = scores[index] if isinstance(scores, Mapping) else scores
        chosen = best(dense.plan.passes[index], how(view, index), view.candidates(index), count)
        masks = (*masks, chosen)
    return masks


def best(layout: PassLayout, scores: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` candidates of the highest scores, as the library selects."""
    column = Column("saliency", "max")
    selector = TopK(k=count, signal=column.signal, statistic="max")
    table = TileTable({column: scores.astype(np.float32)})
    return _selected(selector, table, layout.tiles, candidates.ravel()).mask(layout.tiles)


def _selected(
    selector: Selector, table: TileTable, grid: Grid, candidates: np.ndarray
) -> Selection:
    none = np.zeros(len(grid), bool)
    cost_px = grid.areas().ravel()
    return select(selector, table, grid=grid, cost_px=cost_px, candidates=candidates, forced=none)


def within(scores: TileScores, foreground: Mapping[int, np.ndarray]) -> TileScores:
    """The same, and never a tile outside the foreground."""

    def judged(view: Hidden, index: int) -> np.ndarray:
        inside = foreground[index].ravel()
        found: np.ndarray = np.where(inside, scores(view, index), np.float32(np.nan))
        return found

    return judged


def by_signal_of(other: Stored, statistic: Statistic) -> TileScores:
    """Tiles by the saliency of another run's single pass."""
    selector = TopK(k=0, signal="saliency", statistic=statistic)

    def scores(view: Hidden, index: int) -> np.ndarray:
        return tile_scores(other, other.plan.last, view.dense.plan.passes[index], selector)

    return scores


def at_random(seed: int) -> TileScores:
    """Tiles in an order of chance, another one in every pass."""

    def scores(view: Hidden, index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, index, *view.dense.name.encode()])
        return rng.random(len(view.dense.plan.passes[index].tiles), np.float32)

    return scores
