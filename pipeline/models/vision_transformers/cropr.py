"""Token Cropr: queries learned for the task crop tokens; at the end all come back.

Bergner, Lippert and Mahendran, "Token Cropr: Faster ViTs for Quite a Few Tasks", CVPR 2025
(arXiv 2412.00965), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from saccade.pipeline.models.seeding import seeded
from saccade.pipeline.models.vision_transformers.plain import DenseViT
from saccade.pipeline.models.vision_transformers.ranking import (
    checked_share,
    parted,
    pick,
    quarters,
)


class Cropper(nn.Module):
    """Scores tokens by what a task asks of them: cross-attention of learned queries.

    In training an auxiliary head answers the task from what each query gathers; its loss alone
    teaches the queries, since nothing flows back into the tokens. Otherwise only the sum of the
    queries is used, one product per token. Ours: a query per class, whose head says whether the
    class is in the window.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(classes, width) * width**-0.5)
        self.digest = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.task = nn.Linear(width, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """Relevance ``(N, T)`` of tokens ``(N, T, width)``."""
        return cells.detach() @ self.queries.sum(0)

    def auxiliary(self, cells: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of the task, from the tokens alone."""
        cells = cells.detach()
        attention = (self.queries @ cells.mT * cells.shape[-1] ** -0.5).softmax(-1)
        gathered = attention @ cells
        logits: Tensor = self.task(gathered + self.digest(gathered))
        return logits.squeeze(-1)


@dataclass(frozen=True, slots=True)
class Placed:
    """Tokens and where in the grid each belongs."""

    cells: Tensor
    """``(N, k, width)``."""
    places: Tensor
    """``(N, k)`` int64."""

    def parted(self, relevance: Tensor, keep: float) -> tuple[Placed, Placed]:
        """The ``keep`` share with the highest relevance ``(N, k)``, and the others."""
        kept, left = parted(relevance, keep)
        return self.at(kept), self.at(left)

    def at(self, which: Tensor) -> Placed:
        """Those at ``which``, ``(N, k)``."""
        return Placed(pick(self.cells, which), self.places.gather(1, which))


class Cropr(DenseViT):
    """A dense transformer most of whose blocks see fewer and fewer tokens.

    After each of three blocks the ``keep`` share of the tokens that matter most to the task goes on
    and the others wait, as they are. Before the last block all come together again in their places
    (last layer fusion), so that every patch is answered for. ``keep: 1`` is the plain transformer.
    Can be exported. In training the answer also holds 'auxiliary', a tuple of logits ``(N,
    classes)`` whether a class is in the window, one per cropping; the loss on them trains the
    croppers.

    Args:
        classes: of the scores.
        keep: share of the tokens that goes on, each time.
        seed: of the weights, until some are loaded.
        size: fields of a ``Size``; ``patch`` is the stride of the answer.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("lesion",),
        *,
        keep: float = 0.7,
        seed: int = 0,
        **size: int,
    ) -> None:
        super().__init__(classes, seed=seed, **size)
        self.keep = checked_share(keep)
        last = self.size.depth - 1
        self.at = tuple(n - 1 for n in quarters(self.size.depth) if 0 < n <= last)
        with seeded(seed + 1):
            self.croppers = nn.ModuleList(Cropper(self.size.width, len(classes)) for _ in self.at)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Logits ``(N, classes, H / patch, W / patch)`` as 'scores'."""
        tokens = self.encoder.begin(x)
        head, going = tokens[:, :1], _in_order(tokens[:, 1:])
        waiting: list[Placed] = []
        auxiliary: list[Tensor] = []
        for number, block in enumerate(self.encoder.layers):
            if number == self.size.depth - 1:
                going = together([going, *waiting])
            tokens, _ = block(torch.cat([head, going.cells], 1))
            head, going = tokens[:, :1], Placed(tokens[:, 1:], going.places)
            if number in self.at:
                cropper = cast(Cropper, self.croppers[self.at.index(number)])
                if self.training:
                    auxiliary.append(cropper.auxiliary(going.cells))
                going, left = going.parted(cropper(going.cells), self.keep)
                waiting.append(left)
        answer = {"scores": self.answered(self.encoder.norm(tokens), x)}
        return answer | {"auxiliary": tuple(auxiliary)} if self.training else answer


def _in_order(cells: Tensor) -> Placed:
    places = torch.arange(cells.shape[1], device=cells.device)
    return Placed(cells, places.expand(cells.shape[0], -1))


def together(parts: Sequence[Placed]) -> Placed:
    """All tokens of a grid, back in their order."""
    places = torch.cat([part.places for part in parts], 1)
    everyone = Placed(torch.cat([part.cells for part in parts], 1), places)
    return everyone.at(places.argsort(1))
