"""One sweep unit on its way through the engine: what it has gathered, and how it is written.

The device lane places windows here one after the other; the write lane then stores the unit's own
arrays and, in the last pass, composes the fused result for the same region while it is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.pipeline.blending import Blend, hann_weights
from saccade.pipeline.compose import LastAnswer, compose_region, region_coverage
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.features import KEY
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
from saccade.pipeline.pyramid import write_lower_levels
from saccade.pipeline.scores import quantise
from saccade.pipeline.store import ImageStore, Written
from saccade.pipeline.store_layout import NODATA, feature_box, pass_path
from saccade.pipeline.store_shards import ChunkMemo
from saccade.pipeline.uniform import held_nbytes, uniform
from saccade.workers.answer import Said
from saccade.workers.reading import WindowPixels, scores_without_data, tiles_lost

Slices = tuple[slice, slice]


@dataclass
class SweepJob:
    """The arrays of one unit while it is computed."""

    plan: ImagePlan
    """Of the image."""
    layout: PassLayout
    """Of the pass."""
    unit: Unit
    """What is computed."""
    scores: np.ndarray = field(init=False)
    """``(classes, h, w)`` of the unit's region, as stored."""
    planes: dict[str, np.ndarray] = field(init=False)
    """``(h, w)`` uint8: saliency and confidence, where the pass stores them."""
    features: np.ndarray | None = field(init=False)
    """``(F, h, w)`` float16 of the unit's ground, where the pass stores them."""
    nodata: np.ndarray | None = field(init=False)
    """``(h, w)`` uint8 of the unit's region, where the image may lack data: 1 where a score has no
    valid pixel below it, in tiles that have some."""
    status: np.ndarray = field(init=False)
    """``(tile rows, tile columns)`` of the unit's region."""
    errors: list[str] = field(default_factory=list)
    """What could not be read."""
    pixels_read: int = 0
    """Input pixels given to the model, halos included."""
    nbytes_read: int = 0
    """Bytes of those pixels, as they were decoded."""
    splits: int = 0
    """How often a batch was halved to fit the device."""

    def __post_init__(self) -> None:
        region = self.unit.region
        fill = 0 if self.plan.scores == "uint8" else np.nan
        blank = np.full((len(self.layout.classes), 1, 1), fill, self.plan.scores)
        self.scores = self._room(blank, region)
        blank_plane = np.zeros((1, 1), np.uint8)
        self.planes = {name: self._room(blank_plane, region) for name in self.layout.planes}
        self.nodata = self._room(blank_plane, region) if self.layout.holes else None
        self.features = self._room_for_features()
        self.status = np.full(self.cells.shape, STATUS_NONE, np.uint8)
        self._blend = Blend(len(self.layout.classes), region) if self._blends else None

    def _room(self, blank: np.ndarray, box: Box) -> np.ndarray:
        """A box full of one pixel; not to be written to where nothing is computed."""
        if not self.unit.batches:
            return uniform(blank, box.shape)
        if not blank.any():
            # Memory that is never written to costs nothing; full() would write to all of it.
            return np.zeros((*blank.shape[:-2], *box.shape), blank.dtype)
        return uniform(blank, box.shape).copy()

    def _room_for_features(self) -> np.ndarray | None:
        if self.layout.gives is None:
            return None
        blank = np.zeros((self.layout.gives.channels, 1, 1), np.float16)
        return self._room(blank, self._feature_region)

    @property
    def _feature_region(self) -> Box:
        """The unit's features."""
        return self._features_of(self.unit.region.scale(self.layout.stride))

    def _features_of(self, box: Box) -> Box:
        """The features of a box of input pixels."""
        assert self.layout.gives is not None
        return feature_box(self.layout, self.layout.gives, box)

    @property
    def _blends(self) -> bool:
        return self.layout.blend == "hann" and bool(self.unit.batches)

    @property
    def cells(self) -> Box:
        """The tiles of the unit's region, rows and columns."""
        return self.layout.tiles.cells_touching(self.unit.region.scale(self.layout.stride))

    @property
    def nbytes(self) -> int:
        """Host memory held."""
        arrays = (self.scores, self.features, self.nodata, *self.planes.values())
        return sum(held_nbytes(array) for array in arrays if array is not None)

    def wants(self, window: Window, read: WindowPixels) -> bool:
        """Whether a window is to be answered: some pixel that it answers for has data."""
        inside, _ = self._crop(window)
        holes = scores_without_data(self.layout, read)
        return holes is None or not holes[inside].all()

    def place(self, window: Window, read: WindowPixels, said: Said | None) -> None:
        """Take one window's answer: crop its halo, or blend it; leave out what could not be read.

        Args:
            window: which window.
            read: its pixels, for what was lost of them and where there is no data.
            said: what the model said of it; None where it was not asked.
        """
        failed, degraded = tiles_lost(self.layout, window, read)
        self.errors.extend(read.reasons)
        self.nbytes_read += read.pixels.nbytes
        if said is not None:
            self.pixels_read += window.read.area
            self._take(window, said, failed)
        self._mark(window, failed, degraded)
        holes = scores_without_data(self.layout, read)
        if holes is not None and self.nodata is not None:
            self._mark_holes(self.nodata, window, holes)

    def _take(self, window: Window, said: Said, failed: set[int]) -> None:
        if self._blend is not None:
            # Blending would carry the answer of a tile that can't be read into its neighbours.
            if not failed:
                self._blend_in(self._blend, window, said.scores)
        else:
            self._crop_in(window, said.scores)
        inside, place = self._crop(window)
        for name, plane in self.planes.items():
            plane[place] = quantise(said.planes[name][inside], "uint8")
        if self.features is not None and said.features is not None:
            self._keep_features(self.features, window, said.features)

    def _crop(self, window: Window) -> tuple[Slices, Slices]:
        """Where a window's core lies in what the model saw, and in the unit's region."""
        core = self.layout.scores_of(window.core).intersect(self.unit.region)
        seen = window.read.reduce(self.layout.stride)
        return core.relative_to(seen).slices, core.relative_to(self.unit.region).slices

    def _crop_in(self, window: Window, scores: np.ndarray) -> None:
        inside, place = self._crop(window)
        cropped = scores[(slice(None), *inside)]
        self.scores[(slice(None), *place)] = quantise(cropped, self.plan.scores)

    def _keep_features(self, kept: np.ndarray, window: Window, features: np.ndarray) -> None:
        """Cropped also where scores are blended: what goes on to the next pass is no mixture."""
        core = self._features_of(window.core).intersect(self._feature_region)
        inside = core.relative_to(self._features_of(window.read)).slices
        place = core.relative_to(self._feature_region).slices
        kept[(slice(None), *place)] = features[(slice(None), *inside)]

    def _blend_in(self, blend: Blend, window: Window, scores: np.ndarray) -> None:
        grown = window.core.grow(self.layout.halo_px).clip(self.layout.plane.shape)
        reach = self.layout.scores_of(grown)
        inside = reach.relative_to(window.read.reduce(self.layout.stride)).slices
        margin = self.layout.halo_px // self.layout.stride
        core = self.layout.scores_of(window.core)
        weights = hann_weights(core, reach, margin, self.layout.score_shape)
        blend.add(reach, scores[(slice(None), *inside)], weights)

    def _mark(self, window: Window, failed: set[int], degraded: set[int]) -> None:
        for index in self.layout.tiles.indices(self.layout.tiles.cells_touching(window.core)):
            row, column = self.layout.tiles.cell(index)
            cell = Box(row, column, row + 1, column + 1)
            if self.cells.contains(cell):
                state = STATUS_DEGRADED if index in degraded else STATUS_DONE
                self.status[cell.relative_to(self.cells).slices] = (
                    STATUS_FAILED if index in failed else state
                )

    def _mark_holes(self, nodata: np.ndarray, window: Window, holes: np.ndarray) -> None:
        """Where there is no data: by tile where a tile has none at all, else by score."""
        inside, place = self._crop(window)
        nodata[place] = holes[inside]
        for index in self.layout.tiles.indices(self.layout.tiles.cells_touching(window.core)):
            row, column = self.layout.tiles.cell(index)
            cell = Box(row, column, row + 1, column + 1)
            if not self.cells.contains(cell):
                continue
            here = self._scores_of_cell(cell)
            if nodata[here].all():
                nodata[here] = 0
                state = self.status[cell.relative_to(self.cells).slices]
                state[state != STATUS_FAILED] = STATUS_NODATA

    def _scores_of_cell(self, cell: Box) -> Slices:
        """Where the scores of tiles (rows, columns) lie in the unit's region."""
        scores = self.layout.scores_of(self.layout.tiles.span(cell))
        return scores.relative_to(self.unit.region).slices

    def write(self, store: ImageStore) -> list[Written]:
        """Store everything that this unit owns; returns what was put where."""
        self._settle()
        region, name = self.unit.region, self.layout.name
        written: list[Written] = []
        alone = len(self.plan.passes) == 1
        memo = None if alone else ChunkMemo()  # of the fused scores many are those of this pass
        for plane, values in self.planes.items():
            written += store.write(pass_path(name, plane), region, values)
        if self.features is not None:
            written += store.write(pass_path(name, KEY), self._feature_region, self.features)
        if self.nodata is not None:
            written += store.write(pass_path(name, NODATA), region, self.nodata)
        if not alone:
            written += store.write(pass_path(name, "scores"), region, self.scores, memo)
        if self.layout.index == self.plan.last.index:
            written += self._write_fused(store, memo)
        # Last, so that whoever reads meanwhile never meets a tile that is answered and still fill.
        written += store.write(pass_path(name, "status"), self.cells, self.status)
        return written

    def _settle(self) -> None:
        """Turn blended sums into scores, and take back what is no answer."""
        if self._blend is not None:
            self.scores[...] = quantise(self._blend.result(), self.plan.scores)
        fill = 0 if self.plan.scores == "uint8" else np.nan
        if self.unit.batches and self.nodata is not None and self.nodata.any():
            holes = self.nodata != 0
            self.scores[:, holes] = fill
            for plane in self.planes.values():
                plane[holes] = 0
        if self._blend is not None or np.isin(self.status, (STATUS_NODATA, STATUS_FAILED)).any():
            self._take_back(fill)

    def _take_back(self, fill: float) -> None:
        """What tiles were given that were not answered."""
        for row, column in np.argwhere(~was_answered(self.status)):
            cell = Box(row, column, row + 1, column + 1).shift(self.cells.y0, self.cells.x0)
            place = self._scores_of_cell(cell)
            self.scores[(slice(None), *place)] = fill
            for plane in self.planes.values():
                plane[place] = 0
            if self.nodata is not None:
                self.nodata[place] = 0
            if self.features is not None:
                taken_back = self._features_of(self.layout.tiles.span(cell))
                inside = taken_back.relative_to(self._feature_region)
                self.features[(slice(None), *inside.slices)] = 0

    def _write_fused(self, store: ImageStore, memo: ChunkMemo | None) -> list[Written]:
        """The fused result of this region, its labels, its lower levels, and who answered."""
        region = self.unit.region
        said = LastAnswer(self.scores, self.status, self.nodata)
        fused = compose_region(store, self.plan, region, said)
        coverage, status = region_coverage(store, self.plan, region, self.status)
        cells = self.plan.coverage_box(region)
        return [
            *store.write("0", region, fused.scores, memo),
            *store.write("labels/classes/0", region, fused.labels),
            *write_lower_levels(store, self.plan, region, fused.scores, fused.labels),
            *store.write("coverage", cells, coverage),
            *store.write("status", cells, status),
        ]

    def counts(self) -> dict[str, int]:
        """Tiles by outcome, for the receipt."""
        return {
            "done": int((self.status == STATUS_DONE).sum()),
            "degraded": int((self.status == STATUS_DEGRADED).sum()),
            "failed": int((self.status == STATUS_FAILED).sum()),
        } | self._without_data()

    def _without_data(self) -> dict[str, int]:
        """Only where the image may lack data."""
        return {"nodata": int((self.status == STATUS_NODATA).sum())} if self.layout.holes else {}


def receipt_of(
    job: SweepJob, attempt: int, written: list[Written], seconds: dict[str, float]
) -> dict[str, Any]:
    """What the journal keeps of a sweep unit."""
    return {
        "unit": job.unit.id,
        "image": job.unit.image,
        "pass": job.layout.name,
        "attempt": attempt,
        "keys": {w.key: w.checksum for w in written},
        "nbytes": sum(w.nbytes for w in written),
        "tiles": job.counts(),
        "pixels": job.pixels_read,
        "read_nbytes": job.nbytes_read,
        "errors": job.errors[:20],
        "batch": job.layout.batch,
        "splits": job.splits,
        "seconds": {lane: round(value, 4) for lane, value in seconds.items()},
    }
