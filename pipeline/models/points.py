"""Point refinement: the most uncertain pixels of every cell are answered once more, on their own.

After PointRend (Kirillov et al., arXiv 1912.08193, section 3.1), which RMFormer uses for its last
scale. Points are chosen cell by cell and ties go to the first pixel, so that a pixel's answer
depends neither on the window it lies in nor on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.pipeline.models.multipass_parts import from_cells, to_cells


class PointRefinement(nn.Module):
    """A perceptron that answers again for the pixels that the network is least sure of."""

    def __init__(self, width: int, classes: int, share: float, cell: int) -> None:
        """Make a refinement.

        Args:
            width: channels of the maps that it looks at.
            classes: scores per pixel.
            share: of the pixels of every cell, in (0, 1].
            cell: side of a cell, in scores.
        """
        super().__init__()
        self.count, self.cell = max(1, round(share * cell * cell)), cell
        last = nn.Linear(width, classes)
        nn.init.zeros_(last.weight)  # begins as the network without it
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(width + classes, width), nn.ReLU(inplace=True), last)

    def forward(self, logits: Tensor, maps: Tensor) -> Tensor:
        """Refined logits.

        Args:
            logits: ``(N, K, h, w)``, whole cells.
            maps: ``(N, width, h, w)``.

        Returns:
            ``(N, K, h, w)``: as they were, but for the points.
        """
        answers = to_cells(logits, self.cell)
        points = uncertain_points(answers, self.count)[..., None]
        there = answers.gather(1, points.expand(-1, -1, answers.shape[-1]))
        seen = to_cells(maps, self.cell)
        looked = seen.gather(1, points.expand(-1, -1, seen.shape[-1]))
        again = there + self.mlp(torch.cat([looked, there], -1))
        refined = answers.scatter(1, points.expand_as(again), again)
        return from_cells(refined, self.cell, (logits.shape[-2], logits.shape[-1]))


def uncertain_points(logits: Tensor, count: int) -> Tensor:
    """The pixels whose nearest class is closest to even odds, ``(G, count)`` int64.

    Args:
        logits: ``(G, P, K)``: groups of pixels.
        count: how many of each group.
    """
    sure = logits.detach().abs().amin(-1)
    return sure.sort(dim=1, stable=True).indices[:, :count]
