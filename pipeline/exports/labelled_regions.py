"""The regions of a result, class by class, and what is told of each. Knows no coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from saccade.pipeline.exports.labelling import Labelling, Strip
from saccade.pipeline.exports.outlines import NO_CORNERS, Outline, Outliner
from saccade.pipeline.exports.simple_outlines import Simplifying
from saccade.pipeline.scores import UINT8_SCALE


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels of one class that hang together."""

    name: str
    """Of the class."""
    outline: Outline
    """All that is known of it, in pixels of the result."""
    rings: tuple[np.ndarray, ...]
    """As they are told: the outer one, then its holes, simplified where that was asked for."""
    score: float
    """Mean of its pixels, in [0, 1]."""
    identity: UUID
    """The same whenever the same region is exported again."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Which regions are told, and how exactly."""

    least_px: int = 1
    """Regions of fewer pixels of the result are left out."""
    simplify_px: float | None = None
    """No corner that goes is farther, in pixels of the result, from the line that replaces it;
    None keeps all corners."""


def regions(labelling: Labelling, shapes: Shapes | None = None) -> Iterator[Region]:
    """Every region of enough pixels of the result, as soon as it is complete."""
    plan, shapes = labelling.result.plan, shapes or Shapes()
    scale = float(UINT8_SCALE) if plan.scores == "uint8" else 1.0
    simplifying = _simplifying(labelling, shapes.simplify_px)
    window = labelling.window
    by = np.array([window.x0, window.y0], np.int32)
    for name, found in _outlines(labelling, simplifying):
        if found.pixels >= shapes.least_px:
            score = round(found.score / (found.pixels * scale), 6)
            outline = replace(found, rings=tuple(ring + by for ring in found.rings))
            told = outline.rings
            if simplifying is not None:
                told = tuple(ring + by for ring in simplifying.rings(found))
            yield Region(name, outline, told, score, _identity(plan.name, name, outline))


def _simplifying(labelling: Labelling, tolerance_px: float | None) -> Simplifying | None:
    """How outlines in the labelling's window are simplified."""
    if tolerance_px is None:
        return None
    plan, window = labelling.result.plan, labelling.window
    by, level0 = plan.last.score_downsample, plan.level_shapes[0]
    overhang = (window.y1 * by > level0[0], window.x1 * by > level0[1])
    return Simplifying(window.shape, tolerance_px, overhang)


def _outlines(
    labelling: Labelling, simplifying: Simplifying | None
) -> Iterator[tuple[str, Outline]]:
    """Outlines in pixels of the window, each with the corners that stay of it."""
    outliners = {name: Outliner(labelling.window.width) for name in labelling.classes}
    strips = (
        labelling.strips() if simplifying is None else _block_rows(labelling, simplifying.block_px)
    )
    top = 0
    for strip in strips:
        corners = _corners(labelling, strip, top, simplifying)
        for name, kept in zip(labelling.classes, corners, strict=True):
            found = outliners[name].add(*labelling.part(strip, name), kept)
            yield from ((name, outline) for outline in found)
        top += len(strip.labels)
    for name, outliner in outliners.items():
        yield from ((name, outline) for outline in outliner.finish())


def _block_rows(labelling: Labelling, high: int) -> Iterator[Strip]:
    """Strips as high as a block of so many rows, but for the last."""
    waiting: list[Strip] = []
    for strip in labelling.strips():
        waiting.append(strip)
        whole = Strip.of(waiting)
        full = len(whole.labels) // high * high
        for row in range(0, full, high):
            yield whole.rows(row, row + high)
        waiting = [whole.rows(full, len(whole.labels))]
    if waiting and len(waiting[0].labels):
        yield waiting[0]


def _corners(
    labelling: Labelling, strip: Strip, top: int, simplifying: Simplifying | None
) -> Iterable[np.ndarray]:
    """Of every class, corners in a strip that stay; classes that share ground are each alone."""
    if simplifying is None:
        return [NO_CORNERS] * len(labelling.classes)
    if labelling.threshold is None:
        return [simplifying.corners(labelling.kinds(strip), top)] * len(labelling.classes)
    masks = (labelling.part(strip, name)[0] for name in labelling.classes)
    return [simplifying.corners(mask, top) for mask in masks]


def _identity(image: str, name: str, outline: Outline) -> UUID:
    """No other region of this class has the same outer ring's first corner."""
    outer = outline.rings[0]
    y = int(outer[:, 1].min())
    x = int(outer[outer[:, 1] == y, 0].min())
    return uuid5(NAMESPACE_URL, f"saccade:{image}/{name}/{y}/{x}")
