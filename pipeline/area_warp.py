"""Polygons from one CRS to the pixels of an image in another; edges that bend get more corners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saccade.pipeline.area import MOST_VERTICES, Polygon
from saccade.pipeline.errors import UsageError
from saccade.pipeline.georeference import Crs, Georeference, same_crs
from saccade.pipeline.projecting import Project, Unplaced, projection, taking_rasterio

OFF_PX = 0.05
"""Edges that are straight in the area's CRS may leave their true place in the image by so much."""
MOST_HALVINGS = 24


def in_pixels(polygons: Sequence[Polygon], crs: Crs, place: Georeference) -> list[Polygon]:
    """Polygons in pixels of level 0: an edge that bends on the way is cut into straight ones.

    Args:
        polygons: in coordinates of ``crs``, x (longitude) first.
        crs: theirs.
        place: of the image; it has an affine and a CRS.

    Raises:
        UsageError: a place can't be told in the image's CRS, or rasterio is needed and absent.
    """
    assert place.affine is not None
    assert place.crs is not None
    to_pixels = place.affine.inverse()
    if same_crs(crs, place.crs):
        return [tuple(map(to_pixels.place, polygon)) for polygon in polygons]
    warp = _warp(crs, place.crs)

    def project(points: np.ndarray) -> np.ndarray:
        return to_pixels.place(warp(points))

    return [tuple(_bent(ring, project) for ring in polygon) for polygon in polygons]


def _warp(crs: Crs, other: Crs) -> Project:
    both = f"an area in {crs} over an image in {other}"
    with taking_rasterio(both, f"convert the area to {other}"):
        try:
            warp = projection(crs, other)
        except Unplaced as error:
            raise UsageError(f"{both}: {error}") from error

    def project(points: np.ndarray) -> np.ndarray:
        try:
            return warp(points)
        except Unplaced as error:
            raise UsageError(
                f"a place of the area in {crs} can't be told in {other}: {error}; cut the area to "
                "the surroundings of the images"
            ) from error

    return project


def _bent(ring: np.ndarray, project: Project) -> np.ndarray:
    """A ring in pixels, with vertices added until no edge is off."""
    pixels = project(ring)
    for _ in range(MOST_HALVINGS):
        off = _off(ring, pixels, project)
        bent = np.flatnonzero(off > OFF_PX)
        if not len(bent) or len(ring) + len(bent) > MOST_VERTICES:
            break
        middles = (ring[bent] + ring[bent + 1]) / 2
        ring = np.insert(ring, bent + 1, middles, axis=0)
        pixels = np.insert(pixels, bent + 1, project(middles), axis=0)
    return pixels


def _off(ring: np.ndarray, pixels: np.ndarray, project: Project) -> np.ndarray:
    """By how many pixels each edge leaves its true place, at three places along it."""
    off = np.zeros(len(ring) - 1)
    for share in (0.25, 0.5, 0.75):
        true = project(ring[:-1] + (ring[1:] - ring[:-1]) * share)
        straight = pixels[:-1] + (pixels[1:] - pixels[:-1]) * share
        off = np.maximum(off, np.hypot(*(true - straight).T))
    return off
