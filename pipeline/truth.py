"""The truth over an image: which pixels belong to which class. Knows no prediction and no run.

Truth is stored as images that any source reads, at the resolution of level 0 of the image they lie
over. A sample's value stands for classes, so it is never interpolated. Coarser grids get the
largest value of the area under a pixel (any pixel of the class) or its mean (its share).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from saccade.pipeline.closing import Closing
from saccade.pipeline.errors import TruthError
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.recipe import Node
from saccade.pipeline.recipe_file import load_tree
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.sources.reduce import reduce_area, source_span

Pool = Literal["max", "mean"]
Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""What an archive may be split into."""
NAME = "{name}"
"""Stands for an image's name in the path of its truth."""
MAX_SAMPLES = 1 << 24
"""Masks of this many samples of level 0 (of all classes together) are held at a time, at most."""


class ClassTruth(Node):
    """Which samples belong to a class: exactly one of ``value``, ``bit`` and ``above``."""

    value: int | None = None
    """Samples that equal this."""
    bit: int | None = Field(None, ge=1)
    """Integer samples that share a bit with this mask."""
    above: float | None = None
    """Samples greater than this; NaN never is."""
    channel: int = Field(0, ge=0)
    """Of the truth image, the channel that is looked at."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        ways = {"value": self.value, "bit": self.bit, "above": self.above}
        stated = [way for way, number in ways.items() if number is not None]
        if len(stated) != 1:
            found = ", ".join(stated) or "none"
            raise ValueError(f"state exactly one of value, bit, above; found {found}")
        return self

    def mask(self, samples: np.ndarray) -> np.ndarray:
        """Which samples belong to the class.

        Args:
            samples: ``(h, w, channels)``, as the truth image stores them.

        Returns:
            ``(h, w)`` bool.
        """
        one = samples[:, :, self.channel]
        mask: np.ndarray
        if self.bit is not None:
            mask = (one & one.dtype.type(self.bit & int(np.iinfo(one.dtype).max))) != 0
        elif self.value is not None:
            mask = one == self.value
        else:
            mask = one > self.above
        return mask


class TruthRecipe(Node):
    """Where the truth of each image of an archive lies, and what its samples mean."""

    path: str = Field(min_length=1)
    """Of an image's truth, relative to this file; '{name}' stands for the image's name."""
    classes: dict[str, ClassTruth] = Field(min_length=1)
    """By name, which samples belong to a class; a pixel may belong to several."""


def load_truth(path: Path | str) -> TruthRecipe:
    """The truth that a YAML file describes; its ``path`` then begins with the file's folder.

    Raises:
        RecipeError: no such file, not YAML, or a wrong value; the message names each place.
    """
    recipe = load_tree(path, TruthRecipe)
    return recipe.model_copy(update={"path": str(Path(path).parent / recipe.path)})


def open_truth(recipe: TruthRecipe, name: str) -> Truth:
    """The truth of the image of this name, opened lazily.

    Raises:
        SourceError: there is none, or it can't be opened.
        TruthError: it lacks a channel that a class is read from, or its samples hold no bits.
    """
    source = open_source(Path(recipe.path.replace(NAME, name)))
    try:
        return Truth(source, recipe)
    except TruthError:
        source.close()
        raise


class Truth(Closing):
    """Masks of all classes over one image; reads boxes only. Safe to share between threads."""

    def __init__(self, source: Source, recipe: TruthRecipe) -> None:
        self._source, self._rules = source, tuple(recipe.classes.values())
        self.classes = tuple(recipe.classes)
        """In the order of the file."""
        self.shape: Shape = source.levels[0].shape
        """Of level 0."""
        _check_samples(source, recipe)

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def check_over(self, shape: Shape, image: str) -> None:
        """Refuse to be the truth of an image of another size.

        Raises:
            TruthError: the image's level 0 has not the shape of this truth.
        """
        if shape != self.shape:
            raise TruthError(
                f"{self._source.uri}: the truth of {image!r} must have its shape {shape}, found "
                f"{self.shape}; resample it without interpolation, or correct `path`"
            )

    def read(self, box: Box) -> np.ndarray:
        """``(classes, height, width)`` bool of a box of level 0."""
        samples = self._source.read(0, box)
        return np.stack([rule.mask(samples) for rule in self._rules])

    def on(self, plane: PlaneSpec, box: Box, pool: Pool = "max") -> np.ndarray:
        """The classes of a box of a coarser grid, whose downsample may be fractional.

        A pixel of the grid covers ``[i * downsample, (i + 1) * downsample)`` of level 0 along each
        axis. A pixel of level 0 that lies under two of them counts for both.

        Args:
            plane: the grid; its ``shape`` and ``downsample`` (of level 0) matter.
            box: in pixels of the grid, wholly inside it.
            pool: 'max' asks whether any part of the area belongs to the class, 'mean' for the
                share that does.

        Returns:
            ``(classes, height, width)``: bool for 'max', float32 in [0, 1] for 'mean'.
        """
        if not Box.of(plane.shape).contains(box):
            raise ValueError(f"{self._source.uri}: {box} is not inside a plane of {plane.shape}")
        dtype = np.dtype(bool if pool == "max" else np.float32)
        out = np.empty((len(self.classes), *box.shape), dtype)
        for part in self._parts(box, plane.downsample):
            spans = self._spans(part, plane.downsample)
            masks = self.read(Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1]))
            pooled = _any if pool == "max" else _share
            index = (slice(None), *part.relative_to(box).slices)
            out[index] = pooled(masks, part, plane.downsample, self.shape)
        return out

    def _spans(self, box: Box, downsample: float) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of level 0 under a box of a coarser grid."""
        rows = source_span(box.y0, box.y1, downsample, self.shape[0])
        return rows, source_span(box.x0, box.x1, downsample, self.shape[1])

    def _parts(self, box: Box, downsample: float) -> Iterator[Box]:
        """The box in pieces whose masks at level 0 fit the limit."""
        (y0, y1), (x0, x1) = self._spans(box, downsample)
        if box.area == 0:
            return
        if (y1 - y0) * (x1 - x0) * len(self.classes) <= MAX_SAMPLES or box.area == 1:
            yield box
            return
        for half in box.halves():
            yield from self._parts(half, downsample)


