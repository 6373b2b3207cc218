"""The regions of a result, class by class, and what is told of each. Knows no coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.outlines import Outline, Outliner
from saccade.pipeline.geometry import Box
from saccade.pipeline.scores import UINT8_SCALE


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels of one class that hang together."""

    name: str
    """Of the class."""
    outline: Outline
    """Its rings, in pixels of the result."""
    score: float
    """Mean of its pixels, in [0, 1]."""
    identity: UUID
    """The same whenever the same region is exported again."""


def regions(labelling: Labelling, least_px: int = 1) -> Iterator[Region]:
    """Every region of enough pixels of the result, as soon as it is complete."""
    plan = labelling.result.plan
    scale = float(UINT8_SCALE) if plan.scores == "uint8" else 1.0
    for name, outline in _outlines(labelling):
        if outline.pixels >= least_px:
            score = round(outline.score / (outline.pixels * scale), 6)
            yield Region(name, outline, score, _identity(plan.name, name, outline))


def _outlines(labelling: Labelling) -> Iterator[tuple[str, Outline]]:
    window = labelling.window
    outliners = {name: Outliner(window.width) for name in labelling.classes}
    for strip in labelling.strips():
        for name in labelling.classes:
            found = outliners[name].add(*labelling.part(strip, name))
            yield from ((name, _moved(outline, window)) for outline in found)
    for name, outliner in outliners.items():
        yield from ((name, _moved(outline, window)) for outline in outliner.finish())


def _moved(outline: Outline, window: Box) -> Outline:
    """An outline in a window of the result as one in the result."""
    by = np.array([window.x0, window.y0], np.int32)
    return (
        replace(outline, rings=tuple(ring + by for ring in outline.rings)) if any(by) else outline
    )


def _identity(image: str, name: str, outline: Outline) -> UUID:
    """No other region of this class has the same outer ring's first corner."""
    outer = outline.rings[0]
    y = int(outer[:, 1].min())
    x = int(outer[outer[:, 1] == y, 0].min())
    return uuid5(NAMESPACE_URL, f"saccade:{image}/{name}/{y}/{x}")
