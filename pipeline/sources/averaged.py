"""A raster whose coarser levels are means of its pixels, where the file's own were made otherwise.

Overviews are often made by picking one pixel of many: what is small is in them by chance. Here
levels are averaged from level 0 before they are first read, in one sweep for all that are wanted,
and kept in files beside the run. Only ground that is wanted is swept; what is read elsewhere is
averaged there and then, to the same bits.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.level_file import LevelFile, LevelWriter
from saccade.pipeline.sources.level_sweep import Blocks, Target, averaged, whole_levels
from saccade.pipeline.sources.wrapped import Wrapped

WEIGHING_ALL = frozenset(
    {"AVERAGE", "GAUSS", "BILINEAR", "CUBIC", "CUBICSPLINE", "LANCZOS", "AVERAGE_BIT2GRAYSCALE"}
)
"""GDAL's ways of resampling in which every pixel below an overview's pixel counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """A level that is wanted, and where."""

    level: int
    """Of the image, above 0."""
    exact: bool = False
    """Whether means are floats; by default they are rounded to integers where samples are."""
    marked: np.ndarray | None = None
    """``(rows, columns)`` bool: the blocks of ``AveragedSource.blocks``; None means all."""

    @property
    def key(self) -> tuple[int, bool]:
        """What there is one file of at a time."""
        return self.level, self.exact

    def name(self, factor: int) -> str:
        """Of its file; other blocks have another name."""
        kind = "-means" if self.exact else ""
        part = ""
        if self.marked is not None:
            part = "-" + hashlib.blake2b(self.marked.tobytes(), digest_size=6).hexdigest()
        return f"averaged-{factor}{kind}{part}"


def leaves_pixels_out(source: Source) -> bool:
    """Whether a raster's overviews are not known to be made of all its pixels."""
    made = [level.resampling for level in source.levels[1:]]
    return source.is_raster and source.palette is None and not set(made) <= WEIGHING_ALL


def note_on(source: Source) -> str:
    """For people: what was found, and what is done about it."""
    made = sorted({level.resampling or "" for level in source.levels[1:]} - WEIGHING_ALL)
    how = f"made by {made[-1]} resampling" if made[-1] else "of unknown resampling"
    return (
        f"the file's overviews are {how}, which may leave small things out: coarse passes read "
        "means of level 0 instead, averaged once; `overviews: stored` in the recipe takes the "
        "file's own"
    )


