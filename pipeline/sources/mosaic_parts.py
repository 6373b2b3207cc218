"""Several files on one grid: where each lies, which levels they share, who comes first. Pure.

The grid is that of the first file: its CRS, its pixel size, its corners of pixels. Every other file
must lie on it to a thousandth of a pixel; what does not has to be warped first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Affine, Crs, Georeference, same_crs
from saccade.pipeline.sources.bands import Band
from saccade.pipeline.sources.base import Identity, Level, PixelSize

Overlap = Literal["first", "last", "newest", "mean"]
"""Whose sample counts where several parts have data: the part listed first, listed last, of the
latest date (of equal ones the first listed), or the mean of all."""

ALIGNED_PX = 1e-3
"""A file may lie off the grid by so much, at any of its corners, unless more is allowed."""
MOST_OFF_PX = 0.5
WARP = (
    "warp it onto the others' grid, as with 'gdalwarp -t_srs CRS -tr SIZE SIZE -tap', or build "
    "a VRT that resamples it"
)


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What the header of one file says."""

    uri: str
    """Where it lies."""
    levels: tuple[Level, ...]
    """Finest first."""
    channels: int
    """Of the file."""
    bands: tuple[Band, ...]
    """What is known of each channel."""
    dtype: np.dtype[Any]
    """Of its samples."""
    nodata: float | None
    """Sample value that means 'no data here' in every band."""
    lacks_data: bool
    """Whether there may be samples without data, for whatever reason."""
    pixel_size: PixelSize | None
    """Of its level 0."""
    georeference: Georeference | None
    """Where it lies on the ground."""
    identity: Identity
    """Tells the file from another one."""
    held_nbytes: int
    """Memory that it may hold while it is open."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One per channel."""
        return tuple(band.name for band in self.bands)

    @property
    def shape(self) -> Shape:
        """Height and width of level 0."""
        return self.levels[0].shape


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a file, and where it lies in the whole."""

    file: int
    """Which of the files."""
    window: Box
    """Of the file's level 0."""
    corner: tuple[int, int]
    """Row and column of the window's first pixel in the whole, at level 0."""
    bands: tuple[int, ...]
    """Channels of the file that are taken, in this order."""
    channel: int = 0
    """First channel of the whole that they are."""
    nodata: float | None = None
    """Sample value of the file that means 'no data here'; NaN always does."""
    date: str = ""
    """When it was taken, as ISO 8601; empty where nobody says."""

    @property
    def place(self) -> Box:
        """What it covers of the whole, at level 0."""
        return Box.of(self.window.shape).shift(*self.corner)

    @property
    def channels(self) -> slice:
        """Channels of the whole that it fills."""
        return slice(self.channel, self.channel + len(self.bands))

    def place_at(self, downsample: int) -> Box:
        """What it covers of a level that ``shared_downsamples`` gives."""
        place = self.place
        return Box(place.y0 // downsample, place.x0 // downsample, *_ends(place, downsample))

    def in_file(self, box: Box, downsample: int) -> Box:
        """A box of a level of the whole as a box of the file's level of that downsample."""
        dy = (self.window.y0 - self.corner[0]) // downsample
        dx = (self.window.x0 - self.corner[1]) // downsample
        return box.shift(dy, dx)


def _ends(place: Box, downsample: int) -> tuple[int, int]:
    return -(-place.y1 // downsample), -(-place.x1 // downsample)


@dataclass(frozen=True, slots=True)
class Canvas:
    """The whole that parts make."""

    shape: Shape
    """Height and width of level 0: the smallest rectangle around all parts."""
    georeference: Georeference | None
    """Where it lies on the ground."""
    corners: tuple[tuple[int, int], ...]
    """Of each file, row and column of its first pixel."""


def lay_out(files: Sequence[PartFacts], tolerance_px: float = ALIGNED_PX) -> Canvas:
    """The union of files that lie on one grid.

    Args:
        files: what their headers say; the grid is that of the first.
        tolerance_px: how far off the grid a corner may lie; it is put at the nearest whole pixel.

    Raises:
        UnsupportedImage: a file says no place, has another CRS or pixel size, or lies between the
            others' pixels; names it and says by how much.
    """
    grid = _affine(files[0])
    crs = _crs(files[0])
    corners = [_corner(one, grid, crs, files[0].uri, tolerance_px) for one in files]
    top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
    moved = tuple((row - top, column - left) for row, column in corners)
    height, width = (
        max(at[axis] + one.shape[axis] for at, one in zip(moved, files, strict=True))
        for axis in (0, 1)
    )
    return Canvas((height, width), Georeference(crs, grid.moved(top, left)), moved)


def _affine(one: PartFacts) -> Affine:
    place = one.georeference
    if place is None or place.affine is None:
        found = "no georeference" if place is None else "ground control points only"
        raise UnsupportedImage(
            f"{one.uri}: a file of a mosaic says where it lies by an affine; found {found}; "
            "warp it with gdalwarp, or leave it out"
        )
    return place.affine


def _crs(one: PartFacts) -> Crs | None:
    return None if one.georeference is None else one.georeference.crs


def _corner(
    one: PartFacts, grid: Affine, crs: Crs | None, first: str, tolerance_px: float
) -> tuple[int, int]:
    """Row and column of a file's first pixel on the grid of the first file."""
    affine, (height, width) = _affine(one), one.shape
    if not same_crs(_crs(one), crs):
        raise UnsupportedImage(
            f"{one.uri}: one CRS for all files of a mosaic expected, {crs} as {first} has; found "
            f"{_crs(one)}: {WARP}"
        )
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    found = grid.inverse().place(affine.place(ends))
    column, row = (round(float(v)) for v in found[0])
    grown_px = float(np.abs((found - found[0]) - ends).max())
    off_px = float(np.abs(found - ends - (column, row)).max())
    if off_px > tolerance_px:
        sizes = f" with pixels of {_size(affine)} instead of {_size(grid)}"
        raise UnsupportedImage(
            f"{one.uri}: a file on the grid of {first} expected, within {tolerance_px:g} px; found "
            f"one that is off by {off_px:.3g} px{sizes if grown_px > ALIGNED_PX else ''}: {WARP}"
            + (f", or allow it with 'tolerance: {_up(off_px)}'" if off_px < MOST_OFF_PX else "")
        )
    return row, column


def _up(off_px: float) -> float:
    """A little more, in few digits."""
    return math.ceil(off_px * 100) / 100


def _size(affine: Affine) -> str:
    height, width = math.hypot(affine.b, affine.e), math.hypot(affine.a, affine.d)
    return f"{width:.9g} x {height:.9g}"


def check_channels(one: PartFacts, first: PartFacts) -> None:
    """Refuse a file that has not the bands of another one.

    Raises:
        UnsupportedImage: it has more, or fewer.
    """
    if one.channels != first.channels:
        raise UnsupportedImage(
            f"{one.uri}: {first.channels} bands expected, as {first.uri} has; found "
            f"{one.channels}; leave it out, or make a stack of them"
        )


def shared_downsamples(
    files: Sequence[PartFacts], parts: Sequence[Part], shape: Shape
) -> list[int]:
    """Downsamples of levels that can be put together from the files' own levels; 1 is the first.

    All files have the level, every part begins at one of its pixels, and ends at one too or at the
    edge of its file and of the whole: so no pixel of a level is of two parts' ground.
    """
    common = set.intersection(*({level.downsample for level in one.levels} for one in files))
    whole = sorted(int(d) for d in common if d == int(d))
    return [d for d in whole if d == 1 or all(_fits(p, files[p.file], d, shape) for p in parts)]


def _fits(part: Part, file: PartFacts, downsample: int, shape: Shape) -> bool:
    level = level_of(file, downsample)
    for axis in (0, 1):
        start, length = part.window.as_tuple()[axis], part.window.shape[axis]
        if start % downsample or part.corner[axis] % downsample:
            return False
        file_ends = start + length == file.shape[axis]
        whole_ends = part.corner[axis] + length == shape[axis]
        if length % downsample and not (file_ends and whole_ends):
            return False
        if -(-(start + length) // downsample) > file.levels[level].shape[axis]:
            return False
    return True


def level_of(file: PartFacts, downsample: int) -> int:
    """Which level of a file has a downsample."""
    return [level.downsample for level in file.levels].index(downsample)


def in_order(parts: Sequence[Part], overlap: Overlap) -> list[int]:
    """Parts by rank: where the first one has data, the others are not asked.

    Raises:
        UnsupportedImage: 'newest', and a part has no date.
    """
    order = list(range(len(parts)))
    if overlap == "last":
        return order[::-1]
    if overlap == "newest":
        undated = sum(not part.date for part in parts)
        if undated:
            raise UnsupportedImage(
                f"overlap: newest needs the date of every file; {undated} have none: state "
                "'{file: ..., date: 2024-05-01}', or choose another rule"
            )
        return sorted(order, key=lambda index: parts[index].date, reverse=True)
    return order


def covered(parts: Sequence[Part], shape: Shape) -> bool:
    """Whether rectangles leave no pixel of the whole out."""
    places = [part.place for part in parts]
    rows = sorted({0, shape[0], *(v for p in places for v in (p.y0, p.y1))})
    for top, bottom in pairwise(rows):
        reached = 0
        for place in sorted((p for p in places if p.y0 <= top and p.y1 >= bottom), key=_left):
            if place.x0 > reached:
                break
            reached = max(reached, place.x1)
        if reached < shape[1]:
            return False
    return True


def _left(place: Box) -> int:
    return place.x0
