"""How the strips of a sweep unit are stored, one after the other, and put into place together.

In the last pass the fused result of each strip is composed while its scores are in memory, and with
it the levels of the pyramid that the unit owns.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.compose import LastAnswer, compose_region, region_coverage
from saccade.pipeline.features import KEY
from saccade.pipeline.geometry import Box
from saccade.pipeline.held_answers import HeldAnswers
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.pyramid import halvings
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import (
    COVERAGE,
    NODATA,
    STATUS,
    feature_box,
    labels_path,
    pass_path,
    scores_path,
)
from saccade.pipeline.store_shards import ChunkMemo
from saccade.pipeline.store_writing import RegionWriter, Written
from saccade.workers.strip import Strip


class StripWriter:
    """Stores the strips of one unit; for one thread at a time.

    Args:
        store: the result.
        plan: of the image.
        layout: of the pass.
        region: scores that the unit answers for.
    """

    def __init__(self, store: ImageStore, plan: ImagePlan, layout: PassLayout, region: Box) -> None:
        self._store, self._plan, self._layout, self._region = store, plan, layout, region
        fuses = layout.index == plan.last.index
        self._coarser = HeldAnswers(store, plan, region) if fuses else None
        self._writers: dict[str, RegionWriter] = {}

    def add(self, strip: Strip) -> None:
        """Compress the next strip, from top to bottom; nothing is in place yet.

        Raises:
            StoreError: the storage fails, or a coarser pass can't be read.
            StorageFull: no space is left.
        """
        strip.settle()
        name, region = self._layout.name, self._region
        alone = len(self._plan.passes) == 1
        memo = None if alone else ChunkMemo()  # of the fused scores many are those of this pass
        for plane, values in strip.planes.items():
            self._add(pass_path(name, plane), region, values)
        if strip.features is not None:
            self._add(pass_path(name, KEY), self._feature_region(), strip.features)
        if strip.nodata is not None:
            self._add(pass_path(name, NODATA), region, strip.nodata)
        if not alone:
            self._add(pass_path(name, "scores"), region, strip.scores, memo)
        if self._coarser is not None:
            self._add_fused(strip, self._coarser, memo)
        # Last, so that whoever reads meanwhile never meets a tile that is answered and still fill.
        cells = self._layout.tiles.cells_touching(region.scale(self._layout.stride))
        self._add(pass_path(name, "status"), cells, strip.status)

    def _feature_region(self) -> Box:
        assert self._layout.gives is not None
        whole = self._region.scale(self._layout.stride)
        return feature_box(self._layout, self._layout.gives, whole)

    def _add_fused(self, strip: Strip, coarser: HeldAnswers, memo: ChunkMemo | None) -> None:
        """The fused result of a strip, its labels, its lower levels, and who answered."""
        said = LastAnswer(strip.scores, strip.status, strip.nodata)
        fused = compose_region(coarser, self._plan, strip.region, said)
        coverage, status = region_coverage(coarser, self._plan, strip.region, strip.status)
        region = self._region
        self._add(scores_path(0), region, fused.scores, memo)
        self._add(labels_path(0), region, fused.labels)
        for level, scores, labels in halvings(self._plan, fused.scores, fused.labels):
            region = region.reduce(2)
            self._add(scores_path(level), region, scores)
            self._add(labels_path(level), region, labels)
        cells = self._plan.coverage_box(self._region)
        self._add(COVERAGE, cells, coverage)
        self._add(STATUS, cells, status)

    def _add(self, array: str, box: Box, rows: np.ndarray, memo: ChunkMemo | None = None) -> None:
        writer = self._writers.get(array)
        if writer is None:
            writer = self._writers[array] = self._store.writing(array, box)
        writer.add(rows, memo)

    def put(self) -> list[Written]:
        """Put all that this unit owns into place, once its last strip is in.

        Raises:
            StoreError: the storage fails.
            StorageFull: no space is left.
        """
        return [written for writer in self._writers.values() for written in writer.put()]

    def abandon(self) -> None:
        """Leave nothing of what is not in place; gladly twice."""
        for writer in self._writers.values():
            writer.abandon()