def dtype_of_means(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Floats that hold every sample of a type as it is."""
    if dtype.kind == "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


class AveragedSource(Wrapped):
    """The image with the levels that it has, each averaged from level 0 over what holds data.

    A level whose pixels are not whole pixels of level 0 is left out.

    Args:
        inner: the image.
        folder: where levels are kept; made when the first is.
    """

    def __init__(self, inner: Source, folder: Path) -> None:
        super().__init__(inner)
        self.notes = (*inner.notes, note_on(inner))
        px_nbytes = self.channels * self.dtype.itemsize
        self.levels = (inner.levels[0], *whole_levels(inner.levels, px_nbytes))
        self._blocks = Blocks(inner, self.levels)
        self.blocks = self._blocks.grid
        """What is averaged at a time: a grid over level 0."""
        self._folder, self._lock = folder, threading.Lock()
        self._needs: dict[tuple[int, bool], Need] = {}
        self._files: dict[tuple[int, bool], LevelFile] = {}
        self._quick_hash: str | None = None

    def expect(self, needs: Iterable[Need]) -> None:
        """Say what will be read, before anything is; a level that nobody names is made whole."""
        self._needs = {need.key: need for need in needs if need.level > 0}

    def make(self, needs: Iterable[Need]) -> None:
        """Average what is needed and not there yet, in one sweep over level 0.

        Raises:
            StorageFull: no space is left where levels are kept.
            StoreError: they can't be written for another reason.
        """
        with self._lock:
            above = [need for need in needs if need.level > 0]
            missing = [need for need in above if not self._path(need).exists()]
            with ExitStack() as stack:
                targets = [self._target(need, stack) for need in missing]
                if targets:
                    self._blocks.sweep(self.inner, targets)

    def read_means(self, level: int, box: Box, channels: Sequence[int] | None = None) -> Samples:
        """As ``read_valid``, but the means of integers are floats and not rounded."""
        return self._read_level(level, box, channels, exact=self.dtype.kind in "iu")

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._decode_valid(level, box, None).pixels

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        return self._read_level(level, box, channels, exact=False)

    def _read_level(
        self, level: int, box: Box, channels: Sequence[int] | None, *, exact: bool
    ) -> Samples:
        if level == 0:
            return self.inner.read_valid(0, box, channels)
        need = self._needs.get((level, exact)) or Need(level, exact)
        file, parts = self._file(need), list(self._parts(need, box))
        read = [self._read_part(need, file, part, made) for part, made in parts]
        samples = read[0] if len(read) == 1 else _joined(box, [p for p, _ in parts], read)
        return samples if channels is None else samples.taking(channels)

    def _parts(self, need: Need, box: Box) -> Iterator[tuple[Box, bool]]:
        """A box of a level cut where what is in its file ends, and whether each part is there."""
        factor = self._factor(need.level)
        cells = self.blocks.cells_touching(box.scale(factor))
        if need.marked is None or need.marked[cells.slices].all():
            yield box, True
            return
        for index in self.blocks.indices(cells):
            part = self.blocks.box(index).reduce(factor).intersect(box)
            yield part, bool(need.marked[self.blocks.cell(index)])

    def _read_part(self, need: Need, file: LevelFile, part: Box, made: bool) -> Samples:
        if not made:
            factor = self._factor(need.level)
            under = part.scale(factor).clip(self.levels[0].shape)
            samples = self.inner.read_valid(0, under)
            return averaged(self.inner, samples, part, factor, self._dtype(need))
        if any(part.overlaps(lost) for lost in file.lost):
            raise ReadError(
                f"{self.uri}: part of level 0 under level {need.level}, {part} is damaged"
            )
        return file.read(part)

    def _file(self, need: Need) -> LevelFile:
        if need.key not in self._files:
            self.make([need])
            with self._lock:
                if need.key not in self._files:
                    self._files[need.key] = LevelFile(self._path(need))
        return self._files[need.key]

    def _target(self, need: Need, stack: ExitStack) -> Target:
        shape, dtype = self.levels[need.level].shape, self._dtype(need)
        writer = LevelWriter(self._path(need), shape, self.channels, dtype)
        return Target(stack.enter_context(writer), self._factor(need.level), dtype, need.marked)

    def _path(self, need: Need) -> Path:
        """Named by what tells the image from an earlier one of the same name."""
        if self._quick_hash is None:
            self._quick_hash = self.identity().quick_hash[:12]
        return self._folder / f"{need.name(self._factor(need.level))}-{self._quick_hash}.npy"

    def _dtype(self, need: Need) -> np.dtype[Any]:
        return dtype_of_means(self.dtype) if need.exact else self.dtype

    def _factor(self, level: int) -> int:
        return int(self.levels[level].downsample)

    def close(self) -> None:
        """Close the image and the files of its levels."""
        super().close()
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()


def _joined(box: Box, parts: Sequence[Box], read: Sequence[Samples]) -> Samples:
    """Parts of a box, as one."""
    first = read[0].pixels
    out = np.empty((*box.shape, first.shape[2]), first.dtype)
    valid = np.ones(out.shape, bool)
    for part, (pixels, known) in zip(parts, read, strict=True):
        inside = part.relative_to(box).slices
        out[inside] = pixels
        if known is not None:
            valid[inside] = known
    return Samples(out, None if valid.all() else valid)


class Unrounded(Wrapped):
    """An image whose integers are given as floats, so that no mean of them is rounded."""

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self.dtype = dtype_of_means(inner.dtype)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._decode_valid(level, box, None).pixels

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        if isinstance(self.inner, AveragedSource):
            samples = self.inner.read_means(level, box, channels)
        else:
            samples = self.inner.read_valid(level, box, channels)
        return Samples(samples.pixels.astype(self.dtype), samples.valid)
