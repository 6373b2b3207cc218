"""What every reader of this package shares: refusing, naming errors, closing. Knows no format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import BrokenImage, ReadError, SaccadeError, UnsupportedImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.sources.bands import (
    Band,
    Palette,
    Samples,
    alpha_of,
    both,
    holding_data,
)
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
RPC_NOTE = (
    "its place on the ground is stated by RPCs only, which need a terrain model: results have "
    "pixel coordinates; warp it first (`gdalwarp -rpc`) for results that lie on a map"
)


class OtherReaderNeeded(UnsupportedImage):
    """The file is what it says, but not one that this reader decodes."""


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
    palette: Palette | None = None
    is_raster: bool = False
    notes: tuple[str, ...] = ()
    cache_nbytes: int = 0
    _bands: tuple[Band, ...] = ()
    _masked = False
    _closed = False

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each channel; a name and nodata, where the format says no more."""
        return self._bands or tuple(Band(name, self.nodata) for name in self.channel_names)

    @property
    def lacks_data(self) -> bool:
        """Whether there may be samples without data: by value, alpha or mask."""
        by_value = self.dtype.kind == "f" or any(band.nodata is not None for band in self.bands)
        return by_value or self._masked or alpha_of(self._bands) is not None

    def read(self, level: int, box: Box) -> np.ndarray:
        """Pixels of one box of one level, as ``Source.read`` promises."""
        return self._guarded(level, box, lambda: Samples(self._decode(level, box), None)).pixels

    def read_valid(self, level: int, box: Box, channels: Sequence[int] | None = None) -> Samples:
        """Pixels and which of them hold data, as ``Source.read_valid`` promises."""
        return self._guarded(level, box, lambda: self._decode_valid(level, box, channels))

    def _guarded(self, level: int, box: Box, decode: Callable[[], Samples]) -> Samples:
        if self._closed:
            raise ValueError(f"{self.uri}: read after close")
        check_read(self, level, box)
        if not box.area:
            return Samples(self._blank(box), None)
        try:
            pixels, valid = decode()
        except (SaccadeError, MemoryError):
            raise
        except Exception as error:  # each decoder has its own tree, all rooted here
            raise self._unreadable(level, box, error) from error
        return Samples(np.require(pixels, self.dtype, ["C", "W", "O"]), valid)

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        """Of a box of some area inside the level; the alpha is read along where there is one."""
        alpha = alpha_of(self._bands)
        needed = None if channels is None else list(channels)
        if needed is not None and alpha is not None and alpha not in needed:
            needed.append(alpha)
        pixels = self._decode(level, box) if needed is None else self._take(level, box, needed)
        valid = both(self._valid_of(pixels, needed), self._unmasked(level, box))
        samples = Samples(pixels, valid)
        return samples if channels is None else samples.taking(range(len(channels)))

    def _valid_of(self, pixels: np.ndarray, channels: Sequence[int] | None) -> np.ndarray | None:
        """Which samples hold data by their values; None where all do."""
        if self.nodata is None and not self._bands and self.dtype.kind != "f":
            return None
        known = self.bands
        return holding_data(pixels, known if channels is None else [known[i] for i in channels])

    def _take(self, level: int, box: Box, channels: Sequence[int]) -> np.ndarray:
        """Some channels of a box, in this order."""
        return self._decode(level, box)[..., list(channels)]

    def _unmasked(self, level: int, box: Box) -> np.ndarray | None:
        """``(h, w, 1)`` bool: what a mask beside the pixels leaves; None where there is none."""
        return None

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
