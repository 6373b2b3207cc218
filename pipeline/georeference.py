"""Where on Earth an image's pixels lie: an affine or ground control points, and a CRS. Pure.

Places in the image are those of pixel corners: column 0, row 0 is the outer corner of the first
pixel. A file that means the centres of pixels (PixelIsPoint) has been shifted by its reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Affine:
    """From columns and rows to coordinates of a CRS: ``x = a * column + b * row + c``, and so y.

    The six numbers stand in the order of the first two rows of the matrix, as rasterio has them.
    """

    a: float
    """Change of x from one column to the next; the width of a pixel where nothing is rotated."""
    b: float
    """Change of x from one row to the next."""
    c: float
    """x of the outer corner of the first pixel."""
    d: float
    """Change of y from one column to the next."""
    e: float
    """Change of y from one row to the next; negative where north is up."""
    f: float
    """y of the outer corner of the first pixel."""

    def __post_init__(self) -> None:
        numbers = (self.a, self.b, self.c, self.d, self.e, self.f)
        if not all(map(math.isfinite, numbers)) or self.determinant == 0:
            raise ValueError(f"an affine that can be inverted expected; found {numbers}")

    @property
    def determinant(self) -> float:
        """Area of a pixel, negative where north is up and east is right."""
        return self.a * self.e - self.b * self.d

    @property
    def north_up(self) -> bool:
        """Whether rows run southwards and columns eastwards."""
        return self.b == self.d == 0 and self.a > 0 > self.e

    def place(self, points: np.ndarray) -> np.ndarray:
        """``(n, 2)`` columns and rows as ``(n, 2)`` float64 x and y."""
        column, row = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
        x = self.a * column + self.b * row + self.c
        return np.stack([x, self.d * column + self.e * row + self.f], axis=1)

    def inverse(self) -> Affine:
        """From coordinates to columns and rows."""
        a, b, d, e = (v / self.determinant for v in (self.e, -self.b, -self.d, self.a))
        return Affine(a, b, -a * self.c - b * self.f, d, e, -d * self.c - e * self.f)

    def scaled(self, y: float, x: float) -> Affine:
        """Of an array whose pixels are so many times higher and wider, with the same corner."""
        return Affine(self.a * x, self.b * y, self.c, self.d * x, self.e * y, self.f)

    def moved(self, row: float, column: float) -> Affine:
        """Of an array whose first pixel is this row and column."""
        ((x, y),) = self.place(np.array([[column, row]]))
        return Affine(self.a, self.b, float(x), self.d, self.e, float(y))

    def to_tuple(self) -> tuple[float, float, float, float, float, float]:
        """The six numbers, in rasterio's order."""
        return self.a, self.b, self.c, self.d, self.e, self.f


@dataclass(frozen=True, slots=True)
class Crs:
    """A coordinate reference system, by its number or by its text."""

    epsg: int | None = None
    """Number in the EPSG registry."""
    wkt: str | None = None
    """OGC WKT 2, where there is no number, or where a reader knows it anyway."""
    geographic: bool = False
    """Whether coordinates are degrees of longitude and latitude."""
    unit_m: float = 1.0
    """Metres per unit of a projected one."""

    def __post_init__(self) -> None:
        if self.epsg is None and not self.wkt:
            raise ValueError("a CRS has an EPSG number or a WKT; found neither")

    def __str__(self) -> str:
        if self.epsg is not None:
            return f"EPSG:{self.epsg}"
        return (self.wkt or "").split('"')[1] if '"' in (self.wkt or "") else "user-defined CRS"

    @property
    def user_input(self) -> str:
        """What PROJ and rasterio take for it."""
        return f"EPSG:{self.epsg}" if self.epsg is not None else str(self.wkt)


def same_crs(one: Crs | None, other: Crs | None) -> bool:
    """Whether two are the same by their numbers, or by their texts where one has no number."""
    if one is None or other is None:
        return one is other
    if one.epsg is not None and other.epsg is not None:
        return one.epsg == other.epsg
    return one.wkt is not None and one.wkt == other.wkt


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A place in the image whose coordinates are known."""

    column: float
    row: float
    x: float
    y: float
    z: float = 0.0


@dataclass(frozen=True, slots=True)
class Georeference:
    """How the pixels of level 0 lie on the ground."""

    crs: Crs | None = None
    """Of the coordinates; None where the file gives coordinates without one."""
    affine: Affine | None = None
    """From corners of pixels to coordinates; None where only control points are known."""
    control_points: tuple[ControlPoint, ...] = ()
    """Instead of an affine: places that are known."""

    def __post_init__(self) -> None:
        if self.affine is None and not self.control_points:
            raise ValueError("a georeference has an affine or control points; found neither")

    def at(self, downsample: float) -> Georeference:
        """Of an array whose pixels are so many times larger, with the same first corner."""
        if self.affine is not None:
            return Georeference(self.crs, self.affine.scaled(downsample, downsample))
        points = tuple(
            ControlPoint(p.column / downsample, p.row / downsample, p.x, p.y, p.z)
            for p in self.control_points
        )
        return Georeference(self.crs, None, points)

    def moved(self, row: int, column: int) -> Georeference:
        """Of an array whose first pixel is this row and column."""
        if self.affine is not None:
            return Georeference(self.crs, self.affine.moved(row, column))
        points = tuple(
            replace(p, column=p.column - column, row=p.row - row) for p in self.control_points
        )
        return Georeference(self.crs, None, points)

    def to_dict(self) -> dict[str, Any]:
        """As written to plans and results."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Georeference:
        """The inverse of ``to_dict``, also after a journey through JSON."""
        return cls(
            Crs(**tree["crs"]) if tree["crs"] else None,
            Affine(**tree["affine"]) if tree["affine"] else None,
            tuple(ControlPoint(**point) for point in tree["control_points"]),
        )
