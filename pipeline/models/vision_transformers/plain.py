"""Plain vision transformers: of tiles, of patches, and as a backbone.

What the token methods do with fewer tokens these do with all of them. Knows no method but
attention rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from saccade.pipeline.models.rollout import class_rollout
from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.vision_transformers.answering import (
    relative_map,
    tile_classifier,
    token_grid,
)
from saccade.pipeline.models.vision_transformers.blocks import Encoder, Size, as_grid


class TileViT(nn.Module):
    """A tile classifier: one answer per tile, from the class token.

    Args:
        classes: of the scores.
        tile: side of a tile in pixels, a multiple of ``patch``: the stride of the answer.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``grid`` follows from the tile.
    """

    def __init__(
        self, classes: Sequence[str] = ("lesion",), *, tile: int = 64, seed: int = 0, **size: int
    ) -> None:
        super().__init__()
        self.size = tile_size(tile, **size)
        with seeded(seed):
            self.encoder = Encoder(self.size)
            self.head = nn.Linear(self.size.width, len(classes))
        self.saccade = tile_classifier(classes, tile, channels=self.size.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of tiles ``(N, channels, H, W)``."""
        return self.answered(self.encoder(x))

    def answered(self, tokens: Tensor) -> Tensor:
        """Logits from the class token, the first of ``(N, T, width)`` after the last norm."""
        logits: Tensor = self.head(tokens[:, 0])
        return logits


def tile_size(tile: int, **size: int) -> Size:
    """A size whose positions are those of one tile.

    Raises:
        ValueError: the tile is not made of whole patches.
    """
    stated = Size(**size)
    if tile % stated.patch:
        raise ValueError(f"tile is a multiple of patch; found tile {tile}, patch {stated.patch}")
    return replace(stated, grid=tile // stated.patch)


class DenseViT(nn.Module):
    """One answer per patch, each from that patch's own token.

    Attention spans the window, so a pass gives it single tiles, of the size that it states.

    Args:
        classes: of the scores.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``patch`` is the stride of the answer.
    """

    def __init__(self, classes: Sequence[str] = ("lesion",), *, seed: int = 0, **size: int) -> None:
        super().__init__()
        self.size = Size(**size)
        with seeded(seed):
            self.encoder = Encoder(self.size)
            self.head = nn.Linear(self.size.width, len(classes))
        self.saccade = token_grid(classes, self.size.patch, channels=self.size.channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits ``(N, classes, H / patch, W / patch)`` as 'scores'."""
        return {"scores": self.answered(self.encoder(x), x)}

    def answered(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Logits on the grid of ``x``, from class token and patches after the last norm."""
        return as_grid(self.head(tokens[:, 1:]), self.encoder.embed.grid_of(x))


class RolloutViT(DenseViT):
    """A dense transformer whose saliency is what its class token goes back to.

    The glance of RAMS-Trans (arXiv 2107.08192, section 3.2): attention of all layers is rolled out
    to the patches; where it is high, the next pass looks. A window of T patches holds ``depth x T x
    T`` numbers for that, so a glance states its tile. Ours: saliency is relative to the window's
    most salient patch, and every patch is answered for, not only the window.

    Args:
        classes: of the scores.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``patch`` is the stride of answer and saliency.
    """

    def __init__(self, classes: Sequence[str] = ("lesion",), *, seed: int = 0, **size: int) -> None:
        super().__init__(classes, seed=seed, **size)
        self.saccade["saliency"] = True

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """As ``DenseViT``, and 'saliency' ``(N, 1, H / patch, W / patch)`` in [0, 1]."""
        tokens, layers = self.encoder.begin(x), []
        for block in self.encoder.layers:
            tokens, maps = block(tokens, look="everything")
            layers.append(maps.mean(1, keepdim=True))
        to_patches = class_rollout(layers)[:, 1:]
        return {
            "scores": self.answered(self.encoder.norm(tokens), x),
            "saliency": relative_map(to_patches, self.encoder.embed.grid_of(x)),
        }


class ViTFeatures(nn.Module):
    """Patch tokens as a map of features, ``(N, width, H / patch, W / patch)``: a backbone.

    Args:
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``.
    """

    def __init__(self, *, seed: int = 0, **size: int) -> None:
        super().__init__()
        self.size = Size(**size)
        with seeded(seed):
            self.encoder = Encoder(self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Features of windows ``(N, channels, H, W)``."""
        return as_grid(self.encoder(x)[:, 1:], self.encoder.embed.grid_of(x))
