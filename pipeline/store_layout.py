"""Which arrays the result of one image has: paths, shapes, types, chunks, shards. Pure.

This is the only place that spells array paths. Knows no file and no compression.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from saccade.pipeline.errors import StoreError
from saccade.pipeline.feature_grid import FeatureGrid, feature_key
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.image_plan import LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.layout import PassLayout

COVERAGE = "coverage"
STATUS = "status"
LABELS = "labels/classes"
NODATA = "nodata"
FEATURE_CHUNK_PX = 32
"""A chunk of features, which holds all their channels, is at most so many places high and wide."""


def scores_path(level: int) -> str:
    """Fused scores of one level of the pyramid."""
    return str(level)


def labels_path(level: int) -> str:
    """Labels of one level of the pyramid."""
    return f"{LABELS}/{level}"


def pass_path(name: str, array: str = "") -> str:
    """One of a pass's own arrays, or the group of all of them.

    There are 'scores', 'status' and, where the pass has them, 'saliency', 'confidence', 'features',
    and 'nodata': 1 where a score has no valid pixel below it, in tiles that hold data elsewhere.
    """
    return f"passes/{name}/{array}".rstrip("/")


@dataclass(frozen=True)
class ArraySpec:
    """One array of a result, ``(C, h, w)`` or ``(h, w)``."""

    path: str
    """Where it lies in the result."""
    shape: tuple[int, ...]
    """Of the whole array."""
    dtype: np.dtype[np.generic]
    """Of its values; stored little-endian."""
    fill: float
    """Value of what was never written; costs no storage. NaN for floats."""
    chunk: Shape
    """Height and width of the smallest stored piece."""
    shard: Shape
    """Height and width of what one file holds, all channels of it: whole chunks."""
    downsample: float = 1.0
    """Pixels of the image's finest level per value, along each axis."""
    sharded: bool = True
    """Whether a file holds several chunks; where False, ``chunk`` and ``shard`` are equal."""
    deep: bool = False
    """Whether a chunk holds all channels; else it holds one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Kept in its attributes, plain JSON."""

    def __post_init__(self) -> None:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise StoreError(f"{self.path}: shard {self.shard} must be whole chunks {self.chunk}")
        if not self.sharded and (self.shard != self.chunk or len(self.shape) != 2):
            raise StoreError(f"{self.path}: a chunk of its own file is two-dimensional; {self}")

    @property
    def area(self) -> Box:
        """The whole array, height and width."""
        return Box.of((self.shape[-2], self.shape[-1]))

    @cached_property
    def channels(self) -> int:
        """Channels; 1 for a two-dimensional array."""
        return self.shape[0] if len(self.shape) == 3 else 1

    def shards(self, box: Box) -> Iterator[tuple[str, Box]]:
        """Key and place of every shard in a box of whole shards.

        Raises:
            StoreError: the box cuts a shard, so that two writers could meet in one file.
        """
        self._check_whole(box)
        height, width = self.shard
        leading = "c/0/" if len(self.shape) == 3 else "c/"
        for row in range(box.y0 // height, -(-box.y1 // height)):
            for column in range(box.x0 // width, -(-box.x1 // width)):
                place = Box(row * height, column * width, (row + 1) * height, (column + 1) * width)
                yield f"{self.path}/{leading}{row}/{column}", place.intersect(self.area)

    def _check_whole(self, box: Box) -> None:
        (height, width), area = self.shard, self.area
        starts = box.y0 % height == 0 and box.x0 % width == 0
        ends = (box.y1 % height == 0 or box.y1 == area.y1) and (
            box.x1 % width == 0 or box.x1 == area.x1
        )
        if not (starts and ends and box.area and area.contains(box)):
            raise StoreError(
                f"{self.path}: a writer owns whole shards of {self.shard}, cut off at the edge of "
                f"{area.shape}; found {box}"
            )

    def check_data(self, box: Box, data: np.ndarray) -> None:
        """Refuse data of another shape or type than the array's.

        Raises:
            StoreError: naming what was expected and what was found.
        """
        expected = (*self.shape[:-2], *box.shape)
        if data.shape != expected or data.dtype != self.dtype:
            raise StoreError(
                f"{self.path}: {self.dtype} of shape {expected} expected for {box}; found "
                f"{data.dtype} of shape {data.shape}"
            )


def arrays_of(plan: ImagePlan) -> dict[str, ArraySpec]:
    """Every array of an image's result, by path."""
    specs = [*_pyramid(plan), *_tile_arrays(plan)]
    for layout in plan.passes:
        specs += _pass_arrays(plan, layout)
    return {spec.path: spec for spec in specs}


def _pyramid(plan: ImagePlan) -> Iterator[ArraySpec]:
    dtype, fill = _score_type(plan)
    for level, (height, width) in enumerate(plan.pyramid_shapes):
        side = plan.shard_px(level)
        chunk = (math.gcd(side, plan.last.chunk_px),) * 2
        shape, shard = (len(plan.classes), height, width), (side, side)
        down = plan.last.score_downsample * 2**level
        yield ArraySpec(scores_path(level), shape, dtype, fill, chunk, shard, down)
        labels, byte = labels_path(level), np.dtype(np.uint8)
        yield ArraySpec(labels, (height, width), byte, LABEL_UNKNOWN, chunk, shard, down)


def _tile_arrays(plan: ImagePlan) -> Iterator[ArraySpec]:
    yield _of_tiles(COVERAGE, plan.last)
    yield _of_tiles(STATUS, plan.last)


def _pass_arrays(plan: ImagePlan, layout: PassLayout) -> Iterator[ArraySpec]:
    dtype, fill = _score_type(plan)
    chunk, shard = (layout.chunk_px,) * 2, (layout.shard_px,) * 2
    down = layout.score_downsample
    if len(plan.passes) > 1:
        shape = (len(layout.classes), *layout.score_shape)
        yield ArraySpec(pass_path(layout.name, "scores"), shape, dtype, fill, chunk, shard, down)
    for name in (*layout.planes, *([NODATA] if layout.holes else [])):
        path = pass_path(layout.name, name)
        yield ArraySpec(path, layout.score_shape, np.dtype(np.uint8), 0, chunk, shard, down)
    if layout.gives is not None:
        yield _features(plan, layout, layout.gives)
    yield _of_tiles(pass_path(layout.name, "status"), layout)


def _features(plan: ImagePlan, layout: PassLayout, grid: FeatureGrid) -> ArraySpec:
    side = layout.region_px // grid.stride
    chunk = max(px for px in range(1, FEATURE_CHUNK_PX + 1) if side % px == 0)
    return ArraySpec(
        path=pass_path(layout.name, "features"),
        shape=(grid.channels, *feature_shape(layout, grid)),
        dtype=np.dtype(np.float16),
        fill=0,
        chunk=(chunk, chunk),
        shard=(side, side),
        downsample=layout.plane.downsample * grid.stride,
        deep=True,
        facts={"features": feature_key(plan, layout)},
    )


def feature_shape(layout: PassLayout, grid: FeatureGrid) -> Shape:
    """Height and width of a pass's features: of all that its windows see, beyond the edge too."""
    height, width = layout.padded_shape
    return height // grid.stride, width // grid.stride


def feature_box(layout: PassLayout, grid: FeatureGrid, box: Box) -> Box:
    """The features that belong to a box of input pixels.

    What lies at the image's edge has those of the rest of its window, too: on the same grid the
    next pass's window then sees all features there are, and no padding.
    """
    places = box.reduce(layout.multiple).scale(layout.multiple // grid.stride)
    return places.clip(feature_shape(layout, grid))


def _of_tiles(path: str, layout: PassLayout) -> ArraySpec:
    """One value per tile of a pass; a file holds those of one unit."""
    shape = layout.tiles.rows, layout.tiles.columns
    unit = shape if layout.window_tiles == 0 else (layout.shard_tiles,) * 2
    down = layout.plane.downsample * layout.tile_px
    return ArraySpec(path, shape, np.dtype(np.uint8), 0, unit, unit, down, sharded=False)


def _score_type(plan: ImagePlan) -> tuple[np.dtype[np.generic], float]:
    return np.dtype(plan.scores), 0.0 if plan.scores == "uint8" else math.nan
