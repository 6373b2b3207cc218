"""CrossViT: a tile and its surroundings, each with a transformer, that ask each other.

Chen, Fan and Panda, "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image
Classification", ICCV 2021 (arXiv 2103.14899), section 3.3. There both branches see one image in
patches of two sizes; here the second sees a wider field at coarser pixels, a pass's ``context``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.vision_transformers.answering import tile_classifier
from saccade.pipeline.models.vision_transformers.blocks import Block, Encoder, through
from saccade.pipeline.models.vision_transformers.plain import tile_size


class ClassAsks(nn.Module):
    """The class token of one branch asks the patches of the other (section 3.3, figure 4).

    It is projected to the other's width, put in front of the other's patches, the only query
    there, and projected back; nothing but that token changes, so the cost grows with the number
    of patches, not with its square.
    """

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.there = _projection(width, other)
        self.norm = nn.LayerNorm(other)
        self.query = nn.Linear(other, other)
        self.keys_values = nn.Linear(other, 2 * other)
        self.out = nn.Linear(other, other)
        self.back = _projection(other, width)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """``(N, 1 + T, width)`` and the other branch's ``(N, 1 + S, other)`` give the former."""
        token = self.there(asking[:, :1])
        seen = self.norm(torch.cat([token, asked[:, 1:]], 1))
        query = self._by_head(self.query(seen[:, :1]))
        keys, values = map(self._by_head, self.keys_values(seen).chunk(2, -1))
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        token = token + self.out(mixed.transpose(1, 2).flatten(2))
        return torch.cat([self.back(token), asking[:, 1:]], 1)

    def _by_head(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, -1, (self.heads, -1)).transpose(1, 2)


def _projection(width: int, other: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, other))


def _through(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    return through(cast("Sequence[Block]", blocks), tokens)


class Stage(nn.Module):
    """Blocks of each branch, then both ask each other: one multi-scale encoder."""

    def __init__(self, widths: tuple[int, int], heads: int, depths: tuple[int, int]) -> None:
        super().__init__()
        here, around = widths
        self.here_blocks = nn.ModuleList(Block(here, heads) for _ in range(depths[0]))
        self.around_blocks = nn.ModuleList(Block(around, heads) for _ in range(depths[1]))
        self.here_asks = ClassAsks(here, around, heads)
        self.around_asks = ClassAsks(around, here, heads)

    def forward(self, here: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both branches, ``(N, 1 + T, width)`` each, class token first."""
        here, around = _through(self.here_blocks, here), _through(self.around_blocks, around)
        return self.here_asks(here, around), self.around_asks(around, here)


class CrossViT(nn.Module):
    """A tile classifier with a second, wider field of view.

    Args:
        classes: of the scores.
        tile: side of a tile in pixels, a multiple of ``patch``: the stride of the answer. A pass
            gives single tiles, since the wider view is centred on them.
        context: how many times wider the second field is, at as many times coarser pixels.
        stages: how often the branches ask each other.
        context_depth: blocks of the second branch in each stage; ``depth`` are those of the first.
        context_width: of the second branch's tokens.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``grid`` follows from the tile.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        tile: int = 64,
        context: float = 4.0,
        stages: int = 2,
        context_depth: int = 2,
        context_width: int = 64,
        seed: int = 0,
        **size: int,
    ) -> None:
        super().__init__()
        self.size = here = tile_size(tile, **({"depth": 1} | size))
        around = replace(here, width=context_width, depth=context_depth)
        widths, depths = (here.width, around.width), (here.depth, around.depth)
        with seeded(seed):
            self.here = Encoder(replace(here, depth=0))
            self.around = Encoder(replace(around, depth=0))
            self.stages = nn.ModuleList(Stage(widths, here.heads, depths) for _ in range(stages))
            self.here_head = nn.Linear(here.width, len(classes))
            self.around_head = nn.Linear(around.width, len(classes))
        self.saccade = tile_classifier(
            classes, tile, channels=here.channels, context=(float(context),)
        )

    def forward(self, x: Tensor, *, context: Sequence[Tensor]) -> Tensor:
        """Logits ``(N, classes)``, the mean of both branches'.

        Args:
            x: tiles ``(N, channels, H, W)``.
            context: one view of the same shape: same centre, coarser pixels.
        """
        here, around = self.here.begin(x), self.around.begin(context[0])
        for stage in self.stages:
            here, around = stage(here, around)
        by_here: Tensor = self.here_head(self.here.norm(here)[:, 0])
        by_around: Tensor = self.around_head(self.around.norm(around)[:, 0])
        return (by_here + by_around) / 2
