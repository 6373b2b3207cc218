"""What every reader of this package shares: refusing, naming errors, closing. Knows no format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import BrokenImage, ReadError, SaccadeError, UnsupportedImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.sources.base import (
    Identity,
    Level,
    PixelSize,
    check_read,
    file_identity,
    level_downsample,
)

COLOURS = {
    1: ("grey",),
    2: ("grey", "alpha"),
    3: ("red", "green", "blue"),
    4: ("red", "green", "blue", "alpha"),
}


class Reader(ABC):
    """A ``Source`` whose subclass only opens a format and decodes a box that is known to exist."""

    uri: str
    format: str
    levels: tuple[Level, ...]
    channels: int
    channel_names: tuple[str, ...]
    dtype: np.dtype[Any]
    pixel_size: PixelSize | None = None
    nodata: float | None = None
    georeference: Georeference | None = None
    cache_nbytes: int = 0
    _closed = False

    def read(self, level: int, box: Box) -> np.ndarray:
        """Pixels of one box of one level, as ``Source.read`` promises."""
        if self._closed:
            raise ValueError(f"{self.uri}: read after close")
        check_read(self, level, box)
        try:
            pixels = self._decode(level, box) if box.area else self._blank(box)
        except (SaccadeError, MemoryError):
            raise
        except Exception as error:  # each decoder has its own tree, all rooted here
            raise self._unreadable(level, box, error) from error
        return np.require(pixels, self.dtype, ["C", "W", "O"])

    def identity(self) -> Identity:
        """Size, modification time and quick hash of the file."""
        return file_identity(Path(self.uri))

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        self._closed = True

    @abstractmethod
    def _decode(self, level: int, box: Box) -> np.ndarray:
        """The ``(height, width, channels)`` pixels of a box of some area inside the level."""

    def _blank(self, box: Box) -> np.ndarray:
        return np.zeros((*box.shape, self.channels), self.dtype)

    def _unreadable(self, level: int, box: Box, error: Exception) -> ReadError:
        return ReadError(
            f"{self.uri}: level {level}, {box} can't be decoded ({reason(error)}); "
            "the file is probably damaged there"
        )


@contextmanager
def opening(uri: str, what: str) -> Iterator[None]:
    """Whatever a third party raises while a file opens becomes ``BrokenImage``."""
    try:
        yield
    except (SaccadeError, MemoryError):
        raise
    except Exception as error:
        raise BrokenImage(
            f"{uri}: a {what} was expected, but it does not open ({reason(error)}); "
            "compare its size or checksum with the original, or copy it again"
        ) from error


def reason(error: Exception) -> str:
    """A third party's error on one line."""
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def numbered(channels: int) -> tuple[str, ...]:
    """Invented channel names: '0', '1', ..."""
    return tuple(str(index) for index in range(channels))


def colour_names(channels: int) -> tuple[str, ...]:
    """Names of the channels of a colour or grey image."""
    return COLOURS.get(channels) or numbered(channels)


def distinct(names: Sequence[str], channels: int) -> tuple[str, ...]:
    """The file's channel names where there is a different one for each, else invented ones."""
    usable = len(names) == channels and all(names) and len(set(names)) == channels
    return tuple(names) if usable else numbered(channels)


def is_reduction(full: Shape, reduced: Shape) -> bool:
    """Whether one factor explains both sides, each rounded down or up to whole pixels."""
    if reduced[0] > full[0] or reduced[1] > full[1] or reduced == full:
        return False
    low = max(f / (r + 1) for f, r in zip(full, reduced, strict=True))
    high = min(f / (r - 1) if r > 1 else float("inf") for f, r in zip(full, reduced, strict=True))
    return low < high


def level_of(
    full: Shape,
    shape: Shape,
    tile: Shape | None = None,
    codec: str | None = None,
    resampling: str | None = None,
) -> Level:
    """A level from its shape and the shape of level 0, which no resampling made."""
    made = None if shape == full else resampling
    return Level(shape, level_downsample(full, shape), tile, codec, made)


def native(dtype: np.dtype[Any], uri: str) -> np.dtype[Any]:
    """The type that samples are handed out in: numbers in this machine's byte order."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise UnsupportedImage(f"{uri}: integer or float samples expected, found {dtype}")
    return dtype.newbyteorder("=")