def _check_samples(source: Source, recipe: TruthRecipe) -> None:
    for name, rule in recipe.classes.items():
        if rule.channel >= source.channels:
            raise TruthError(
                f"{source.uri}: class {name!r} is read from channel {rule.channel}, found "
                f"{source.channels} channels, counted from 0; correct `channel`"
            )
        if rule.bit is not None and source.dtype.kind not in "ui":
            raise TruthError(
                f"{source.uri}: class {name!r} is a bit of integer samples, found "
                f"{source.dtype} samples; use `above` or `value`"
            )


def _any(masks: np.ndarray, box: Box, downsample: float, shape: Shape) -> np.ndarray:
    """Whether any pixel under each pixel of a box is set."""
    rows = _any_along(masks, 1, box.y0, box.y1, downsample, shape[0])
    return _any_along(rows, 2, box.x0, box.x1, downsample, shape[1])


def _any_along(
    masks: np.ndarray, axis: int, start: int, stop: int, downsample: float, length: int
) -> np.ndarray:
    if downsample == 1:
        return masks
    spans = [source_span(i, i + 1, downsample, length) for i in range(start, stop)]
    first, last = np.array(spans).T - spans[0][0]
    out: np.ndarray = masks.take(first, axis=axis)
    for tap in range(1, int((last - first).max())):
        out |= masks.take(np.minimum(first + tap, last - 1), axis=axis)
    return out


def _share(masks: np.ndarray, box: Box, downsample: float, shape: Shape) -> np.ndarray:
    """Share of the area under each pixel of a box that is set."""
    if downsample == 1:
        return masks.astype(np.float32)
    samples = np.moveaxis(masks, 0, -1).astype(np.float32)
    shares: np.ndarray = np.moveaxis(reduce_area(samples, box, downsample, shape), -1, 0)
    return shares


def read_split(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Names of the images in each part of an archive.

    Args:
        path: a CSV file with the columns ``name`` and ``part``.

    Returns:
        Per part of ``PARTS`` the names in the order of the file, none where it names none.

    Raises:
        TruthError: no such file, another part, or an image in two places.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise TruthError(f"{file}: the split can't be read: {error.strerror}") from error
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        name, part = row.get("name"), row.get("part")
        if not name or part not in parts:
            raise TruthError(
                f"{file}, line {number}: a name and one of the parts {', '.join(PARTS)} expected; "
                f"found {name!r}, {part!r}"
            )
        if name in seen:
            raise TruthError(f"{file}, line {number}: {name!r} is named twice; remove one line")
        seen.add(name)
        parts[part].append(name)
    return {part: tuple(names) for part, names in parts.items()}
