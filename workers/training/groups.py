"""Where the crops of a group lie, and what was read of them. Pure; reads nothing itself.

A *group* is one crop per pass around one centre, so that a finer crop lies inside the coarser one.
A crop lies as a window of a run does: it moves inwards at the image's edge, its origin is a
multiple of what the model needs, and where the image is smaller it is as large as the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from saccade.pipeline.errors import PlanError
from saccade.pipeline.geometry import Box, Shape, round_up
from saccade.pipeline.inputs import Inputs
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.plane import PlaneSpec

Kind = Literal["lesion", "hard", "any"]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Draw:
    """One group to be read."""

    image: int
    """Which image of the part."""
    centre: Point
    """Row and column in pixels of level 0."""
    kind: Kind = "any"
    """Why there."""
    flip_y: bool = False
    """Whether it is turned upside down."""
    flip_x: bool = False
    """Whether left and right are exchanged."""
    colour_seed: int | None = None
    """What its change of colours is drawn from; None changes none."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Groups that are read while an image is open."""

    image: int
    """Which image of the part."""
    scale: float
    """Factor on the pixel size of every pass."""
    draws: tuple[Draw, ...]
    """What is read; all of this image."""


@dataclass(frozen=True, slots=True)
class CropPlace:
    """Where one crop lies on the plane of its pass."""

    box: Box
    """In pixels of the pass; may reach past the plane by less than ``multiple``."""
    plane: PlaneSpec
    """The image at the pass's resolution, as it was scaled."""
    stride: int
    """Input pixels per score."""
    asked: PlaneSpec
    """The same before it was scaled: the pixel size that a model is told."""

    @property
    def score_box(self) -> Box:
        """In scores of the pass."""
        return self.box.reduce(self.stride)

    @property
    def scores(self) -> PlaneSpec:
        """The image at the resolution of the scores."""
        return self.plane.coarser(self.stride)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """One crop as read, unturned."""

    place: CropPlace
    """Where it lies."""
    pixels: Samples
    """``(H, W, C)`` as a run reads them, and which of them hold data; the rest is filled."""
    inputs: Inputs
    """What they become before the model."""
    valid: np.ndarray | None
    """``(H, W)`` bool, False where the image has no data; None when all of it is valid."""
    context: tuple[Samples, ...]
    """Per factor, likewise ``(H, W, C)``: the wider and coarser views."""
    truth: np.ndarray
    """``(K, h, w)`` bool on the score grid: whether any pixel there belongs to the class."""
    counts: np.ndarray
    """``(h, w)`` bool: scores that lie on the image and on data."""
    teacher: np.ndarray | None = None
    """``(K, h, w)`` float32 in [0, 1]: another's answer on the score grid."""

    @property
    def nbytes(self) -> int:
        """Host memory held."""
        views = [array for view in (self.pixels, *self.context) for array in view]
        arrays = [*views, self.valid, self.truth, self.counts, self.teacher]
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Nested crops as read."""

    draw: Draw
    """What was asked for."""
    crops: tuple[Crop, ...]
    """From coarse to fine; those that the step needs."""

    @property
    def nbytes(self) -> int:
        """Host memory held."""
        return sum(crop.nbytes for crop in self.crops)


@dataclass(frozen=True, slots=True)
class Hardest:
    """Where, per image, the glance was last sure and wrong."""

    places: Mapping[int, Mapping[tuple[int, int], tuple[float, float, float]]] = field(
        default_factory=dict
    )
    """Per image and cell of a coarse grid: how sure, and row and column in pixels of level 0."""
    most: int = 16
    """Places kept per image."""

    def of(self, image: int) -> tuple[tuple[float, float, float], ...]:
        """Surest first; equals by place."""
        known = self.places.get(image, {})
        return tuple(sorted(known.values(), key=lambda one: (-one[0], one[1], one[2])))

    def updated(
        self,
        image: int,
        found: Mapping[tuple[int, int], tuple[float, float, float]],
        seen: tuple[float, float, float, float] | None,
    ) -> Hardest:
        """With what was found on an image now.

        Args:
            image: which.
            found: by cell, as in ``places``.
            seen: rows and columns of level 0 that were looked at, ``(y0, x0, y1, x1)``; what was
                known there is forgotten.
        """
        kept = {c: p for c, p in self.places.get(image, {}).items() if not _inside(p, seen)}
        best = sorted({**kept, **found}.items(), key=lambda item: (-item[1][0], item[0]))
        return Hardest({**self.places, image: dict(best[: self.most])}, self.most)


def _inside(
    place: tuple[float, float, float], seen: tuple[float, float, float, float] | None
) -> bool:
    _, y, x = place
    return seen is not None and seen[0] <= y < seen[2] and seen[1] <= x < seen[3]


def place_crop(
    plane: PlaneSpec,
    centre: Point,
    crop_px: int,
    multiple: int,
    stride: int,
    asked: PlaneSpec | None = None,
) -> CropPlace:
    """The crop of a pass around a centre.

    Args:
        plane: of the pass.
        centre: in pixels of level 0.
        crop_px: its side, a multiple of ``multiple``.
        multiple: of the model: sizes and origins are multiples of it, and it of ``stride``.
        stride: of the model.
        asked: the plane before it was scaled; by default this very one.
    """
    padded = tuple(round_up(side, multiple) for side in plane.shape)
    size = tuple(min(crop_px, side) for side in padded)
    corner = [
        _start(at / plane.downsample, wide, length, multiple)
        for at, wide, length in zip(centre, size, padded, strict=True)
    ]
    box = Box(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    return CropPlace(box, plane, stride, asked or plane)


def _start(centre: float, size: int, length: int, multiple: int) -> int:
    wanted = int((centre - size / 2) // multiple) * multiple
    return max(0, min(wanted, length - size))


def check_nested(shape: Shape, extents: tuple[float, ...], names: tuple[str, ...]) -> None:
    """Refuse crops of which a finer one does not fit into the coarser one before it.

    Args:
        shape: of the image, at level 0.
        extents: side of each pass's crop, in pixels of level 0.
        names: of the passes.

    Raises:
        PlanError: they do not nest.
    """
    for index, name in enumerate(names[1:], 1):
        coarse, fine = (min(extent, max(shape)) for extent in extents[index - 1 : index + 1])
        if fine > coarse:
            raise PlanError(
                f"pass {name!r}: its crop covers {fine:g} px of the image's finest level and lies "
                f"inside that of {names[index - 1]!r}, which covers {coarse:g}; make the one "
                "smaller or the other larger"
            )
