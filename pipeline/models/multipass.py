"""``MultiPassNet``: one set of weights for all passes, from the glance to the finest.

A convolutional stem and decoder around transformer blocks, told how large its pixels are, guided by
what the pass before it answered. Knows no pass, recipe or file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.multipass_parts import (
    Block,
    Guide,
    ScaleEmbedding,
    conv_norm_relu,
    from_cells,
    to_cells,
)
from saccade.pipeline.models.points import PointRefinement
from saccade.pipeline.models.seeding import seeded

TOKEN_PX = 8
"""Input pixels per token, along each axis."""
SCORE_PX = 2
"""Input pixels per score, along each axis."""
STEM_REACH_PX = 13
"""How far outside a token its stem sees."""
DECODER_REACH_PX = 6
"""How far from a score's own token the decoder takes others in."""

Reach = Literal["cell", "window"]


class MultiPassNet(nn.Module):
    """A small segmentation network whose one set of weights serves every pass.

    The weights are shared by all resolutions, as in RMFormer (Deng et al., arXiv 2308.03826,
    section 3), and each answer is guided by the coarser one and by its edges. Tokens attend to each
    other inside cells, so that a halo makes an answer exact; with ``reach='window'`` they attend to
    all tokens of the window, and no halo does.

    Attributes:
        saccade: what it declares to a pass.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        channels: int = 3,
        width: int = 24,
        depth: int = 4,
        blocks: int = 4,
        start: int = 0,
        heads: int = 4,
        cell: int = 4,
        guidance: int = 0,
        features: bool = False,
        reach: Reach = "cell",
        points: float = 0.0,
        saliency: bool = False,
        confidence: bool = False,
        attention: bool = False,
        pixel_size: Literal["none", "um", "downsample"] = "downsample",
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        seed: int = 0,
    ) -> None:
        """Make a network with weights drawn from ``seed``.

        Args:
            classes: names of the scores; each has a sigmoid of its own.
            channels: of the input.
            width: channels of the stem; tokens have four times as many.
            depth: transformer blocks to go through, at most ``blocks``; it may differ per pass.
            blocks: transformer blocks that there are weights for.
            start: blocks that were gone through already by the pass whose features are taken; that
                pass must have looked at the same resolution.
            heads: of the attention.
            cell: side of a cell, in tokens of 8 pixels.
            guidance: channels of the previous pass's scores; 0 takes none.
            features: whether the previous pass's tokens are taken in.
            reach: what a token attends to.
            points: share of the pixels that are answered once more; 0 for none.
            saliency: whether a pass is selected by the head that was taught the measured gain.
            confidence: whether a pass stores its confidence.
            attention: whether attention maps are given, ``(N, depth, heads, T, T)``; for
                ``reach='window'``.
            pixel_size: in which unit it is told the size of its pixels.
            mean: of the pixels in [0, 1], one for all channels or one for each; subtracted.
            std: likewise, divided by.
            seed: what the weights are drawn from.

        Raises:
            ValueError: the numbers do not fit together.
        """
        super().__init__()
        _check(depth, blocks, start, features, attention, reach)
        self.depth, self.start, self.cell = depth, start, cell
        self.reach, self.attention = reach, attention
        tokens = 4 * width
        with seeded(seed):
            self._draw_stem(channels, width)
            self.scale = None if pixel_size == "none" else ScaleEmbedding(tokens)
            self.blocks = nn.ModuleList(Block(tokens, heads) for _ in range(blocks))
            self._draw_decoder(width, len(classes))
            self.guide = Guide(guidance, width, 2) if guidance else None
            self.reuse = nn.Conv2d(tokens, tokens, 1, bias=False) if features else None
            side = cell * TOKEN_PX // SCORE_PX
            self.points = PointRefinement(width, len(classes), points, side) if points else None
        if self.reuse is not None:
            nn.init.zeros_(self.reuse.weight)
        self.saccade: dict[str, Any] = {
            "classes": tuple(classes),
            "channels": channels,
            "mean": tuple(mean),
            "std": tuple(std),
            "pixel_size": pixel_size,
            "guidance": guidance > 0,
            "saliency": saliency,
            "confidence": confidence,
            **self._geometry(),
        }

    def _draw_stem(self, channels: int, width: int) -> None:
        """From pixels to maps at a half, a quarter and an eighth of their resolution."""
        middle, tokens = 2 * width, 4 * width
        self.stem1 = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.stem1_norm, self.stem1_act = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.stem1_more = conv_norm_relu(width, width)
        self.stem2 = nn.Sequential(conv_norm_relu(width, middle, 2), conv_norm_relu(middle, middle))
        self.stem3 = conv_norm_relu(middle, tokens, 2)

    def _draw_decoder(self, width: int, classes: int) -> None:
        """From tokens back to a half of the resolution, and what is said there."""
        middle, tokens = 2 * width, 4 * width
        self.lateral2 = nn.Conv2d(tokens, middle, 1)
        self.decode2 = conv_norm_relu(middle, middle)
        self.lateral1 = nn.Conv2d(middle, width, 1)
        self.decode1 = conv_norm_relu(width, width)
        self.head = nn.Conv2d(width, classes, 1)
        if self.head.bias is not None:
            nn.init.constant_(self.head.bias, -3.0)  # what is looked for is rare
        self.confidence = nn.Conv2d(width, 1, 1)
        self.gain = nn.Conv2d(tokens, 1, 1)

    def _geometry(self) -> dict[str, Any]:
        """What follows from the architecture, as a declaration has it."""
        cell_px, tokens = self.cell * TOKEN_PX, self.lateral2.in_channels
        return {
            "stride": SCORE_PX,
            "multiple": cell_px,
            "halo_px": cell_px + STEM_REACH_PX + DECODER_REACH_PX,
            "local": self.reach == "cell",
            "activation": "sigmoid",
            "features": (tokens, TOKEN_PX),
            "takes_features": tokens if self.reuse is not None or self.start else 0,
        }

    def forward(
        self,
        x: Tensor,
        *,
        guidance: Tensor | None = None,
        features: Tensor | None = None,
        pixel_size: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Answer for a batch of windows of any size.

        Args:
            x: ``(N, C, H, W)``, normalised as declared.
            guidance: ``(N, K, H, W)`` in [0, 1]: the previous pass's scores.
            features: ``(N, D, H / 8, W / 8)``: the previous pass's tokens.
            pixel_size: ``(N,)``, positive.

        Returns:
            ``scores``, logits ``(N, K, ceil(H / 2), ceil(W / 2))``; ``saliency`` (expected gain)
            and ``confidence`` in [0, 1], ``(N, 1, ...)`` likewise; ``features`` ``(N, D, h, w)``,
            one per token of 8 pixels.
        """
        shape = -(-x.shape[-2] // SCORE_PX), -(-x.shape[-1] // SCORE_PX)
        x, guidance = self._padded(x), None if guidance is None else self._padded(guidance)
        half = self._half(x, guidance)
        quarter = self.stem2(half)
        tokens, maps = self._tokens(quarter, features, pixel_size)
        quarter = self.decode2(quarter + _doubled(self.lateral2(tokens)))
        half = self.decode1(half + _doubled(self.lateral1(quarter)))
        logits = self.head(half)
        if self.points is not None:
            logits = self.points(logits, half)
        gain = self.gain(tokens).sigmoid()
        answer = {
            "scores": logits,
            "confidence": self.confidence(half).sigmoid(),
            "saliency": functional.interpolate(gain, scale_factor=TOKEN_PX // SCORE_PX),
        }
        cropped = {k: v[..., : shape[0], : shape[1]] for k, v in answer.items()}
        return cropped | {"features": tokens} | maps

    def _half(self, x: Tensor, guidance: Tensor | None) -> Tensor:
        """The stem at half the input's resolution."""
        maps = self.stem1_norm(self.stem1(x))
        if self.guide is not None and guidance is not None:
            maps = maps + self.guide(guidance)
        half: Tensor = self.stem1_more(self.stem1_act(maps))
        return half

    def _tokens(
        self, quarter: Tensor, features: Tensor | None, pixel_size: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens after the blocks, ``(N, D, h, w)``, and the attention where it is asked for."""
        goes_on = self.start > 0 and features is not None
        begun = features if goes_on else self._begun(quarter, features, pixel_size)
        assert begun is not None
        kept: list[Tensor] | None = [] if self.attention else None
        tokens = self._grouped(begun)
        for block in self.blocks[self.start if goes_on else 0 : self.depth]:
            tokens = block(tokens, kept)
        shape = begun.shape[-2], begun.shape[-1]
        return self._ungrouped(tokens, shape), {"attention": torch.stack(kept, 1)} if kept else {}

    def _begun(self, quarter: Tensor, features: Tensor | None, pixel_size: Tensor | None) -> Tensor:
        """Tokens before the first block."""
        tokens: Tensor = self.stem3(quarter)
        if self.scale is not None and pixel_size is not None:
            tokens = tokens + self.scale(pixel_size)
        if self.reuse is not None and features is not None:
            tokens = tokens + self.reuse(features)
        return tokens

    def _grouped(self, maps: Tensor) -> Tensor:
        """Tokens in groups that attend to each other, ``(G, T, D)``."""
        return to_cells(maps, self.cell) if self.reach == "cell" else maps.flatten(2).mT

    def _ungrouped(self, tokens: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.reach == "cell":
            return from_cells(tokens, self.cell, shape)
        return tokens.mT.reshape(len(tokens), tokens.shape[-1], *shape)

    def _padded(self, x: Tensor) -> Tensor:
        """Whole cells, the last row and column repeated."""
        side = self.cell * TOKEN_PX
        below, right = -x.shape[-2] % side, -x.shape[-1] % side
        return functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def _check(
    depth: int, blocks: int, start: int, features: bool, attention: bool, reach: Reach
) -> None:
    if not 0 <= start <= depth <= blocks:
        raise ValueError(
            f"0 <= start <= depth <= blocks expected; found start {start}, depth {depth}, "
            f"blocks {blocks}"
        )
    if start and features:
        raise ValueError(
            "'start' goes on from the previous pass's tokens, 'features' adds them to new ones; "
            "state one of the two"
        )
    if attention and reach != "window":
        raise ValueError("attention maps of a whole window need reach='window'; found 'cell'")


def _doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2)
