"""Boxes and grids: where things are. Pure integers; knows no pixels, files or models.

Axis order is ``(y, x)`` everywhere in saccade; arrays are ``HWC`` on the host and ``NCHW`` on a
device; boxes are half-open and integer. A margin (halo) is one non-negative number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open rectangle ``[y0, y1) x [x0, x1)`` of whole pixels."""

    y0: int
    """First row."""
    x0: int
    """First column."""
    y1: int
    """One past the last row; never less than ``y0``."""
    x1: int
    """One past the last column; never less than ``x0``."""

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise ValueError(f"a box ends where it starts or later; found {self}")

    @classmethod
    def of(cls, shape: Shape) -> Box:
        """The box of a whole array of this shape."""
        return cls(0, 0, *shape)

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def shape(self) -> Shape:
        """``(height, width)``."""
        return (self.height, self.width)

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array whose last or first two axes are ``(y, x)``."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))

    def as_tuple(self) -> tuple[int, int, int, int]:
        """``(y0, x0, y1, x1)``, the order in which boxes are written to files."""
        return (self.y0, self.x0, self.y1, self.x1)

    def grow(self, margin_px: int) -> Box:
        """This box with a margin on all four sides."""
        m = margin_px
        return Box(self.y0 - m, self.x0 - m, self.y1 + m, self.x1 + m)

    def shift(self, dy: int, dx: int) -> Box:
        """This box moved by whole pixels."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def relative_to(self, outer: Box) -> Box:
        """This box in the frame whose origin is the corner of ``outer``."""
        return self.shift(-outer.y0, -outer.x0)

    def scale(self, factor: int) -> Box:
        """This box in the frame of an array that is ``factor`` times finer."""
        f = factor
        return Box(self.y0 * f, self.x0 * f, self.y1 * f, self.x1 * f)

    def reduce(self, factor: int) -> Box:
        """The smallest box, in an array ``factor`` times coarser, that covers this one."""
        f = factor
        return Box(self.y0 // f, self.x0 // f, -(-self.y1 // f), -(-self.x1 // f))

    def intersect(self, other: Box) -> Box:
        """The common part; a box of no area where there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.y0, other.y0),
            min(self.x0, other.x0),
            max(self.y1, other.y1),
            max(self.x1, other.x1),
        )

    def clip(self, shape: Shape) -> Box:
        """The part of this box that lies inside an array of this shape."""
        return self.intersect(Box.of(shape))

    def halves(self) -> tuple[Box, Box]:
        """The two parts of this box, cut across its longer side."""
        if self.height >= self.width:
            y = (self.y0 + self.y1) // 2
            return Box(self.y0, self.x0, y, self.x1), Box(y, self.x0, self.y1, self.x1)
        x = (self.x0 + self.x1) // 2
        return Box(self.y0, self.x0, self.y1, x), Box(self.y0, x, self.y1, self.x1)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share a pixel."""
        return self.intersect(other).area > 0

    def contains(self, other: Box) -> bool:
        """Whether every pixel of ``other`` lies in this box."""
        return (
            self.y0 <= other.y0
            and self.x0 <= other.x0
            and other.y1 <= self.y1
            and other.x1 <= self.x1
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """An array cut into square tiles from its corner; edge tiles are cut off at the array's edge.

    Every pixel lies in exactly one tile. Tiles are numbered row by row.
    """

    shape: Shape
    """Height and width of the array, in pixels; both positive."""
    tile_px: int
    """Side of a whole tile, in pixels; positive."""

    def __post_init__(self) -> None:
        if min(*self.shape, self.tile_px) <= 0:
            raise ValueError(f"a grid needs a positive shape and tile; found {self}")

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.shape[0] // self.tile_px)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.shape[1] // self.tile_px)

    def __len__(self) -> int:
        return self.rows * self.columns

    def box(self, index: int) -> Box:
        """The tile with this number, in pixels."""
        return self.span(Box(*self.cell(index), *(c + 1 for c in self.cell(index))))

    def cell(self, index: int) -> tuple[int, int]:
        """Row and column of the tile with this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of a grid of {len(self)}")
        return divmod(index, self.columns)

    def index(self, row: int, column: int) -> int:
        """The number of the tile at this row and column."""
        return row * self.columns + column

    def indices(self, cells: Box) -> Iterator[int]:
        """The numbers of a rectangle of tiles (in tile coordinates), row by row."""
        for row in range(cells.y0, cells.y1):
            yield from range(self.index(row, cells.x0), self.index(row, cells.x1))

    def span(self, cells: Box) -> Box:
        """The pixels of a rectangle of tiles, cut off at the array's edge."""
        return cells.scale(self.tile_px).clip(self.shape)

    def cells_touching(self, box: Box) -> Box:
        """The rectangle of tiles (in tile coordinates) that share a pixel with ``box``."""
        inside = box.clip(self.shape)
        return inside.reduce(self.tile_px) if inside.area else Box(0, 0, 0, 0)

    def areas(self) -> np.ndarray:
        """``(rows, columns)`` int64: pixels of each tile."""
        heights = np.full(self.rows, self.tile_px)
        widths = np.full(self.columns, self.tile_px)
        heights[-1] = self.shape[0] - (self.rows - 1) * self.tile_px
        widths[-1] = self.shape[1] - (self.columns - 1) * self.tile_px
        return np.outer(heights, widths)

    def __iter__(self) -> Iterator[Box]:
        return (self.box(index) for index in range(len(self)))


def fixed_size_window(core: Box, margin_px: int, size: Shape, shape: Shape, multiple: int) -> Box:
    """The box of ``size`` to read for ``core``, so that every window of a pass has one shape.

    It holds the core and its margin wherever the image has them. At the image's edges it moves
    inwards instead of padding, so that a model meets the true edge exactly where a forward pass
    over the whole image would, and its origin stays a multiple of ``multiple``.

    Args:
        core: the pixels that the window answers for.
        margin_px: the halo wanted around them.
        size: height and width of the window; at least core and margins, rounded up to ``multiple``.
        shape: the array's height and width, each a multiple of ``multiple``.
        multiple: what the model's input sizes and origins are multiples of.
    """
    y0 = _fixed_span(core.y0, margin_px, size[0], shape[0], multiple)
    x0 = _fixed_span(core.x0, margin_px, size[1], shape[1], multiple)
    return Box(y0, x0, y0 + min(size[0], shape[0]), x0 + min(size[1], shape[1]))


def _fixed_span(start: int, margin_px: int, size: int, length: int, multiple: int) -> int:
    wanted = (start - margin_px) // multiple * multiple
    return max(0, min(wanted, length - size))


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not less than ``value``."""
    return -(-value // multiple) * multiple
