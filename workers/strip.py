"""A strip of what one sweep unit answers for: as wide as the unit, some rows of chunks high.

The device lane places windows here one after the other. Once every window that reaches into the
strip is placed, it is settled and can be written while the unit's other strips are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from saccade.pipeline.blending import Blend, hann_weights
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import (
    STATUS_DEGRADED,
    STATUS_DONE,
    STATUS_FAILED,
    STATUS_NODATA,
    STATUS_NONE,
    ImagePlan,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Unit, Window
from saccade.pipeline.scores import quantise
from saccade.pipeline.store_layout import feature_box
from saccade.pipeline.uniform import held_nbytes, uniform
from saccade.workers.answer import Said

Slices = tuple[slice, slice]


def strips_of(plan: ImagePlan, layout: PassLayout, unit: Unit) -> tuple[Box, ...]:
    """A unit's region from top to bottom, in strips of whole tiles and whole chunks.

    Every level of the result that the unit owns can be halved strip by strip. What is computed in
    one window, or not at all, is one strip.
    """
    region = unit.region
    if layout.window_tiles == 0 or not unit.batches:
        return (region,)
    halvings = 2 ** (plan.levels_in_unit - 1) if layout.index == plan.last.index else 1
    height = math.lcm(layout.chunk_px, layout.tile_px // layout.stride, halvings)
    starts = range(region.y0, region.y1, height)
    return tuple(Box(y, region.x0, min(y + height, region.y1), region.x1) for y in starts)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What became of one window."""

    window: Window
    """Which."""
    said: Said | None
    """What the model said of it; None where it was not asked."""
    holes: np.ndarray | None
    """``(h, w)`` bool of the window's scores: no data; None where all have some."""
    failed: frozenset[int]
    """Tiles that can't be answered."""
    degraded: frozenset[int]
    """Tiles whose surroundings are incomplete."""


