"""Which pass answered each tile of the result, and how well. Pure; knows no file and no score.

Counts on the last pass's tiles. A tile is credited to the finest pass that answered all of it:
where tiles of two passes share its ground, the coarser answer is what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import (
    COVERAGE_FAILED,
    COVERAGE_NODATA,
    COVERAGE_NONE,
    STATUS_DEGRADED,
    STATUS_DONE,
    STATUS_FAILED,
    STATUS_NODATA,
    STATUS_NONE,
    ImagePlan,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.nesting import Spans, any_in, spans


def was_answered(status: np.ndarray) -> np.ndarray:
    """Which tiles of a pass were answered, whole or in part, from their status."""
    return np.isin(status, (STATUS_DONE, STATUS_DEGRADED))


def was_settled(status: np.ndarray) -> np.ndarray:
    """Which tiles of a pass were answered or hold no data: no coarser pass is asked there."""
    return np.isin(status, (STATUS_DONE, STATUS_DEGRADED, STATUS_NODATA))


def tile_counts(status: np.ndarray) -> dict[str, int]:
    """Tiles of a pass by outcome; those without data are told where there are some."""
    nodata = int((status == STATUS_NODATA).sum())
    return {
        "tiles": int(status.size),
        "visited": int((status != STATUS_NONE).sum()),
        "degraded": int((status == STATUS_DEGRADED).sum()),
        "failed": int((status == STATUS_FAILED).sum()),
    } | ({"nodata": nodata} if nodata else {})


@dataclass(frozen=True, slots=True, eq=False)
class StatusPart:
    """A rectangle of one pass's status array."""

    cells: Box
    """Rows and columns of the pass's tiles."""
    values: np.ndarray
    """``(rows, columns)`` uint8, one of ``image_plan.STATUS_*``."""

    def __post_init__(self) -> None:
        if self.values.shape != self.cells.shape:
            raise ValueError(f"status of {self.cells} expected; found {self.values.shape}")


def cells_below(plan: ImagePlan, layout: PassLayout, cells: Box) -> Box:
    """The tiles of a pass that share ground with a rectangle of the last pass's tiles."""
    if not cells.area:
        return Box(0, 0, 0, 0)
    (top, bottom), (left, right) = (spans(layout, plan.last, axis) for axis in (0, 1))
    return Box(
        int(top[cells.y0]), int(left[cells.x0]), int(bottom[cells.y1 - 1]), int(right[cells.x1 - 1])
    )


def compose_coverage(
    plan: ImagePlan, statuses: Sequence[np.ndarray | None], cells: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and status of a rectangle of the last pass's tiles.

    Args:
        plan: of the image.
        statuses: per pass its whole status array; None where it is not known.
        cells: rows and columns of the last pass's tiles.

    Returns:
        ``coverage``: uint8, ``k + 1`` where pass ``k`` is the finest to have answered all of the
        tile, as far as it has data; 254 where it has none; 255 where no pass did and one failed; 0
        where none did. ``status``: uint8, STATUS_NODATA where there is no data, STATUS_FAILED
        where the finest pass that came by could not read, or nobody could; else how the answering
        pass fared.
    """
    parts = [
        None if s is None else StatusPart(Box.of((s.shape[0], s.shape[1])), s) for s in statuses
    ]
    return coverage_of(plan, parts, cells)


def coverage_of(
    plan: ImagePlan, parts: Sequence[StatusPart | None], cells: Box
) -> tuple[np.ndarray, np.ndarray]:
    """``compose_coverage`` from parts that hold ``cells_below`` of each pass."""
    coverage = np.full(cells.shape, COVERAGE_NONE, np.uint8)
    status = np.full(cells.shape, STATUS_NONE, np.uint8)
    waiting = np.ones(cells.shape, bool)
    unseen = np.ones(cells.shape, bool)
    lost, spoilt = np.zeros(cells.shape, bool), np.zeros(cells.shape, bool)
    for layout, part in zip(reversed(plan.passes), reversed(parts), strict=True):
        if part is None or not cells.area:
            continue
        touch = _Touch(plan, layout, part, cells)
        failed = touch.any_of(part.values == STATUS_FAILED)
        settles = waiting & ~touch.any_of(~was_settled(part.values))
        answers = settles & touch.any_of(was_answered(part.values))
        coverage[settles], status[settles] = COVERAGE_NODATA, STATUS_NODATA
        coverage[answers] = layout.index + 1
        degraded = touch.any_of(part.values == STATUS_DEGRADED)
        status[answers] = np.where(degraded, STATUS_DEGRADED, STATUS_DONE)[answers]
        waiting &= ~settles
        spoilt |= failed
        lost |= failed & unseen
        unseen &= ~touch.any_of(part.values != STATUS_NONE)
    coverage[waiting & spoilt] = COVERAGE_FAILED
    status[lost | (waiting & spoilt)] = STATUS_FAILED
    return coverage, status


class _Touch:
    """Which tiles of the last pass share ground with marked tiles of another."""

    def __init__(self, plan: ImagePlan, layout: PassLayout, part: StatusPart, cells: Box) -> None:
        need = cells_below(plan, layout, cells)
        if not part.cells.contains(need):
            raise ValueError(f"pass {layout.name!r}: status of {need} needed; found {part.cells}")
        self._need = need.relative_to(part.cells).slices
        rows, columns = (spans(layout, plan.last, axis) for axis in (0, 1))
        self._rows = _part(rows, cells.y0, cells.y1, need.y0)
        self._columns = _part(columns, cells.x0, cells.x1, need.x0)

    def any_of(self, marked: np.ndarray) -> np.ndarray:
        """``(rows, columns)`` bool of the cells, from bool of the part."""
        return any_in(marked[self._need], self._rows, self._columns)


def _part(edges: Spans, start: int, stop: int, origin: int) -> Spans:
    """The spans of some tiles, counted from another origin."""
    first, last = edges
    return first[start:stop] - origin, last[start:stop] - origin
