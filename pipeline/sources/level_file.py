"""A level of an image in a file of its own: written once, in any order; in place when complete.

Three files share a name: the samples (``.npy``), a byte per sample that says where there is no
data (``.absent.npy``), and the boxes that could not be read (``.lost.json``); the latter two only
where there is something to say. The samples are renamed last, so that their presence says that all
is there. Rows are read and written at their place, not through a memory map.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.store_shelf import PARTIAL, named_errors


class ArrayFile:
    """An array ``(height, width, channels)`` in a file, read and written box by box."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._shape, self._dtype = file, shape, dtype
        self._start = file.tell()
        self._pixel_nbytes = shape[2] * dtype.itemsize

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArrayFile:
        """A new file of zeros."""
        file = path.open("w+b")
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        made = cls(file, shape, dtype)
        file.flush()
        os.truncate(file.fileno(), made._start + shape[0] * shape[1] * made._pixel_nbytes)
        return made

    @classmethod
    def open(cls, path: Path) -> ArrayFile:
        """A file that is complete."""
        file = path.open("rb")
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return cls(file, shape, dtype)

    def write(self, box: Box, pixels: np.ndarray) -> None:
        """Put the pixels of a box in their place."""
        rows = np.ascontiguousarray(pixels, self._dtype)
        for y, row in enumerate(rows, box.y0):
            os.pwrite(self._file.fileno(), row.tobytes(), self._at(y, box.x0))

    def read(self, box: Box) -> np.ndarray:
        """The pixels of a box."""
        out = np.empty((*box.shape, self._shape[2]), self._dtype)
        nbytes = box.width * self._pixel_nbytes
        for y, row in enumerate(out, box.y0):
            data = os.pread(self._file.fileno(), nbytes, self._at(y, box.x0))
            row[...] = np.frombuffer(data, self._dtype).reshape(row.shape)
        return out

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _at(self, row: int, column: int) -> int:
        return self._start + (row * self._shape[1] + column) * self._pixel_nbytes


class LevelWriter:
    """Writes one level beside its place; leaving the ``with`` block puts it there, or nothing."""

    def __init__(self, path: Path, shape: Shape, channels: int, dtype: np.dtype[Any]) -> None:
        self._path, self._mark = path, f".{uuid4().hex}{PARTIAL}"
        self._shape = (*shape, channels)
        self._absent: ArrayFile | None = None
        self.lost: list[Box] = []
        """What could not be read, in pixels of the level."""
        with named_errors(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._pixels = ArrayFile.create(self._beside(path), self._shape, dtype)

    def write(self, box: Box, samples: Samples) -> None:
        """Put a box in its place."""
        with named_errors(self._path, "written"):
            self._pixels.write(box, samples.pixels)
            if samples.valid is None or samples.valid.all():
                return
            if self._absent is None:
                place, kind = self._beside(absent_path(self._path)), np.dtype(np.uint8)
                self._absent = ArrayFile.create(place, self._shape, kind)
            self._absent.write(box, np.broadcast_to(~samples.valid, samples.pixels.shape))

    def __enter__(self) -> LevelWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        paths = [absent_path(self._path), lost_path(self._path), self._path]
        try:
            if kind is None:
                with named_errors(self._path, "written"):
                    self._finish(paths)
        finally:
            for file in (self._pixels, self._absent):
                if file is not None:
                    file.close()
            for path in paths:
                self._beside(path).unlink(missing_ok=True)

    def _finish(self, paths: Sequence[Path]) -> None:
        if self.lost:
            boxes = json.dumps([box.as_tuple() for box in self.lost])
            self._beside(lost_path(self._path)).write_text(boxes)
        for file in (self._absent, self._pixels):
            if file is not None:
                file.sync()
        for path in paths:
            if self._beside(path).exists():
                self._beside(path).replace(path)

    def _beside(self, path: Path) -> Path:
        return path.with_name(path.name + self._mark)


class LevelFile:
    """One level, complete."""

    def __init__(self, path: Path) -> None:
        self._pixels = ArrayFile.open(path)
        absent, lost = absent_path(path), lost_path(path)
        self._absent = ArrayFile.open(absent) if absent.exists() else None
        boxes = json.loads(lost.read_text()) if lost.exists() else []
        self.lost = tuple(Box(*box) for box in boxes)
        """What could not be read when it was written, in pixels of the level."""

    def read(self, box: Box) -> Samples:
        """Pixels of a box, and which of them hold data."""
        absent = None if self._absent is None else self._absent.read(box)
        valid = None if absent is None or not absent.any() else absent == 0
        return Samples(self._pixels.read(box), valid)

    def close(self) -> None:
        """Release its files."""
        for file in (self._pixels, self._absent):
            if file is not None:
                file.close()


def absent_path(path: Path) -> Path:
    """Where it stands which samples of a level hold no data."""
    return path.with_suffix(".absent.npy")


def lost_path(path: Path) -> Path:
    """Where it stands which boxes of a level could not be read."""
    return path.with_suffix(".lost.json")
