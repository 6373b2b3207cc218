"""Features of a network made for whole images, read densely through one linear layer.

Knows no library, file or recipe.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class DenseHead(nn.Module):
    """A backbone's feature map and a linear layer over its channels, at every place of it.

    Args:
        backbone: takes ``(N, C, H, W)``.
        features_of: the backbone's output to ``(N, F, H / s, W / s)``.
        channels: ``F``.
        classes: score channels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features_of: Callable[[object], Tensor],
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Conv2d(channels, classes, 1)
        self._features_of = features_of

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits ``(N, classes, H / s, W / s)`` and the features they were read from."""
        features = self._features_of(self.backbone(x))
        return {"scores": self.head(features), "features": features}
