"""From the pixels of a result to the Earth: coordinates of its CRS, longitude and latitude.

Images in degrees of WGS 84 are projected nowhere, and need no other package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from saccade.pipeline.errors import StoreError
from saccade.pipeline.exports.closed_rings import densified
from saccade.pipeline.exports.longitudes import continued
from saccade.pipeline.geometry import Shape
from saccade.pipeline.georeference import Crs, Georeference
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.projecting import Project, Unplaced, projection, taking_rasterio

WGS84 = 4326
SAMPLES = 16
"""A side of the image is looked at in so many parts."""
BEND_PX = 0.1
"""No straight line in degrees may leave the true one by more pixels of the result."""
SLANTED_BEND_PX = 0.001
"""The same of lines that are neither rows nor columns."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Where the corners of a result's pixels are on Earth."""

    place: Georeference
    """Of level 0."""
    crs: Crs
    """Of the coordinates."""
    downsample: float
    """Pixels of level 0 per pixel of the result."""
    shape: Shape
    """Height and width of level 0: a last pixel of the result may reach beyond it."""

    @classmethod
    def of(cls, plan: ImagePlan) -> Ground | None:
        """Of a plan's fused result; None where the image lies nowhere, or in an unknown CRS."""
        place = plan.georeference
        if place is None or place.crs is None:
            return None
        return cls(place, place.crs, plan.last.score_downsample, plan.level_shapes[0])

    def native(self, points: np.ndarray) -> np.ndarray:
        """``(n, 2)``, x and y of pixel corners in the result, as coordinates of the CRS."""
        height, width = self.shape
        level0 = np.minimum(points * float(self.downsample), (width, height))
        if self.place.affine is not None:
            return self.place.affine.place(level0)
        x, y = self._fitted.xy(level0[:, 1], level0[:, 0], offset="ul")
        return np.stack([x, y], axis=1)

    def lonlat(self, points: np.ndarray) -> np.ndarray:
        """The same as degrees of longitude and latitude on WGS 84.

        Raises:
            StoreError: PROJ knows no place for some of them.
            UsageError: rasterio is not installed.
        """
        native = self.native(points)
        if self.crs.epsg == WGS84:
            return native
        with placed_by_proj():
            return self._to_degrees(native)

    def rings(self, rings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Rings in degrees: continued, with points where edges bend.

        Args:
            rings: ``(n, 2)`` integers, x and y of corners of pixels, not closed.
        """
        if self.in_degrees:
            return [self.lonlat(ring) for ring in rings]
        dense = [densified(ring, self.straight_px, self.slanted_px) for ring in rings]
        placed = self.lonlat(np.concatenate(dense))
        bounds = np.cumsum([len(ring) for ring in dense])[:-1]
        return [continued(ring) for ring in np.split(placed, bounds)]

    @property
    def in_degrees(self) -> bool:
        """Whether the image's own grid is one of longitude and latitude."""
        return self.crs.epsg == WGS84 and self.place.affine is not None

    @property
    def straight_px(self) -> int:
        """Pixels of the result that a row or column may be long, as a straight line in degrees."""
        longest, bend = self._bent
        return max(1, math.floor(longest * min(1.0, math.sqrt(BEND_PX / max(bend, 1e-12)))))

    @property
    def slanted_px(self) -> int:
        """The same of a slanted line, to which other corners may be closer than a pixel."""
        longest, bend = self._bent
        return max(1, math.floor(longest * math.sqrt(SLANTED_BEND_PX / max(bend, 1e-12))))

    @cached_property
    def _bent(self) -> tuple[int, float]:
        """A length, in pixels of the result, and by how many lines as long leave the true ones.

        That grows with the square of the length.
        """
        height, width = (max(1, int(side / self.downsample)) for side in self.shape)
        longest = max(1, min(height, width) // SAMPLES)
        rows, columns = (np.linspace(0, side - longest, SAMPLES + 1) for side in (height, width))
        starts = np.stack(np.meshgrid(columns, rows), axis=2).reshape(-1, 2)
        lines = (longest, 0.0), (0.0, longest)
        return longest, max(self._bend(starts, np.array(one)) for one in lines)

    @property
    def decimals(self) -> int:
        """Digits of degrees behind the point, so that a thousandth of a pixel is told."""
        height, width = (side / self.downsample - 1 for side in self.shape)
        at = np.array([(0, 0), (0, height), (width, 0), (width, height), (width / 2, height / 2)])
        corner = self.lonlat(at)
        shrink = np.stack([np.cos(np.radians(corner[:, 1])), np.ones(len(at))], axis=1)
        sides = [shrink * _turn(self.lonlat(at + by) - corner) for by in ((1, 0), (0, 1))]
        least = min(np.hypot(*side.T).min() for side in sides)
        return max(0, math.ceil(3 - math.log10(least)))

    def _bend(self, starts: np.ndarray, by: np.ndarray) -> float:
        """How many pixels, at most, straight lines in degrees leave the true ones by."""
        begin, true = self.lonlat(starts), self.lonlat(starts + by / 2)
        straight = begin + _turn(self.lonlat(starts + by) - begin) / 2
        right = _turn(self.lonlat(starts + by / 2 - (1, 0)) - true)
        below = _turn(self.lonlat(starts + by / 2 - (0, 1)) - true)
        pixels = np.stack([right, below], axis=2)
        # lstsq would hide a pole, where degrees tell no direction
        usable = np.abs(np.linalg.det(pixels)) > 0
        error = np.linalg.solve(pixels[usable], _turn(straight - true)[usable, :, None])
        return float(np.abs(error).max(initial=0.0))

    @cached_property
    def _to_degrees(self) -> Project:
        with taking_rasterio(f"longitude and latitude of an image in {self.crs}"):
            return projection(self.crs, Crs(WGS84))

    @cached_property
    def _fitted(self) -> Any:
        """GDAL's polynomial through the control points."""
        with taking_rasterio("an image with control points alone"):
            from rasterio.control import GroundControlPoint
            from rasterio.transform import GCPTransformer
        known = self.place.control_points
        points = [GroundControlPoint(p.row, p.column, p.x, p.y, p.z) for p in known]
        return GCPTransformer(points)


@contextmanager
def placed_by_proj() -> Iterator[None]:
    """Takes what PROJ can't do for the fault of the image's georeference.

    Raises:
        StoreError: PROJ does not know a CRS, or has no place in it for some corner.
    """
    try:
        yield
    except Unplaced as error:
        raise StoreError(
            f"{error}; state the right coordinate system and transform in the image, as with "
            "'gdal_edit.py -a_srs EPSG:NUMBER IMAGE', and run again"
        ) from error


def _turn(differences: np.ndarray) -> np.ndarray:
    """Differences of longitude as the shorter way around."""
    lon = (differences[:, 0] + 180.0) % 360.0 - 180.0
    return np.stack([lon, differences[:, 1]], axis=1)
