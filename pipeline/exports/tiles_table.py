"""A table of tiles: where each lies, why it was chosen, how it fared, what was found there.

A row of tiles at a time; scores of a part of that row. Knows no file format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.pipeline.answers import known_pixels
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.exports.frame import ImagePixels
from saccade.pipeline.feature_grid import FeatureGrid
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
from saccade.pipeline.result import PassResult, Result
from saccade.pipeline.saliency import tile_statistic
from saccade.pipeline.scores import dequantise
from saccade.pipeline.selection import Selection
from saccade.pipeline.signals import margin_uncertainty, signal_map
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import feature_shape, pass_path, scores_path

FEATURES = "features"
"""The column that holds a list of numbers."""
STATUS_WORDS = {
    STATUS_NONE: "not visited",
    STATUS_DONE: "answered",
    STATUS_DEGRADED: "degraded",
    STATUS_NODATA: "no data",
    STATUS_FAILED: "failed",
}
SEGMENT_VALUES = 2**22
"""Scores of about so many values are held at once, and of at least one tile."""

Row = dict[str, Any]
"""Values by column; a column that is missing, and None, is not known."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    """Its heading."""
    kind: type
    """str, int, float or bool; list for features."""


def columns_of(plan: ImagePlan, classes: Sequence[str], features: int) -> tuple[Column, ...]:
    """The columns of an image's table.

    Args:
        plan: of the image.
        classes: whose scores are told.
        features: numbers per tile that passes keep; 0 leaves their column out.
    """
    known = tuple(dict.fromkeys(name for one in plan.passes for name in one.classes))
    shown = [name for name in known if name in classes or not classes]
    words = [Column(name, str) for name in ("image", "state", "pass")]
    places = [Column(name, int) for name in ("tile", "row", "column")]
    sides = ("x", "y", "width", "height", "x_physical", "y_physical")
    said = [Column("unit", str), Column("selected", bool), Column("reason", str)]
    scores = [f"{kind}_{name}" for kind in ("mean", "max") for name in shown]
    numbers = [Column(name, float) for name in ("saliency", "confidence", *scores)]
    last = [Column(FEATURES, list)] * bool(features)
    return (
        *words,
        *places,
        *(Column(name, float) for name in sides),
        *said,
        Column("status", str),
        *numbers,
        *last,
    )


def feature_count(store: ImageStore, plan: ImagePlan) -> int:
    """The most numbers that a pass keeps per place; 0 where none is kept."""
    kept = (one.gives for one in plan.passes if store.has(pass_path(one.name, FEATURES)))
    return max((grid.channels for grid in kept if grid is not None), default=0)


def tile_rows(result: Result, store: ImageStore) -> Iterator[list[Row]]:
    """The tiles of all passes, coarse to fine, a row of tiles at a time.

    Of a pass that was not kept there is what the run's plans say: place and reason.
    """
    for layout in result.plan.passes:
        yield from _PassTiles(result, store, layout, result.passes.get(layout.name)).rows()


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Some tiles beside each other, and what was found there."""

    columns: range
    scores: np.ndarray
    """``(C, h, w)`` float32; NaN where nothing was answered."""
    saliency: np.ndarray | None
    confidence: np.ndarray | None
    """``(h, w)``, the model's own; None where it has none."""
    spans: np.ndarray
    """``(tiles, 2)``, columns of the scores."""
    features: list[list[float]] | None


