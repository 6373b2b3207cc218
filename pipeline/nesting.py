"""How the tiles of one pass lie on those of a coarser one. Pure."""

from __future__ import annotations

import numpy as np

from saccade.pipeline.layout import PassLayout

Spans = tuple[np.ndarray, np.ndarray]
"""Starts and stops along one axis."""


def tiles_touching(coarse: PassLayout, fine: PassLayout, marked: np.ndarray) -> np.ndarray:
    """The fine tiles that share ground with a marked coarse tile.

    Args:
        coarse: the pass that ``marked`` belongs to.
        fine: the pass that is asked about.
        marked: ``(coarse tile rows, coarse tile columns)`` bool.

    Returns:
        ``(fine tile rows, fine tile columns)`` bool.
    """
    return any_in(marked, spans(coarse, fine, axis=0), spans(coarse, fine, axis=1))


def any_in(marked: np.ndarray, rows: Spans, columns: Spans) -> np.ndarray:
    """Which rectangles of an array hold a mark.

    Args:
        marked: ``(height, width)`` bool.
        rows: first and one past last row of each row of rectangles.
        columns: likewise.

    Returns:
        ``(len(rows), len(columns))`` bool.
    """
    counts = np.zeros((marked.shape[0] + 1, marked.shape[1] + 1), np.int64)
    counts[1:, 1:] = marked.cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = rows, columns
    inside = (
        counts[np.ix_(bottom, right)]
        - counts[np.ix_(top, right)]
        - counts[np.ix_(bottom, left)]
        + counts[np.ix_(top, left)]
    )
    found: np.ndarray = inside > 0
    return found


def spans(coarse: PassLayout, fine: PassLayout, axis: int) -> Spans:
    """Along one axis, first and one past last coarse tile that each fine tile shares ground with.

    Never empty: a sliver at the edge that rounding leaves outside belongs to the last coarse tile.
    """
    ratio = fine.plane.downsample / coarse.plane.downsample / coarse.tile_px
    count = (fine.tiles.rows, fine.tiles.columns)[axis]
    limit = (coarse.tiles.rows, coarse.tiles.columns)[axis]
    starts = np.arange(count) * fine.tile_px
    stops = np.minimum(starts + fine.tile_px, fine.plane.shape[axis])
    first = np.minimum(np.floor(starts * ratio + 1e-9).astype(np.int64), limit - 1)
    last = np.clip(np.ceil(stops * ratio - 1e-9).astype(np.int64), first + 1, limit)
    return first, last
