"""What one pass says of a box: its stored scores, and NaN where it gave no answer.

Scores are stored as bytes whose fill is 0, which is also an answer; only the status of a pass's
tiles tells the two apart. Knows no other pass.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.compose import Reads
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.scores import dequantise
from saccade.pipeline.store_layout import NODATA, pass_path


def read_answers(
    store: Reads, layout: PassLayout, box: Box
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores and, where the pass stores one, saliency of a box.

    Args:
        store: holds the pass's arrays.
        layout: of the pass.
        box: in its scores.

    Returns:
        ``(C, h, w)`` and ``(h, w)`` float32 in [0, 1], NaN in tiles that were not answered and
        where there is no data.
    """
    known = known_pixels(store, layout, box)
    scores = dequantise(store.read(pass_path(layout.name, "scores"), box))
    scores[:, ~known] = np.nan
    if not layout.saliency:
        return scores, None
    saliency = dequantise(store.read(pass_path(layout.name, "saliency"), box))
    saliency[~known] = np.nan
    return scores, saliency


def read_confidence(store: Reads, layout: PassLayout, box: Box) -> np.ndarray | None:
    """The model's own confidence in a box.

    Args:
        store: holds the pass's arrays.
        layout: of the pass.
        box: in its scores.

    Returns:
        ``(h, w)`` float32 in [0, 1], NaN in tiles that were not answered; None where the pass
        stores none.
    """
    if not layout.confidence:
        return None
    confidence = dequantise(store.read(pass_path(layout.name, "confidence"), box))
    confidence[~known_pixels(store, layout, box)] = np.nan
    return confidence


def known_pixels(store: Reads, layout: PassLayout, box: Box) -> np.ndarray:
    """``(h, w)`` bool: scores of a box that were answered, and have data below them."""
    known = answered_pixels(store, layout, box)
    if layout.holes:
        known &= store.read(pass_path(layout.name, NODATA), box) == 0
    return known


def answered_pixels(
    store: Reads, layout: PassLayout, box: Box, stride: int | None = None
) -> np.ndarray:
    """``(h, w)`` bool: places of a grid that lie in a tile that was answered.

    Args:
        store: holds the pass's status.
        layout: of the pass.
        box: in places of the grid.
        stride: input pixels per place; None takes the scores' own.
    """
    step = stride or layout.stride
    cells = layout.tiles.cells_touching(box.scale(step))
    answered = was_answered(store.read(pass_path(layout.name, "status"), cells))
    # beyond the image's edge lie places only where a side was rounded up to whole windows
    last_row, last_column = cells.height - 1, cells.width - 1
    rows = np.minimum(np.arange(box.y0, box.y1) * step // layout.tile_px - cells.y0, last_row)
    columns = np.minimum(np.arange(box.x0, box.x1) * step // layout.tile_px - cells.x0, last_column)
    known: np.ndarray = answered[np.ix_(rows, columns)]
    return known
