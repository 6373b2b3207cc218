"""A plain vision transformer: patches to tokens, blocks of attention, whatever the window's size.

After Dosovitskiy et al., "An Image Is Worth 16x16 Words: Transformers for Image Recognition at
Scale", ICLR 2021 (arXiv 2010.11929), section 3.1. The methods built on it decide which tokens it
sees; it knows none of them, and no head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Look = Literal["nothing", "class", "everything"]
"""Which rows of its attention a block shows: none, those of the first token, or all."""
_ROWS: dict[Look, int | None] = {"nothing": 0, "class": 1, "everything": None}


@dataclass(frozen=True, slots=True)
class Size:
    """How large a transformer is; the options that every model built on it takes by name."""

    width: int = 48
    """Of a token."""
    depth: int = 4
    """Number of blocks."""
    heads: int = 4
    """Of attention, in every block."""
    patch: int = 8
    """Side of a patch, in pixels."""
    grid: int = 8
    """Side of the grid of learned positions, in patches; interpolated to any other."""
    channels: int = 3
    """Of the pixels."""

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.patch, self.grid, self.channels) < 1 or self.depth < 0:
            raise ValueError(f"every size is 1 or more, depth 0 or more; found {self}")
        if self.width % self.heads:
            raise ValueError(
                f"width is a multiple of heads; found width {self.width}, heads {self.heads}"
            )


def attention_maps(queries: Tensor, keys: Tensor) -> Tensor:
    """How much every query attends to every key, ``(N, heads, Q, T)`` float32; rows sum to one.

    Args:
        queries: ``(N, heads, Q, width of a head)``.
        keys: ``(N, heads, T, width of a head)``.
    """
    agreement: Tensor = queries @ keys.mT * queries.shape[-1] ** -0.5
    return agreement.float().softmax(-1)


class Attention(nn.Module):
    """Multi-head self-attention that shows its maps only where asked, at the same answer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, look: Look = "nothing") -> tuple[Tensor, Tensor]:
        """``(N, T, width)`` mixed, and the rows asked for, ``(N, heads, 0, 1 or T, T)``."""
        split = torch.unflatten(self.queries_keys_values(tokens), -1, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        maps = attention_maps(q[:, :, : _ROWS[look]], k)
        if look == "everything":
            mixed = maps.to(v.dtype) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)), maps


class Block(nn.Module):
    """Attention, then a network for each token, both on normalised tokens and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.each = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor, look: Look = "nothing") -> tuple[Tensor, Tensor]:
        """``(N, T, width)`` and the rows asked for, as ``Attention``."""
        tokens, maps = self.attend(tokens, look)
        return self.digest(tokens), maps

    def attend(self, tokens: Tensor, look: Look = "nothing") -> tuple[Tensor, Tensor]:
        """The first half: tokens look at each other."""
        mixed, maps = self.attention(self.before_attention(tokens), look)
        return tokens + mixed, maps

    def digest(self, tokens: Tensor) -> Tensor:
        """The second half: every token by itself."""
        digested: Tensor = tokens + self.each(tokens)
        return digested


class PatchEmbedding(nn.Module):
    """Square patches as vectors that know where they are, on a grid of any size."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patch = size.patch
        self.project = nn.Conv2d(size.channels, size.width, size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.randn(1, size.width, size.grid, size.grid) * 0.02)

    def grid_of(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches of windows ``(N, channels, H, W)``."""
        return pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch

    def forward(self, pixels: Tensor) -> Tensor:
        """``(N, width, H / patch, W / patch)``; positions are interpolated to that grid."""
        cells: Tensor = self.project(pixels)
        positions = functional.interpolate(
            self.positions.float(), size=cells.shape[-2:], mode="bilinear", align_corners=False
        )
        return cells + positions.to(cells.dtype)


class Encoder(nn.Module):
    """Patches, a class token before them, blocks, and a last normalisation."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = PatchEmbedding(size)
        self.class_token = nn.Parameter(torch.randn(1, 1, size.width) * 0.02)
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(N, 1 + T, width)``: the class token, then the patches row by row."""
        return self.through(self.begin(pixels))

    def begin(self, pixels: Tensor) -> Tensor:
        """Tokens as they enter the first block, ``(N, 1 + T, width)``."""
        return self.headed(as_tokens(self.embed(pixels)))

    def headed(self, tokens: Tensor) -> Tensor:
        """``(N, T, width)`` with the class token put before them."""
        return torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1)

    def through(self, tokens: Tensor) -> Tensor:
        """Tokens through all blocks and the last normalisation."""
        normed: Tensor = self.norm(through(self.layers, tokens))
        return normed

    @property
    def layers(self) -> Sequence[Block]:
        """The blocks, in order."""
        return cast("Sequence[Block]", self.blocks)


def through(blocks: Iterable[Block], tokens: Tensor) -> Tensor:
    """Tokens ``(N, T, width)`` through one block after the other."""
    for block in blocks:
        tokens, _ = block(tokens)
    return tokens


def as_tokens(cells: Tensor) -> Tensor:
    """A grid ``(N, width, rows, columns)`` as tokens ``(N, rows * columns, width)``, row by row."""
    return cells.flatten(2).transpose(1, 2)


def as_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of ``as_tokens``."""
    return torch.unflatten(tokens.transpose(1, 2), 2, grid)
