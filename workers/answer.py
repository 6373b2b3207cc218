"""What a model said of a batch of windows, on the host: kept, cut in parts, put together.

Arrays only; knows no tensor, device or model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.workers.backing_off import Part
from saccade.workers.reading import WindowPixels


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a model said of one window."""

    scores: np.ndarray
    """``(classes, h, w)`` float32, of all that it saw."""
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``(h, w)`` float32 in [0, 1]: saliency and confidence, where the pass stores them."""
    features: np.ndarray | None = None
    """``(F, h, w)`` float16 on their own grid, where the pass stores them."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What it said of a batch; every array has the windows as its first axis."""

    scores: np.ndarray
    """``(N, classes, h, w)`` float32."""
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``(N, h, w)`` float32 by name, those that the pass stores."""
    features: np.ndarray | None = None
    """``(N, F, h, w)`` float16, where the pass stores them."""
    splits: int = 0
    """How often a batch or a window had to be halved to fit the device."""

    def of(self, index: int) -> Said:
        """What was said of one window."""
        planes = {name: plane[index] for name, plane in self.planes.items()}
        return Said(
            self.scores[index], planes, None if self.features is None else self.features[index]
        )


def cut(window: WindowPixels, part: Part, layout: PassLayout) -> WindowPixels:
    """What the model sees of a part of a window."""
    rows, columns = part.read.slices
    features = window.features
    if features is not None and layout.takes is not None:
        features = features[(slice(None), *part.read.reduce(layout.takes.stride).slices)]
    return WindowPixels(
        pixels=window.pixels[rows, columns],
        valid=None if window.valid is None else window.valid[rows, columns],
        guidance=None if window.guidance is None else window.guidance[:, rows, columns],
        features=features,
    )


def cropped(answer: Answer, part: Part, layout: PassLayout) -> Answer:
    """What a part answers for, of what the model said about all that it saw."""
    core = part.core.relative_to(part.read)
    inside = core.reduce(layout.stride)
    features = answer.features
    if features is not None and layout.gives is not None:
        features = _inside(features, core.reduce(layout.gives.stride))
    return replace(
        answer,
        scores=_inside(answer.scores, inside),
        planes={name: _inside(plane, inside) for name, plane in answer.planes.items()},
        features=features,
    )


def _inside(array: np.ndarray, box: Box) -> np.ndarray:
    return array[(..., *box.slices)]


def joined(first: Answer, second: Answer, axis: int = 0) -> Answer:
    """Two parts of a batch, or of a window along one of its axes, as one; counted as a split."""
    features = None
    if first.features is not None and second.features is not None:
        features = np.concatenate([first.features, second.features], axis)
    return Answer(
        scores=np.concatenate([first.scores, second.scores], axis),
        planes={
            name: np.concatenate([plane, second.planes[name]], axis)
            for name, plane in first.planes.items()
        },
        features=features,
        splits=1 + first.splits + second.splits,
    )
