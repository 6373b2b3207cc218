"""EViT: tokens that the class token attends to stay; the others become one.

Liang et al., "Not All Patches Are What You Need: Expediting Vision Transformers via Token
Reorganizations", ICLR 2022 (arXiv 2202.07800), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.pipeline.models.vision_transformers.plain import TileViT
from saccade.pipeline.models.vision_transformers.ranking import (
    checked_share,
    parted,
    pick,
    quarters,
)


class EViT(TileViT):
    """A tile classifier that lets go of tokens on the way, with the weights of a ``TileViT``.

    In three blocks, between attention and the network for each token, the ``keep`` share of the
    patches with the highest class attention goes on, and one token that sums up the rest (sections
    3.2 and 3.3). A fused token is a token like any other further on. ``keep: 1`` is the plain
    transformer. Can be exported.

    Args:
        classes: of the scores.
        keep: share of the tokens that goes on, each time.
        tile: side of a tile in pixels, a multiple of ``patch``: the stride of the answer.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``grid`` follows from the tile.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        keep: float = 0.7,
        tile: int = 64,
        seed: int = 0,
        **size: int,
    ) -> None:
        super().__init__(classes, tile=tile, seed=seed, **size)
        self.keep = checked_share(keep)
        self.at = quarters(self.size.depth) if keep < 1 else ()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of tiles ``(N, channels, H, W)``."""
        tokens = self.encoder.begin(x)
        for number, block in enumerate(self.encoder.layers):
            here = number in self.at
            tokens, maps = block.attend(tokens, "class" if here else "nothing")
            if here:
                tokens = reorganised(tokens, maps[:, :, 0, 1:].mean(1), self.keep)
            tokens = block.digest(tokens)
        return self.answered(self.encoder.norm(tokens))


def reorganised(tokens: Tensor, attention: Tensor, keep: float) -> Tensor:
    """The class token, the attentive tokens, and the sum of the others, weighted by attention.

    Args:
        tokens: ``(N, 1 + T, width)``, the class token first.
        attention: ``(N, T)``, what that token pays to the others, averaged over heads.
        keep: share of the ``T`` tokens that stays as it is.

    Returns:
        ``(N, 1 + k + 1, width)``.
    """
    head, cells = tokens[:, :1], tokens[:, 1:]
    kept, rest = parted(attention, keep)
    weights = attention.gather(1, rest).to(cells.dtype)
    fused = (pick(cells, rest) * weights.unsqueeze(-1)).sum(1, keepdim=True)
    return torch.cat([head, pick(cells, kept), fused], 1)
