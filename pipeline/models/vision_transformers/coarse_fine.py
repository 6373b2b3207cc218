"""CF-ViT: coarse patches first; where they leave doubt, the informative ones are split.

Chen et al., "CF-ViT: A General Coarse-to-Fine Method for Vision Transformer", AAAI 2023
(arXiv 2203.03821). Which images need the second look is decided for each image of a batch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.vision_transformers.answering import (
    confidence,
    relative_map,
    spread,
    token_grid,
)
from saccade.pipeline.models.vision_transformers.blocks import Encoder, Size, as_grid, as_tokens
from saccade.pipeline.models.vision_transformers.ranking import checked_share, parted, pick


@dataclass(frozen=True, slots=True)
class Glance:
    """What the coarse stage found, for ``N`` images of ``T`` coarse patches."""

    embedded: Tensor
    """``(N, T, width)``: coarse patches before the first block."""
    tokens: Tensor
    """``(N, T, width)``: the same after the last norm."""
    attention: Tensor
    """``(N, T)`` float32: global class attention."""
    logits: Tensor
    """``(N, classes)``."""
    confidence: Tensor
    """``(N,)`` float32 in [0, 1]."""

    def of(self, images: Tensor) -> Glance:
        """That of some images of the batch."""
        parts = (self.embedded, self.tokens, self.attention, self.logits, self.confidence)
        return Glance(*(part[images] for part in parts))


class CoarseFineViT(nn.Module):
    """One transformer that looks at a tile's coarse patches, and again at the unclear tiles.

    A coarse patch is one patch of the tile at half size (section 3.1). A tile whose confidence
    reaches ``exit_at`` leaves with that answer, whatever else is in its batch. Of the others, the
    ``informative`` share of the coarse patches with the highest global class attention, a moving
    average over layers (section 3.2), is split into four patches each; the rest stays as
    context, and what was learned of a coarse patch is added to its parts (section 3.3). Both
    stages share all weights. Ours: positions are one grid, interpolated to both, and confidence is
    that of the stage which answered.

    The answer stands on the coarse patches, ``2 x patch`` pixels each, the same for all of a tile,
    so that class attention beside it is a saliency within tiles: the next pass may choose finer.
    What it computes depends on the pixels, so it can't be exported, nor captured as a graph.

    Args:
        classes: of the scores.
        exit_at: confidence from which on the coarse answer stands; 0 never looks twice, above 1
            always.
        informative: share of the coarse patches that is split; the paper's half.
        momentum: of the moving average over layers; the paper's 0.99.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        exit_at: float = 0.9,
        informative: float = 0.5,
        momentum: float = 0.99,
        seed: int = 0,
        **size: int,
    ) -> None:
        super().__init__()
        self.size = Size(**size)
        self.exit_at, self.momentum = exit_at, momentum
        self.informative = checked_share(informative, "informative")
        width = self.size.width
        with seeded(seed):
            self.encoder = Encoder(self.size)
            self.head = nn.Linear(width, len(classes))
            self.reuse = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )
        self.saccade = token_grid(
            classes, 2 * self.size.patch, channels=self.size.channels, saliency=True
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """'scores' (logits), 'saliency' and 'confidence' on the grid of coarse patches."""
        glance = self.look(x)
        logits, sure = glance.logits, glance.confidence
        unclear = (sure < self.exit_at).nonzero()[:, 0]
        if len(unclear):
            closer = self.look_closer(x[unclear], glance.of(unclear))
            logits = logits.index_copy(0, unclear, closer)
            sure = sure.index_copy(0, unclear, confidence(closer))
        rows, columns = self.encoder.embed.grid_of(x)
        grid = rows // 2, columns // 2
        return {
            "scores": spread(logits, grid),
            "saliency": relative_map(glance.attention, grid),
            "confidence": spread(sure[:, None], grid),
        }

    def look(self, x: Tensor) -> Glance:
        """The coarse stage, section 3.1, with the global class attention of section 3.2.

        Its average begins at the fourth of twelve layers: earlier ones look everywhere.
        """
        embedded = as_tokens(self.encoder.embed(functional.avg_pool2d(x, 2)))
        tokens, seen = self.encoder.headed(embedded), []
        for block in self.encoder.layers:
            tokens, maps = block(tokens, look="class")
            seen.append(maps[:, :, 0, 1:].mean(1))
        tokens = self.encoder.norm(tokens)
        logits = self.head(tokens[:, 0])
        attention = moving_average(seen[self.size.depth // 4 :], self.momentum)
        return Glance(embedded, tokens[:, 1:], attention, logits, confidence(logits))

    def look_closer(self, x: Tensor, glance: Glance) -> Tensor:
        """The fine stage of section 3.2: logits ``(N, classes)``, from what the glance found."""
        chosen, others = parted(glance.attention, self.informative)
        context = pick(glance.embedded, others)
        parts = pick(self._split(x, glance.tokens), chosen)
        fine = torch.unflatten(parts, -1, (-1, 4)).mT.flatten(1, 2)
        tokens = self.encoder.headed(torch.cat([context, fine], 1))
        logits: Tensor = self.head(self.encoder.through(tokens)[:, 0])
        return logits

    def _split(self, x: Tensor, tokens: Tensor) -> Tensor:
        """``(N, T, width * 4)``: the four patches of every coarse one, with its features reused."""
        rows, columns = self.encoder.embed.grid_of(x)
        coarse = as_grid(self.reuse(tokens), (rows // 2, columns // 2))
        fine = self.encoder.embed(x) + functional.interpolate(coarse, scale_factor=2.0)
        return as_tokens(functional.pixel_unshuffle(fine, 2))


def moving_average(values: Sequence[Tensor], momentum: float) -> Tensor:
    """Exponential moving average that begins with the first value."""
    average, *later = values
    for value in later:
        average = momentum * average + (1 - momentum) * value
    return average
