"""TinyDrop: a small guide says which tokens a large transformer sees.

Wang et al., "TinyDrop: Tiny Model Guided Token Dropping for Vision Transformers", 2025
(arXiv 2509.03379), section 2: no training, any transformer. The guide there is a second model run
on the same image and asked by Grad-CAM; here it is the pass before, which has looked already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional

from saccade.pipeline.models.vision_transformers.blocks import as_tokens
from saccade.pipeline.models.vision_transformers.plain import TileViT
from saccade.pipeline.models.vision_transformers.ranking import checked_share, parted, pick

Importance = Literal["score", "doubt"]


class TinyDrop(TileViT):
    """A tile classifier that never sees the tokens which its guide thinks little of.

    Takes the previous pass's scores as guidance, of any number of classes. The ``keep`` share of
    the patches with the highest importance enters the first block, with the class token. Tiles of
    which the guide is sure (the paper's exit) are the pass's selector's business. ``keep: 1`` is
    the plain transformer. Can be exported.

    Args:
        classes: of the scores.
        keep: share of the patches that is seen.
        by: 'score', the guide's strongest class in a patch, or 'doubt', how near its classes are
            to neither yes nor no.
        without: the guide's channel that is no object, such as its background.
        tile: side of a tile in pixels, a multiple of ``patch``: the stride of the answer.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``grid`` follows from the tile.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        keep: float = 0.5,
        by: Importance = "score",
        without: int | None = None,
        tile: int = 64,
        seed: int = 0,
        **size: int,
    ) -> None:
        super().__init__(classes, tile=tile, seed=seed, **size)
        if by not in ("score", "doubt"):
            raise ValueError(f"by is 'score' or 'doubt'; found {by!r}")
        self.keep, self.by, self.without = checked_share(keep), by, without
        self.saccade["guidance"] = True

    def forward(self, x: Tensor, *, guidance: Tensor | None = None) -> Tensor:
        """Logits ``(N, classes)``.

        Args:
            x: tiles ``(N, channels, H, W)``.
            guidance: ``(N, K, H, W)`` in [0, 1]: the guide's scores; None shows all patches.
        """
        cells = as_tokens(self.encoder.embed(x))
        if guidance is not None:
            seen, _ = parted(self.importance(guidance), self.keep)
            cells = pick(cells, seen)
        return self.answered(self.encoder.through(self.encoder.headed(cells)))

    def importance(self, guidance: Tensor) -> Tensor:
        """``(N, T)``: the mean over each patch of what the guide says there."""
        kept = [k for k in range(guidance.shape[1]) if k != self.without]
        shown = guidance[:, kept]
        if self.by == "doubt":
            shown = 1 - (2 * shown - 1).abs()
        strongest = shown.amax(1, keepdim=True)
        return functional.avg_pool2d(strongest, self.size.patch).flatten(1)
