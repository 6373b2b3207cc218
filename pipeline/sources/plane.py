"""The image at one resolution: the plane that a pass reads. Knows no file format, tile or model.

A plane is one level of the pyramid, reduced further by area averaging where no level has the
resolution asked for. A pixel of it has one value, whichever box it is read in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from saccade.pipeline.errors import MissingPixelSize, ResolutionUnavailable
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.sources.bands import Samples, fills_of
from saccade.pipeline.sources.base import PixelSize, Source
from saccade.pipeline.sources.reduce import reduce_valid, source_span

MAX_READ_NBYTES = 64 << 20
WHOLE_TOLERANCE = 1e-3
SIZE_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class PlaneSpec:
    """Where the pixels of one resolution come from; as frozen into plans."""

    level: int
    """Level of the source that is read."""
    factor: float
    """Pixels of that level per pixel of the plane along each axis, 1 or more."""
    shape: Shape
    """Height and width of the plane; a last pixel that covers less than a whole one counts."""
    downsample: float
    """Pixels of level 0 per pixel of the plane along each axis."""
    pixel_size: PixelSize | None
    """Of the plane; None where nobody stated the image's."""

    def __post_init__(self) -> None:
        if self.level < 0 or self.factor < 1 or min(self.shape) < 1:
            raise ValueError(f"level >= 0, factor >= 1 and a positive shape expected; found {self}")

    def coarser(self, factor: int) -> PlaneSpec:
        """The plane whose pixels are each ``factor`` by ``factor`` of this one's."""
        if factor == 1:
            return self
        height, width = (-(-side // factor) for side in self.shape)
        size = None if self.pixel_size is None else self.pixel_size.times(factor)
        return PlaneSpec(
            self.level, self.factor * factor, (height, width), self.downsample * factor, size
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``from_dict`` is the way back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PlaneSpec:
        """A spec from what ``to_dict`` wrote."""
        size = values["pixel_size"]
        height, width = values["shape"]
        pixel_size = None if size is None else PixelSize(**size)
        return cls(**{**values, "shape": (height, width), "pixel_size": pixel_size})


def locate(
    source: Source,
    *,
    mpp: float | None = None,
    gsd: float | None = None,
    downsample: float | None = None,
    level: int | None = None,
    pixel_size: PixelSize | None = None,
    tolerance: float = 0.02,
) -> PlaneSpec:
    """Find the plane of a resolution, of which exactly one way to say it is given.

    The coarsest level that is fine enough is read and averaged down by what remains. Within the
    tolerance a level is taken as it is.

    Args:
        source: the image.
        mpp: micrometres per pixel.
        gsd: metres per pixel.
        downsample: pixels of level 0 per pixel.
        level: a level as it is; negative numbers count from the coarsest.
        pixel_size: of level 0; replaces what the image states.
        tolerance: relative difference in resolution that does not matter.

    Raises:
        MissingPixelSize: ``mpp`` or ``gsd`` asked, and nobody states the pixel size.
        ResolutionUnavailable: finer than level 0, or a level that the image does not have.
    """
    if sum(way is not None for way in (mpp, gsd, downsample, level)) != 1:
        raise ValueError("exactly one of mpp, gsd, downsample, level expected")
    size = pixel_size or source.pixel_size
    if level is not None:
        return _spec(source, _level_index(source, level), 1.0, size)
    wanted = downsample
    if mpp is not None:
        wanted = mpp / _known(source, size, "mpp").mean_in("um")
    elif gsd is not None:
        wanted = gsd / _known(source, size, "gsd").mean_in("m")
    assert wanted is not None
    index = _coarsest_fine_enough(source, wanted, tolerance, size)
    factor = _snap(wanted / source.levels[index].downsample, tolerance)
    return _spec(source, index, factor, size)


def _known(source: Source, size: PixelSize | None, asked: Literal["mpp", "gsd"]) -> PixelSize:
    if size is None:
        raise MissingPixelSize(
            f"{source.uri}: {asked} is asked for, which needs the image's pixel size, and the file "
            f"states none; give it in the `{asked}` column of the manifest or with `--{asked}`, "
            "or ask for `downsample` or `level` instead"
        )
    return size


def _level_index(source: Source, level: int) -> int:
    count = len(source.levels)
    if not -count <= level < count:
        raise ResolutionUnavailable(
            f"{source.uri}: level {level} is asked for; the image has levels 0 to {count - 1}"
        )
    return level % count


def _coarsest_fine_enough(
    source: Source, wanted: float, tolerance: float, size: PixelSize | None
) -> int:
    limit = wanted * (1 + tolerance)
    fine = [i for i, level in enumerate(source.levels) if level.downsample <= limit]
    if fine:
        return fine[-1]
    states = "" if size is None else f" ({(size.y + size.x) / 2:.6g} {size.unit} per pixel)"
    raise ResolutionUnavailable(
        f"{source.uri}: {1 / wanted:.4g} times finer than level 0{states} is asked for, and an "
        "image is never magnified; ask for a coarser resolution, or correct the pixel size if it "
        "is wrong"
    )


def _snap(factor: float, tolerance: float) -> float:
    """The factor, whole where that is what it means."""
    if factor <= 1 + tolerance:
        return 1.0
    whole = round(factor)
    return float(whole) if abs(factor - whole) / factor < WHOLE_TOLERANCE else factor


def _spec(source: Source, index: int, factor: float, size: PixelSize | None) -> PlaneSpec:
    level = source.levels[index]
    height, width = (max(1, math.ceil(side / factor - SIZE_SLACK)) for side in level.shape)
    downsample = level.downsample * factor
    pixel_size = None if size is None else size.times(downsample)
    return PlaneSpec(index, factor, (height, width), downsample, pixel_size)


class Plane:
    """A source read at the resolution of a spec."""

    def __init__(self, source: Source, spec: PlaneSpec) -> None:
        self.source = source
        self.spec = spec

    @property
    def shape(self) -> Shape:
        """Height and width in pixels of the plane."""
        return self.spec.shape

    def read(self, box: Box) -> np.ndarray:
        """Pixels of one box of the plane, as ``read_valid`` has them."""
        if self.spec.factor == 1 and Box.of(self.shape).contains(box):
            return self.source.read(self.spec.level, box)
        return self.read_valid(box).pixels

    def read_valid(self, box: Box) -> Samples:
        """Pixels of one box of the plane, and which of them hold data.

        A pixel is the mean of the area it covers, by exact area; samples without data don't count,
        and where there are no others the pixel has none: it is set to the band's nodata value, or
        where that is not stated to NaN or 0. Integers are rounded half to even. At most 64 MiB of
        the level is held at a time.

        Returns:
            A C-contiguous ``(height, width, channels)`` array of the source's dtype, owned by the
            caller; and of the same shape, or with one channel for all, whether it is data.

        Raises:
            ReadError: a part of the region can't be decoded.
            ValueError: the box is not inside the plane.
        """
        if not Box.of(self.shape).contains(box):
            raise ValueError(f"{self.source.uri}: {box} is not inside a plane of {self.shape}")
        if self.spec.factor == 1:
            return self.source.read_valid(self.spec.level, box)
        out = np.empty((*box.shape, self.source.channels), self.source.dtype)
        valid: np.ndarray | None = None
        for part in self._parts(box):
            where = part.relative_to(box).slices
            out[where], known = self._reduced(part)
            if known is not None:
                valid = np.ones(out.shape, bool) if valid is None else valid
                valid[where] = known
        return Samples(out, valid)

    def _reduced(self, box: Box) -> Samples:
        samples = self.source.read_valid(self.spec.level, self._covered(box))
        lengths = self.source.levels[self.spec.level].shape
        fills = fills_of(self.source.bands, self.source.dtype)
        return reduce_valid(samples, box, self.spec.factor, lengths, fills)

    def _covered(self, box: Box) -> Box:
        """The box of the level that a box of the plane averages."""
        lengths = self.source.levels[self.spec.level].shape
        y0, y1 = source_span(box.y0, box.y1, self.spec.factor, lengths[0])
        x0, x1 = source_span(box.x0, box.x1, self.spec.factor, lengths[1])
        return Box(y0, x0, y1, x1)

    def _parts(self, box: Box) -> Iterator[Box]:
        """The box in pieces whose pixels of the level fit the limit: halves of the longer side."""
        nbytes = self._covered(box).area * self.source.channels * self.source.dtype.itemsize
        if box.area == 0:
            return
        if nbytes <= MAX_READ_NBYTES or box.area == 1:
            yield box
            return
        for half in box.halves():
            yield from self._parts(half)
