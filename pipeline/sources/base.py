"""What every source of pixels promises, whatever the file behind it.

A source is opened cheaply (headers only), says its levels, pixel size, channels and identity, and
reads any box of any level from any thread. It knows no recipe, model or resolution policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.sources.bands import Band, Palette, Samples

OVERVIEWS = ".ovr"
"""What the name of a file of overviews has after that of the image."""
QUICK_HASH_BYTES = 65536


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Physical size of a pixel of level 0."""

    y: float
    """Height of a pixel in ``unit``; positive."""
    x: float
    """Width of a pixel in ``unit``; positive."""
    unit: Literal["um", "m"]
    """Micrometres (slides, ``mpp``) or metres (rasters, ``gsd``)."""

    def __post_init__(self) -> None:
        if not (self.y > 0 and self.x > 0):
            raise ValueError(f"a pixel size is positive; found {self.y} x {self.x} {self.unit}")

    def mean_in(self, unit: Literal["um", "m"]) -> float:
        """Mean of height and width, in the unit asked for."""
        factor = {("um", "m"): 1e-6, ("m", "um"): 1e6}.get((self.unit, unit), 1.0)
        return (self.y + self.x) / 2 * factor

    def times(self, factor: float) -> PixelSize:
        """The pixel size of an array that is ``factor`` times coarser."""
        return PixelSize(self.y * factor, self.x * factor, self.unit)


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image's own pyramid."""

    shape: Shape
    """Height and width in this level's pixels."""
    downsample: float
    """Pixels of level 0 per pixel of this level, 1 or more."""
    tile: Shape | None = None
    """The file's own tile (or strip, or chunk) in pixels; None where it has none."""
    codec: str | None = None
    """The file's own compression, as its format names it; None where unknown."""
    resampling: str | None = None
    """How the file says this level was made from level 0, in capitals ('NEAREST', 'AVERAGE'); None
    where it says nothing."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Enough to tell that an image is still the one a run was made from."""

    path: str
    """Where it was opened."""
    nbytes: int
    """Size of the file (or of all files of a folder)."""
    modified_ns: int
    """Latest modification time, nanoseconds since the epoch."""
    quick_hash: str
    """32 hexadecimal digits, of size, head, middle and tail; at most 192 KiB of a file are read."""

    def to_dict(self) -> dict[str, Any]:
        """As written to ``run.json``."""
        return asdict(self)


@runtime_checkable
class Source(Protocol):
    """One image, opened lazily. Safe to share between threads; not between processes."""

    uri: str
    """What was opened."""
    format: str
    """Name of the format, for people: 'Aperio SVS', 'GeoTIFF', 'OME-Zarr 0.5'..."""
    levels: tuple[Level, ...]
    """Finest first; at least one; downsamples strictly increasing."""
    channels: int
    """Channels of every level."""
    channel_names: tuple[str, ...]
    """One name per channel; invented ('0', '1', ...) where the file has none."""
    dtype: np.dtype[Any]
    """Type of the samples."""
    pixel_size: PixelSize | None
    """Of level 0, where the file states it."""
    nodata: float | None
    """The sample value that means 'no data here' in every band, where the file states one; NaN is
    a value. Which pixels hold data is what ``read_valid`` says."""
    georeference: Georeference | None
    """Where the pixels of level 0 lie on the ground, where the file says so."""

    palette: Palette | None
    """Colours of the samples, where they are indices into a table."""
    is_raster: bool
    """Whether its levels may have been made by leaving pixels out, as overviews of rasters are."""
    notes: tuple[str, ...]
    """What a person should know of how the image is read; one sentence each."""

    cache_nbytes: int
    """Host memory that decoded tiles are kept in, at most."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each channel."""
        ...

    @property
    def lacks_data(self) -> bool:
        """Whether there may be samples without data; no box has any where this is False."""
        ...

    def read(self, level: int, box: Box) -> np.ndarray:
        """Pixels of one box of one level.

        Args:
            level: index into ``levels``.
            box: in that level's pixels, wholly inside it.

        Returns:
            A C-contiguous ``(height, width, channels)`` array of ``dtype``, owned by the caller.

        Raises:
            ReadError: the region can't be decoded; the message names image, level and box.
        """
        ...

    def read_valid(self, level: int, box: Box, channels: Sequence[int] | None = None) -> Samples:
        """Pixels of one box of one level, and which of them hold data.

        A sample holds none where the file says so in any of five ways: it has the band's nodata
        value, or is NaN; its pixel is wholly transparent in a band that the file calls alpha; or
        is masked out by a mask that lies in the file.

        Args:
            level: index into ``levels``.
            box: in that level's pixels, wholly inside it.
            channels: those that are wanted, in this order; by default all.

        Raises:
            ReadError: as of ``read``.
        """
        ...

    def identity(self) -> Identity:
        """What tells this image from another one."""
        ...

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        ...


def check_read(source: Source, level: int, box: Box) -> None:
    """Refuse a read outside the image, in the same words for every source."""
    if not 0 <= level < len(source.levels):
        raise ValueError(f"{source.uri}: level {level} asked, {len(source.levels)} levels present")
    if not Box.of(source.levels[level].shape).contains(box):
        shape = source.levels[level].shape
        raise ValueError(f"{source.uri}: {box} is not inside level {level} of shape {shape}")


def level_downsample(full: Shape, reduced: Shape) -> float:
    """Downsample of a level from its shape, exact where a whole factor explains both sides.

    Pyramids round their sides down, up or to nearest: a whole factor that explains both is taken,
    else the mean of the two ratios.
    """
    factor = max(1, round(full[0] / reduced[0])), max(1, round(full[1] / reduced[1]))
    for n in sorted({*factor}):
        if all(f // n <= r <= -(-f // n) for f, r in zip(full, reduced, strict=True)):
            return float(n)
    return (full[0] / reduced[0] + full[1] / reduced[1]) / 2


def file_identity(path: Path) -> Identity:
    """Identity of one file: size, modification time, hash of head, middle and tail.

    Overviews beside it count as if they were a part of it.
    """
    digest, nbytes, newest = hashlib.blake2b(digest_size=16), 0, 0
    for one in with_overviews(path):
        stat = one.stat()
        digest.update(str(stat.st_size).encode())
        with one.open("rb") as file:
            for start in (0, stat.st_size // 2, max(0, stat.st_size - QUICK_HASH_BYTES)):
                file.seek(start)
                digest.update(file.read(QUICK_HASH_BYTES))
        nbytes, newest = nbytes + stat.st_size, max(newest, stat.st_mtime_ns)
    return Identity(str(path), nbytes, newest, digest.hexdigest())


def with_overviews(path: Path) -> tuple[Path, ...]:
    """A file, and the one beside it that holds its overviews, where there is one."""
    beside = path.with_name(f"{path.name}{OVERVIEWS}")
    return (path, beside) if beside.is_file() else (path,)