@dataclass(eq=False)
class Strip:
    """The arrays of one strip while its unit is computed."""

    plan: ImagePlan
    """Of the image."""
    layout: PassLayout
    """Of the pass."""
    region: Box
    """The scores that it holds."""
    computed: bool
    """Whether any window reaches into it."""
    scores: np.ndarray = field(init=False)
    """``(classes, h, w)``, as stored."""
    planes: dict[str, np.ndarray] = field(init=False)
    """``(h, w)`` uint8: saliency and confidence, where the pass stores them."""
    features: np.ndarray | None = field(init=False)
    """``(F, h, w)`` float16 of the strip's ground, where the pass stores them."""
    nodata: np.ndarray | None = field(init=False)
    """``(h, w)`` uint8, where the image may lack data: 1 where a score has no valid pixel below it,
    in tiles that have some."""
    status: np.ndarray = field(init=False)
    """``(tile rows, tile columns)``."""

    def __post_init__(self) -> None:
        blank = np.full((len(self.layout.classes), 1, 1), self._fill, self.plan.scores)
        self.scores = self._room(blank, self.region)
        blank_plane = np.zeros((1, 1), np.uint8)
        self.planes = {name: self._room(blank_plane, self.region) for name in self.layout.planes}
        self.nodata = self._room(blank_plane, self.region) if self.layout.holes else None
        self.features = self._room_for_features()
        self.status = np.full(self.cells.shape, STATUS_NONE, np.uint8)
        blends = self.layout.blend == "hann" and self.computed
        self._blend = Blend(len(self.layout.classes), self.region) if blends else None

    @property
    def _fill(self) -> float:
        return 0 if self.plan.scores == "uint8" else np.nan

    def _room(self, blank: np.ndarray, box: Box) -> np.ndarray:
        """A box full of one pixel; not to be written to where nothing is computed."""
        if not self.computed:
            return uniform(blank, box.shape)
        if not blank.any():
            # Memory that is never written to costs nothing; full() would write to all of it.
            return np.zeros((*blank.shape[:-2], *box.shape), blank.dtype)
        return uniform(blank, box.shape).copy()

    def _room_for_features(self) -> np.ndarray | None:
        if self.layout.gives is None:
            return None
        blank = np.zeros((self.layout.gives.channels, 1, 1), np.float16)
        return self._room(blank, self.feature_region)

    @property
    def feature_region(self) -> Box:
        """The features that it holds."""
        return self._features_of(self.region.scale(self.layout.stride))

    def _features_of(self, box: Box) -> Box:
        """The features of a box of input pixels."""
        assert self.layout.gives is not None
        return feature_box(self.layout, self.layout.gives, box)

    @property
    def cells(self) -> Box:
        """The tiles of the strip, rows and columns."""
        return self.layout.tiles.cells_touching(self.region.scale(self.layout.stride))

    @property
    def nbytes(self) -> int:
        """Host memory held."""
        arrays = (self.scores, self.features, self.nodata, *self.planes.values())
        return sum(held_nbytes(array) for array in arrays if array is not None)

    # ----------------------------------------------------------------------------------- placing

    def place(self, answered: Answered) -> None:
        """Take what one window says of the strip: crop its halo, or blend it."""
        if answered.said is not None:
            self._take(answered.window, answered.said, bool(answered.failed))
        self._mark(answered)
        if answered.holes is not None and self.nodata is not None:
            self._mark_holes(self.nodata, answered.window, answered.holes)

    def _take(self, window: Window, said: Said, broken: bool) -> None:
        if self._blend is not None:
            # Blending would carry the answer of a tile that can't be read into its neighbours.
            if not broken:
                self._blend_in(self._blend, window, said.scores)
        else:
            self._crop_in(window, said.scores)
        inside, place = self._crop(window)
        for name, plane in self.planes.items():
            plane[place] = quantise(said.planes[name][inside], "uint8")
        if self.features is not None and said.features is not None:
            self._keep_features(self.features, window, said.features)

    def _crop(self, window: Window) -> tuple[Slices, Slices]:
        """Where a window's core lies in what the model saw, and in the strip."""
        core = self.layout.scores_of(window.core).intersect(self.region)
        seen = window.read.reduce(self.layout.stride)
        return core.relative_to(seen).slices, core.relative_to(self.region).slices

    def _crop_in(self, window: Window, scores: np.ndarray) -> None:
        inside, place = self._crop(window)
        cropped = scores[(slice(None), *inside)]
        self.scores[(slice(None), *place)] = quantise(cropped, self.plan.scores)

    def _keep_features(self, kept: np.ndarray, window: Window, features: np.ndarray) -> None:
        """Cropped also where scores are blended: what goes on to the next pass is no mixture."""
        core = self._features_of(window.core).intersect(self.feature_region)
        inside = core.relative_to(self._features_of(window.read)).slices
        place = core.relative_to(self.feature_region).slices
        kept[(slice(None), *place)] = features[(slice(None), *inside)]

    def _blend_in(self, blend: Blend, window: Window, scores: np.ndarray) -> None:
        grown = window.core.grow(self.layout.halo_px).clip(self.layout.plane.shape)
        reach = self.layout.scores_of(grown)
        inside = reach.relative_to(window.read.reduce(self.layout.stride)).slices
        margin = self.layout.halo_px // self.layout.stride
        core = self.layout.scores_of(window.core)
        weights = hann_weights(core, reach, margin, self.layout.score_shape)
        blend.add(reach, scores[(slice(None), *inside)], weights)

    def _mark(self, answered: Answered) -> None:
        for index, cell in self._cells_of(answered.window):
            state = STATUS_DEGRADED if index in answered.degraded else STATUS_DONE
            self.status[cell.relative_to(self.cells).slices] = (
                STATUS_FAILED if index in answered.failed else state
            )

    def _mark_holes(self, nodata: np.ndarray, window: Window, holes: np.ndarray) -> None:
        """Where there is no data: by tile where a tile has none at all, else by score."""
        inside, place = self._crop(window)
        nodata[place] = holes[inside]
        for _, cell in self._cells_of(window):
            here = self._scores_of_cell(cell)
            if nodata[here].all():
                nodata[here] = 0
                state = self.status[cell.relative_to(self.cells).slices]
                state[state != STATUS_FAILED] = STATUS_NODATA

    def _cells_of(self, window: Window) -> Iterator[tuple[int, Box]]:
        """A window's tiles in the strip: index, and place as one row and one column of tiles."""
        tiles = self.layout.tiles
        for index in tiles.indices(tiles.cells_touching(window.core).intersect(self.cells)):
            row, column = tiles.cell(index)
            yield index, Box(row, column, row + 1, column + 1)

    def _scores_of_cell(self, cell: Box) -> Slices:
        """Where the scores of tiles (rows, columns) lie in the strip."""
        scores = self.layout.scores_of(self.layout.tiles.span(cell))
        return scores.relative_to(self.region).slices

    # ---------------------------------------------------------------------------------- settling

    def settle(self) -> None:
        """Turn blended sums into scores, and take back what is no answer; all windows are in."""
        if not self.computed:
            return
        if self._blend is not None:
            self.scores[...] = quantise(self._blend.result(), self.plan.scores)
            self._blend = None
        if self.nodata is not None and self.nodata.any():
            holes = self.nodata != 0
            self.scores[:, holes] = self._fill
            for plane in self.planes.values():
                plane[holes] = 0
        if self.layout.blend == "hann" or self._any_not_answered():
            self._take_back()

    def _any_not_answered(self) -> bool:
        return bool(np.isin(self.status, (STATUS_NODATA, STATUS_FAILED)).any())

    def _take_back(self) -> None:
        """What tiles were given that were not answered."""
        for row, column in np.argwhere(~was_answered(self.status)):
            cell = Box(row, column, row + 1, column + 1).shift(self.cells.y0, self.cells.x0)
            place = self._scores_of_cell(cell)
            self.scores[(slice(None), *place)] = self._fill
            for plane in self.planes.values():
                plane[place] = 0
            if self.nodata is not None:
                self.nodata[place] = 0
            if self.features is not None:
                taken_back = self._features_of(self.layout.tiles.span(cell))
                inside = taken_back.relative_to(self.feature_region)
                self.features[(slice(None), *inside.slices)] = 0
