"""A module that takes inputs of one size, and windows of any number of them.

Networks with learned position tables, and graphs exported for one shape, refuse every other size. A
window is then cut into cells of that size, and each is answered for by itself: exact whatever the
tiles, with seams where cells meet. Knows no file and no declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract


class InCells(nn.Module):
    """A module whose windows are cut into square cells.

    Args:
        module: takes ``(n, C, side, side)`` and answers a tensor ``(n, K, h, w)``, or a mapping of
            such tensors.
        side_px: of a cell; None where a whole window is one.
        batch: the only number of cells that the module takes at once, so that the last ones are
            filled up; None where it takes any.
    """

    def __init__(self, module: nn.Module, side_px: int | None, *, batch: int | None = None) -> None:
        super().__init__()
        self.module, self.side_px, self.batch = module, side_px, batch

    def forward(self, x: Tensor) -> Any:
        """Answers of all cells side by side.

        Args:
            x: ``(N, C, H, W)``, whole cells high and wide.

        Raises:
            ModelContract: the window is not whole cells.
        """
        height, width = self.side_px or x.shape[2], self.side_px or x.shape[3]
        grid = (x.shape[2] // height, x.shape[3] // width)
        cells = x if self.side_px is None else cut(x, self.side_px)
        size = self.batch or len(cells)
        parts = (cells[first : first + size] for first in range(0, len(cells), size))
        answers = [self._some(part, size) for part in parts]
        if isinstance(answers[0], Mapping):
            return {
                key: pasted(torch.cat([one[key] for one in answers]), grid) for key in answers[0]
            }
        return pasted(torch.cat(answers), grid)

    def _some(self, cells: Tensor, size: int) -> Any:
        """The module's answer for at most ``size`` cells."""
        count = len(cells)
        if count < size:
            cells = torch.cat([cells, cells.new_zeros((size - count, *cells.shape[1:]))])
        answer = self.module(cells)
        if isinstance(answer, Mapping):
            return {key: value[:count] for key, value in answer.items()}
        return answer[:count]


def cut(x: Tensor, side_px: int) -> Tensor:
    """``(N, C, H, W)`` as ``(N * rows * columns, C, side, side)``, row by row.

    Raises:
        ModelContract: height or width is not a multiple of the side.
    """
    n, channels, height, width = x.shape
    if height % side_px or width % side_px:
        raise ModelContract(
            f"windows of whole cells of {side_px} px expected, the only size that the model takes; "
            f"found {height} x {width} px: set 'multiple: {side_px}' and 'halo: 0' of the model"
        )
    rows, columns = height // side_px, width // side_px
    grid = x.reshape(n, channels, rows, side_px, columns, side_px).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(n * rows * columns, channels, side_px, side_px)


def pasted(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of ``cut`` for answers ``(N * rows * columns, K, h, w)``.

    Answers ``(n, K)`` stay as they are where a window is one cell.
    """
    rows, columns = grid
    if x.ndim == 2 and grid == (1, 1):
        return x
    _, channels, height, width = x.shape
    cells = x.reshape(-1, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, channels, rows * height, columns * width)
