"""Parts of ``MultiPassNet``: convolutions, transformer blocks on cells of tokens, scale, guidance.

Every part answers the same for a pixel whatever window it lies in, as long as windows begin and end
on cell borders and the reach of the convolutions is inside. Knows no pass, recipe or file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIP_PX = 64
"""Rows of one class whose edges are found at a time on a CPU."""


def conv_norm_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, batch normalisation and ReLU: one convolution once it is fused."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """A pre-norm transformer block over groups of tokens (Dosovitskiy et al., arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int, ratio: int = 2) -> None:
        """Make a block.

        Args:
            width: channels of a token; a multiple of ``heads``.
            heads: of the attention.
            ratio: hidden channels of the perceptron per channel.
        """
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, tokens: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Let the tokens of each group attend to each other.

        Args:
            tokens: ``(G, T, D)``.
            maps: is given the attention, ``(G, heads, T, T)``; None spends nothing on it.

        Returns:
            ``(G, T, D)``.
        """
        tokens = tokens + self.out(self._attend(self.before_attention(tokens), maps))
        changed: Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return changed

    def _attend(self, tokens: Tensor, maps: list[Tensor] | None) -> Tensor:
        groups, count, width = tokens.shape
        split = self.qkv(tokens).view(groups, count, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if maps is None:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            maps.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1))
            mixed = maps[-1] @ v
        return mixed.transpose(1, 2).reshape(groups, count, width)


class ScaleEmbedding(nn.Module):
    """Says to a network how large its pixels are: sines of their logarithm, then a perceptron."""

    def __init__(self, width: int, waves: int = 8) -> None:
        """Make an embedding of ``width`` channels from sines of ``waves`` frequencies."""
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(-waves // 2, waves // 2))
        self.mlp = nn.Sequential(nn.Linear(2 * waves, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixel_size: Tensor) -> Tensor:
        """``(N,)`` positive, in any one unit -> ``(N, width, 1, 1)``."""
        frequencies = torch.as_tensor(self.frequencies, dtype=torch.float32)
        angles = pixel_size.float().log2()[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], 1).to(next(self.mlp.parameters()).dtype)
        embedded: Tensor = self.mlp(waves)
        return embedded[..., None, None]


class Guide(nn.Module):
    """Brings the previous pass's scores and their edges in, through weights that start at zero.

    RMFormer guides a finer scale by the coarser prediction and by its edge map (arXiv 2308.03826,
    section 3); starting at zero, as ControlNet does (arXiv 2302.05543, section 3.1), a network with
    guidance begins as the one without.
    """

    def __init__(self, classes: int, width: int, stride: int) -> None:
        """Make a guide for scores of ``classes``, to be added to ``width`` maps at ``stride``."""
        super().__init__()
        self.stride = stride
        self.project = nn.Conv2d(2 * classes, width, 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, guidance: Tensor) -> Tensor:
        """``(N, K, H, W)`` in [0, 1] -> ``(N, width, H / stride, W / stride)``."""
        guided: Tensor = self.project(with_edges(guidance, self.stride))
        return guided


def with_edges(scores: Tensor, stride: int) -> Tensor:
    """Scores and after them their edges, averaged over squares; whole squares expected.

    ``(N, K, H, W)`` -> ``(N, 2 K, H / stride, W / stride)``.
    """
    # a GPU likes few large steps, and an exported program is for any height
    if scores.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.cat([_averaged(scores, stride), _averaged(edges(scores), stride)], 1)
    return _in_strips(scores, stride)


def _in_strips(scores: Tensor, stride: int) -> Tensor:
    """The same in pieces that stay in a processor's cache: less than half the time."""
    n, classes, height, width = scores.shape
    around, rows = _with_border(scores.contiguous()), STRIP_PX // stride * stride
    seen = scores.new_empty(n, 2 * classes, height // stride, width // stride)
    for k in range(classes):
        for y in range(0, height, rows):
            part, at = around[:, k, y : y + rows + 2], slice(y // stride, (y + rows) // stride)
            seen[:, k, at] = _averaged(part[..., 1:-1, 1:-1], stride)
            seen[:, classes + k, at] = _averaged(_gradient(part), stride)
    return seen


def edges(scores: Tensor) -> Tensor:
    """Morphological gradient, 3 x 3: highest minus lowest score around; zero where it is flat."""
    return _gradient(_with_border(scores))


def _with_border(scores: Tensor) -> Tensor:
    return functional.pad(scores, (1, 1, 1, 1), mode="replicate")


def _gradient(around: Tensor) -> Tensor:
    # slices: several times as fast on a CPU as pooling
    return _over_three(torch.maximum, around) - _over_three(torch.minimum, around)


def _averaged(maps: Tensor, stride: int) -> Tensor:
    places = [(y, x) for y in range(stride) for x in range(stride)]
    total = maps[..., ::stride, ::stride]
    for y, x in places[1:]:
        total = total + maps[..., y::stride, x::stride]
    return total / stride**2


def _over_three(which: Callable[[Tensor, Tensor], Tensor], around: Tensor) -> Tensor:
    """``which`` of three rows, then of three columns: ``(.., h + 2, w + 2)`` -> ``(.., h, w)``."""
    rows = which(which(around[..., :-2, :], around[..., 1:-1, :]), around[..., 2:, :])
    return which(which(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def to_cells(maps: Tensor, cell: int) -> Tensor:
    """``(N, D, h, w)`` -> ``(N * cells, cell * cell, D)``, cells row by row."""
    n, width, height, across = maps.shape
    rows, columns = height // cell, across // cell
    cells = maps.view(n, width, rows, cell, columns, cell).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(n * rows * columns, cell * cell, width)


def from_cells(tokens: Tensor, cell: int, shape: tuple[int, int]) -> Tensor:
    """The inverse of ``to_cells``; ``shape`` is ``(h, w)`` of the maps."""
    rows, columns = shape[0] // cell, shape[1] // cell
    cells = tokens.view(-1, rows, columns, cell, cell, tokens.shape[-1])
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(-1, tokens.shape[-1], *shape)
