"""The mask inside a TIFF: directories beside those of the pixels that say which hold data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tifffile import TiffFile

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.sources.base import level_downsample
from saccade.pipeline.sources.byte_source import ByteSource
from saccade.pipeline.sources.reduce import source_span
from saccade.pipeline.sources.tiff_levels import find_masks
from saccade.pipeline.sources.tiff_segments import Segments
from saccade.pipeline.sources.tile_cache import TileCache


class Masks:
    """What masks each level; a level without a mask of its own is masked as level 0 is."""

    def __init__(self, shapes: Sequence[Shape], masks: Sequence[Segments | None]) -> None:
        self._shapes, self._masks = shapes, masks

    @classmethod
    def of(cls, tif: TiffFile, shapes: Sequence[Shape], file: ByteSource) -> Masks | None:
        """Those of levels of some heights and widths; None where level 0 has none."""
        found = find_masks(tif)
        if shapes[0] not in found:
            return None
        pages = [found.get(shape) for shape in shapes]
        kind = np.dtype(np.uint8)
        return cls(shapes, [p if p is None else Segments(p, file, kind, 0) for p in pages])

    def read(self, level: int, box: Box, cache: TileCache) -> np.ndarray | None:
        """``(h, w, 1)`` bool: which pixels of a box hold data; None where all do."""
        own = self._masks[level]
        seen = self._from_finest(level, box, cache) if own is None else _read(own, box, cache)
        return None if seen.all() else seen

    def _from_finest(self, level: int, box: Box, cache: TileCache) -> np.ndarray:
        """A pixel holds data where any pixel of level 0 under it does."""
        finest = self._masks[0]
        assert finest is not None
        full, reduced = self._shapes[0], self._shapes[level]
        factor = level_downsample(full, reduced)
        left, right = source_span(box.x0, box.x1, factor, full[1])
        starts = [source_span(x, x + 1, factor, full[1])[0] for x in range(box.x0, box.x1)]
        out = np.empty((*box.shape, 1), bool)
        for row in range(box.y0, box.y1):
            top, bottom = source_span(row, row + 1, factor, full[0])
            under = _read(finest, Box(top, left, bottom, right), cache)[..., 0]
            any_row = np.logical_or.reduce(under, axis=0)
            out[row - box.y0, :, 0] = np.logical_or.reduceat(any_row, np.array(starts) - left)
        return out


def _read(mask: Segments, box: Box, cache: TileCache) -> np.ndarray:
    out = np.empty((*box.shape, 1), np.uint8)
    mask.read_into(out, box, cache)
    seen: np.ndarray = np.not_equal(out, 0)
    return seen
