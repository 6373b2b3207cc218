"""A raster whose coarser levels are means of its pixels, where the file's own were made otherwise.

Overviews are often made by picking one pixel of many: what is small is in them by chance. Here a
level is averaged from level 0 when it is first needed, in one sweep for all that are asked for
together, and kept in files beside the run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.sources.bands import Samples, fills_of
from saccade.pipeline.sources.base import Level, Source
from saccade.pipeline.sources.level_file import LevelFile, LevelWriter
from saccade.pipeline.sources.reduce import reduce_valid
from saccade.pipeline.sources.wrapped import Wrapped

WEIGHING_ALL = frozenset(
    {"AVERAGE", "GAUSS", "BILINEAR", "CUBIC", "CUBICSPLINE", "LANCZOS", "AVERAGE_BIT2GRAYSCALE"}
)
"""GDAL's ways of resampling in which every pixel below an overview's pixel counts."""
SWEEP_NBYTES = 16 << 20
"""Of level 0, held at a time; more only where one pixel of a level covers more."""
DAMAGE_PX = 512
"""Side of the blocks in which damage is told from what can be read, or a pixel of the level."""


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
        self.levels = (inner.levels[0], *_whole_levels(inner.levels))
        self._folder, self._lock = folder, threading.Lock()
        self._files: dict[int, LevelFile] = {}
        self._key: str | None = None

    def make(self, levels: Iterable[int]) -> None:
        """Average those of the levels that are not there yet, in one sweep over level 0.

        Raises:
            StorageFull: no space is left where they are kept.
            StoreError: they can't be written for another reason.
        """
        with self._lock:
            missing = {k for k in levels if k > 0 and not self._path(k).exists()}
            if missing:
                self._sweep(sorted(missing))

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._decode_valid(level, box, None).pixels

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        if level == 0:
            return self.inner.read_valid(0, box, channels)
        file = self._file(level)
        if any(box.overlaps(lost) for lost in file.lost):
            raise ReadError(f"{self.uri}: part of level 0 under level {level}, {box} is damaged")
        samples = file.read(box)
        return samples if channels is None else samples.taking(channels)

    def _file(self, level: int) -> LevelFile:
        if level not in self._files:
            self.make([level])
            with self._lock:
                if level not in self._files:
                    self._files[level] = LevelFile(self._path(level))
        return self._files[level]

    def _path(self, level: int) -> Path:
        """Named by what tells the image from an earlier one of the same name."""
        if self._key is None:
            self._key = self.identity().quick_hash[:12]
        return self._folder / f"averaged-{self._factor(level)}-{self._key}.npy"

    def _factor(self, level: int) -> int:
        return int(self.levels[level].downsample)

    def close(self) -> None:
        """Close the image and the files of its levels."""
        super().close()
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    # ------------------------------------------------------------------------------- averaging

    def _sweep(self, levels: Sequence[int]) -> None:
        with ExitStack() as stack:
            writers = {
                level: stack.enter_context(
                    LevelWriter(
                        self._path(level), self.levels[level].shape, self.channels, self.dtype
                    )
                )
                for level in levels
            }
            coarsest = self._factor(levels[-1])
            for block in Grid(self.levels[0].shape, self._side(coarsest)):
                for box, samples in self._readable(block, max(coarsest, DAMAGE_PX)):
                    for level, writer in writers.items():
                        self._reduce_into(writer, level, box, samples)

    def _side(self, coarsest: int) -> int:
        """Of blocks that are read at a time: whole pixels of every level."""
        per_px = self.channels * self.dtype.itemsize
        fitting = 1 << int(math.log2(math.sqrt(SWEEP_NBYTES / per_px)))
        return max(fitting, coarsest)

    def _readable(self, block: Box, least_px: int) -> Iterator[tuple[Box, Samples | None]]:
        """A block's samples, in parts where it can't be read as a whole; None for what is lost."""
        try:
            yield block, self.inner.read_valid(0, block)
        except ReadError:
            if max(block.shape) <= least_px:
                yield block, None
                return
            side = max(least_px, 1 << (max(block.shape) - 1).bit_length() - 1)
            for part in Grid(block.shape, side):
                yield from self._readable(part.shift(block.y0, block.x0), least_px)

    def _reduce_into(
        self, writer: LevelWriter, level: int, box: Box, samples: Samples | None
    ) -> None:
        factor = self._factor(level)
        reduced = box.reduce(factor)
        if samples is None:
            writer.lost.append(reduced)
            return
        fills = fills_of(self.bands, self.dtype)
        full = self.levels[0].shape
        writer.write(reduced, reduce_valid(samples, reduced, float(factor), full, fills))


def _whole_levels(levels: Sequence[Level]) -> Iterator[Level]:
    """Of the file's coarser levels, those that divide level 0 evenly."""
    for level in levels[1:]:
        if level.downsample.is_integer():
            factor = int(level.downsample)
            height, width = (-(-side // factor) for side in levels[0].shape)
            yield Level((height, width), level.downsample, None, None, "AVERAGE")
