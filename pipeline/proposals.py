"""Proposals: boxes of tiles around what stands out in a map. Pure numpy.

The dynamic patch proposal module of RAMS-Trans (Hu, Jin, Zhang, Hong, Zhang, He, Xue, *RAMS-Trans:
Recurrent Attention Multi-scale Transformer for Fine-grained Image Recognition*, ACM Multimedia
2021, arXiv 2107.08192, section 3.3) marks what is above a multiple of the map's mean, takes the
largest connected region, and cuts its bounding box out for the next scale. Ours differs where a
gigapixel image differs from a photograph of one bird: every region above a floor of area is
proposed, boxes grow to whole tiles of the next pass instead of being stretched to the input size,
and the mean is that of the candidates, because most of a slide is glass.

The map is reduced to cells, a few along each side of a tile. Finer ones would not change which tile
a box grows to except at its edges, and they cost memory on every tile of the image; one per tile
would join regions that a fine gap keeps apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.pipeline.regions import regions_of


@dataclass(frozen=True, slots=True, eq=False)
class ProposedBoxes:
    """Boxes of tiles, those of larger regions first; of equal ones, that whose first cell is."""

    boxes: np.ndarray
    """``(n, 4)`` int64 in tiles: first row and column, one past last row and column."""
    areas: np.ndarray
    """``(n,)`` float: area of each region, in whole tiles."""
    threshold: float
    """The value that its cells are above; NaN where there is no cell."""

    def paint(self, shape: tuple[int, int]) -> np.ndarray:
        """``shape`` int64: for each tile the first box that holds it; -1 where none does."""
        holder = np.full(shape, -1, np.int64)
        for rank in reversed(range(len(self.boxes))):
            y0, x0, y1, x1 = self.boxes[rank]
            holder[y0:y1, x0:x1] = rank
        return holder


def propose(values: np.ndarray, cells: int, alpha: float, min_area: float) -> ProposedBoxes:
    """Boxes of tiles around the regions of a map that stand out.

    Args:
        values: ``(rows, columns)`` float32 of cells; NaN cells are neither judged nor averaged.
        cells: cells along each side of a tile.
        alpha: a cell stands out when it is above this many times the mean.
        min_area: area of the smallest region that is proposed, in whole tiles.
    """
    valid = values[~np.isnan(values)]
    threshold = alpha * float(valid.mean(dtype=np.float64)) if len(valid) else np.nan
    # strictly above: a map that is the same all over proposes nothing
    found = regions_of(values > np.float32(threshold))
    areas = found.areas / cells**2
    kept = np.flatnonzero(areas >= min_area)
    order = kept[np.argsort(-areas[kept], kind="stable")]
    boxes = found.boxes[order]
    boxes[:, :2] //= cells
    boxes[:, 2:] = -(-boxes[:, 2:] // cells)
    return ProposedBoxes(boxes, areas[order], threshold)
