"""What one pass knows of a region of the result: scores, who was answered, where there is no data.

Asked for any block of the region, in the result's own pixels. Knows no other pass and no store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.coverage import StatusPart, was_answered, was_settled
from saccade.pipeline.fusion import coarse_box_for, dequantise, map_classes, upsample
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_NODATA
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.uniform import uniform


@dataclass(frozen=True, slots=True, eq=False)
class PassAnswer:
    """What one pass knows of a region."""

    layout: PassLayout
    ratio: float
    """Scores of the result per score of this pass, along each axis."""
    aligned: bool
    """Whether this pass's scores are the result's own pixels."""
    place: Box
    """The scores held, in the frame of all scores of this pass."""
    stored: np.ndarray
    """``(C_p, h, w)`` as stored."""
    tiles: Box
    """Rows and columns of the tiles under them."""
    answered: np.ndarray
    """``(rows, columns)`` bool, per tile."""
    settled: np.ndarray
    """Likewise: answered, or looked at and found without data."""
    holes: np.ndarray | None
    """``(h, w)`` bool of the scores held: no data; None where all have some."""

    @classmethod
    def of(
        cls,
        layout: PassLayout,
        ratio: float,
        aligned: bool,
        place: Box,
        stored: np.ndarray,
        status: StatusPart,
        nodata: np.ndarray | None,
    ) -> PassAnswer:
        """From what is stored; ``nodata`` is 1 where a score has no valid pixel below it."""
        return cls(
            layout,
            ratio,
            aligned,
            place,
            stored,
            status.cells,
            was_answered(status.values),
            was_settled(status.values),
            None if nodata is None else _with_holes(layout, place, nodata != 0, status),
        )

    def answers_all(self, block: Box) -> bool:
        """Whether every pixel of a block lies in a tile that was answered."""
        return bool(self._part(block).all())

    def answers_none(self, block: Box) -> bool:
        """Whether no pixel of a block does."""
        return not self._part(block).any()

    def where(self, block: Box) -> np.ndarray:
        """``(h, w)`` bool: pixels of the result whose centre lies in a tile that was answered."""
        return self._in_tiles(self.answered, block)

    def looked(self, block: Box) -> np.ndarray:
        """``(h, w)`` bool: likewise, also where the tile has no data."""
        return self._in_tiles(self.settled, block)

    def _in_tiles(self, marked: np.ndarray, block: Box) -> np.ndarray:
        part = self._part(block, marked)
        if part.all() or not part.any():
            return uniform(part[:1, :1], block.shape)
        rows = self._tiles_at(block.y0, block.y1, axis=0) - self.tiles.y0
        columns = self._tiles_at(block.x0, block.x1, axis=1) - self.tiles.x0
        where: np.ndarray = marked[np.ix_(rows, columns)]
        return where

    def lacking(self, block: Box) -> np.ndarray | None:
        """``(h, w)`` bool: pixels whose centre lies in a score without data; None where none do."""
        if self.holes is None:
            return None
        rows = self._scores_at(block.y0, block.y1, axis=0) - self.place.y0
        columns = self._scores_at(block.x0, block.x1, axis=1) - self.place.x0
        lacking: np.ndarray = self.holes[np.ix_(rows, columns)]
        return lacking if lacking.any() else None

    def _part(self, block: Box, marked: np.ndarray | None = None) -> np.ndarray:
        """What became of the tiles that a block touches."""
        marked = self.answered if marked is None else marked
        y0, y1 = (self._tile_at(y, axis=0) for y in (block.y0, block.y1 - 1))
        x0, x1 = (self._tile_at(x, axis=1) for x in (block.x0, block.x1 - 1))
        touched = Box(y0, x0, y1 + 1, x1 + 1).shift(-self.tiles.y0, -self.tiles.x0)
        return marked[touched.slices]

    def _tile_at(self, position: int, axis: int) -> int:
        centre = math.floor((position + 0.5) / self.ratio)
        inside = min(centre, self.layout.score_shape[axis] - 1)
        return inside * self.layout.stride // self.layout.tile_px

    def _tiles_at(self, start: int, stop: int, axis: int) -> np.ndarray:
        inside = self._scores_at(start, stop, axis)
        tiles: np.ndarray = inside * self.layout.stride // self.layout.tile_px
        return tiles

    def _scores_at(self, start: int, stop: int, axis: int) -> np.ndarray:
        centres = np.floor((np.arange(start, stop) + 0.5) / self.ratio).astype(np.int64)
        inside: np.ndarray = np.minimum(centres, self.layout.score_shape[axis] - 1)
        return inside

    def scores(self, block: Box, classes: tuple[str, ...]) -> np.ndarray:
        """``(C, h, w)`` float32 at the result's resolution; NaN where nobody near answered."""
        need = self._need(block)
        scores = dequantise(self.stored[(slice(None), *need.relative_to(self.place).slices)])
        scores = map_classes(scores, self.layout.classes, classes)
        if self.aligned and self.holes is None:
            return scores
        known = self._known(need)
        if not known.all():
            # What was never answered must not be mixed into its neighbours as if it were 0.
            scores = np.where(known, scores, np.float32(np.nan))
        if self.aligned:
            return scores
        corner = need.y0, need.x0
        return upsample(scores, corner, self.ratio, block, self.layout.score_shape)

    def _need(self, block: Box) -> Box:
        if self.aligned:
            return block
        return coarse_box_for(block, self.ratio, self.layout.score_shape)

    def _known(self, need: Box) -> np.ndarray:
        step, side = self.layout.stride, self.layout.tile_px
        rows = np.arange(need.y0, need.y1) * step // side - self.tiles.y0
        columns = np.arange(need.x0, need.x1) * step // side - self.tiles.x0
        known: np.ndarray = self.answered[np.ix_(rows, columns)]
        if self.holes is not None:
            known = known & ~self.holes[need.relative_to(self.place).slices]
        return known

    def is_flat(self, block: Box, classes: tuple[str, ...]) -> bool:
        """Whether all pixels of a block have the same answer in these classes, or none has any."""
        if not self._lacks_alike(block):
            return False
        if self.answers_none(block):
            return True
        need = self._need(block)
        if not (self.answers_all(block) and self._known(need).all()):
            return False
        shared = [i for i, name in enumerate(self.layout.classes) if name in classes]
        planes = (self.stored[(i, *need.relative_to(self.place).slices)] for i in shared)
        return all(bool((plane == plane[:1, :1]).all()) for plane in planes)

    def _lacks_alike(self, block: Box) -> bool:
        """Whether all pixels of a block lack data, or none does."""
        lacking = self.lacking(block)
        if lacking is None:
            return True
        return bool(lacking.all() and self._part(block, self.settled).all())


def _with_holes(
    layout: PassLayout, place: Box, holes: np.ndarray, status: StatusPart
) -> np.ndarray | None:
    """Scores without data, by themselves or because their tile has none; None where all have.

    What a pass did not look at, or could not read, is not without data.
    """
    empty = status.values == STATUS_NODATA
    if not (empty.any() or holes.any()):
        return None
    rows = np.arange(place.y0, place.y1) * layout.stride // layout.tile_px - status.cells.y0
    columns = np.arange(place.x0, place.x1) * layout.stride // layout.tile_px - status.cells.x0
    tiles = np.ix_(rows, columns)
    holes = (holes | empty[tiles]) & was_settled(status.values)[tiles]
    return holes if holes.any() else None