class _PassTiles:
    """One pass of a result."""

    def __init__(
        self, result: Result, store: ImageStore, layout: PassLayout, found: PassResult | None
    ) -> None:
        self._result, self._store, self._layout = result, store, layout
        self._status = None if found is None else found.status
        self._selection = PassResult(result, layout).selection
        self._reasons = _reasons(self._selection)
        self._frame = ImagePixels.of(result.plan, layout.plane.downsample)
        self._features = layout.gives if self._has(FEATURES) else None

    def rows(self) -> Iterator[list[Row]]:
        """A row of tiles at a time."""
        grid = self._layout.tiles
        for row in range(grid.rows):
            told = [self._place(row, column) for column in range(grid.columns)]
            for segment in self._segments(row):
                for column, found in zip(segment.columns, self._found(segment), strict=True):
                    told[column] |= found
            yield told

    def _place(self, row: int, column: int) -> Row:
        """All that is known of a tile without its scores."""
        grid, plan = self._layout.tiles, self._result.plan
        index = grid.index(row, column)
        box = grid.box(index)
        corners = self._frame.place(np.array([[box.x0, box.y0], [box.x1, box.y1]]))
        (x0, y0), (x1, y1) = corners.tolist()
        told: Row = {
            "image": plan.name,
            "state": "complete" if self._result.complete else "unfinished",
            "pass": self._layout.name,
            **{"tile": index, "row": row, "column": column},
            **{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0},
        }
        if plan.pixel_size is not None:
            size = plan.pixel_size
            told |= {"x_physical": x0 * size.x, "y_physical": y0 * size.y, "unit": size.unit}
        return told | self._choice(index, row, column)

    def _choice(self, index: int, row: int, column: int) -> Row:
        """Whether and why it was chosen, and how it fared."""
        status = None if self._status is None else int(self._status[row, column])
        word = None if status is None else STATUS_WORDS[status]
        if self._selection is not None:
            reason = self._reasons.get(index)
            return {"selected": reason is not None, "reason": reason, "status": word}
        if self._layout.index == 0:
            return {"selected": True, "reason": "every tile", "status": word}
        visited = None if status in (None, STATUS_NONE) else True
        return {"selected": visited, "reason": None, "status": word}

    # ------------------------------------------------------------------------------------- numbers

    def _segments(self, row: int) -> Iterator[_Segment]:
        """The answered tiles of a row, and those between them, in parts of bounded size."""
        if self._status is None:
            return
        layout = self._layout
        side = layout.tile_px // layout.stride
        step = max(1, SEGMENT_VALUES // (side * side * len(layout.classes)))
        for first in range(0, layout.tiles.columns, step):
            columns = range(first, min(first + step, layout.tiles.columns))
            if was_answered(self._status[row, columns.start : columns.stop]).any():
                yield self._segment(row, columns)

    def _segment(self, row: int, columns: range) -> _Segment:
        layout, tiles = self._layout, self._layout.tiles
        pixels = tiles.span(Box(row, columns.start, row + 1, columns.stop))
        box = layout.scores_of(pixels)
        known = known_pixels(self._store, layout, box)
        scores = dequantise(self._store.read(self._scores_path, box)).copy()
        scores[:, ~known] = np.nan
        boxes = [layout.scores_of(tiles.box(tiles.index(row, column))) for column in columns]
        spans = np.array([[one.x0 - box.x0, one.x1 - box.x0] for one in boxes])
        saliency, confidence = (self._own(name, box, known) for name in ("saliency", "confidence"))
        features = None
        if self._features is not None:
            features = [self._feature_means(self._features, row, column) for column in columns]
        return _Segment(columns, scores, saliency, confidence, spans, features)

    @property
    def _scores_path(self) -> str:
        # a single pass has no scores of its own beside the result
        single = len(self._result.plan.passes) == 1
        return scores_path(0) if single else pass_path(self._layout.name, "scores")

    def _has(self, array: str) -> bool:
        return self._store.has(pass_path(self._layout.name, array))

    def _own(self, name: str, box: Box, known: np.ndarray) -> np.ndarray | None:
        if name not in self._layout.planes:
            return None
        values = dequantise(self._store.read(pass_path(self._layout.name, name), box)).copy()
        values[~known] = np.nan
        return values

    def _feature_means(self, grid: FeatureGrid, row: int, column: int) -> list[float]:
        """The mean of a tile's features, place by place."""
        pixels = self._layout.tiles.box(self._layout.tiles.index(row, column))
        box = pixels.reduce(grid.stride).clip(feature_shape(self._layout, grid))
        found = self._store.read(pass_path(self._layout.name, FEATURES), box)
        means: list[float] = found.astype(np.float32).mean(axis=(1, 2)).tolist()
        return means

    def _found(self, segment: _Segment) -> Iterator[Row]:
        """The numbers of every tile of a segment; nothing for one that was not answered."""
        table = self._statistics(segment)
        for number in range(len(segment.columns)):
            row: Row = {name: _known(values[number]) for name, values in table.items()}
            if row["saliency"] is not None and segment.features is not None:
                row[FEATURES] = segment.features[number]
            yield row

    def _statistics(self, segment: _Segment) -> Mapping[str, np.ndarray]:
        classes, scores = self._layout.classes, segment.scores
        saliency = signal_map("saliency", scores, classes, segment.saliency)
        confidence = segment.confidence
        if confidence is None:
            confidence = 1 - margin_uncertainty(scores)
        rows = np.array([[0, scores.shape[1]]])
        table = {
            "saliency": tile_statistic(saliency, rows, segment.spans, "mean")[0],
            "confidence": tile_statistic(confidence, rows, segment.spans, "mean")[0],
        }
        for name, plane in zip(classes, scores, strict=True):
            table[f"mean_{name}"] = tile_statistic(plane, rows, segment.spans, "mean")[0]
            table[f"max_{name}"] = tile_statistic(plane, rows, segment.spans, "max")[0]
        return table


def _known(value: np.floating[Any]) -> float | None:
    return None if math.isnan(value) else float(value)


def _reasons(selection: Selection | None) -> dict[int, str]:
    """Why each chosen tile was."""
    if selection is None:
        return {}
    pairs = zip(selection.tiles, selection.reason_of.tolist(), strict=True)
    return {tile: selection.reasons[reason] for tile, reason in pairs}
