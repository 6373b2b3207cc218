"""From one CRS to another: PROJ's door, which is rasterio. Knows no image, no area, no format.

What PROJ can't do is told as ``Unplaced``; whoever asked says whose fault it is and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from saccade.pipeline.errors import UsageError
from saccade.pipeline.georeference import Crs

BATCH_POINTS = 2**16
"""So many are handed to PROJ at once."""

Project = Callable[[np.ndarray], np.ndarray]
"""``(n, 2)`` float64 places, x (longitude) first, to the same in another CRS; all are finite."""


class Unplaced(ValueError):
    """PROJ does not know a CRS, or where something lies in it."""


@contextmanager
def taking_rasterio(what: str, instead: str = "") -> Iterator[None]:
    """Tells it in our words where rasterio, imported inside, is not installed.

    Args:
        what: can't be done without.
        instead: what else would do.

    Raises:
        UsageError: it is not.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{what} takes rasterio, which is not installed: pip install 'saccade[geo]'"
            f"{instead and ', or ' + instead}"
        ) from error


@contextmanager
def known_to_proj(crs: Crs) -> Iterator[None]:
    """Tells it in our words where PROJ does not know a CRS.

    Raises:
        Unplaced: it does not.
    """
    try:
        yield
    except ValueError as error:  # rasterio's error is one
        raise Unplaced(
            f"{crs}: a coordinate system that PROJ knows expected; found {_words(error)}"
        ) from error


def projection(source: Crs, target: Crs) -> Project:
    """What projects places; rasterio is installed.

    Raises:
        Unplaced: PROJ does not know one of them; of what is returned, that it has no coordinates
            for some place.
    """
    known, wanted = _in_rasterio(source), _in_rasterio(target)

    def project(points: np.ndarray) -> np.ndarray:
        batches = range(0, max(1, len(points)), BATCH_POINTS)
        parts = [_projected(known, wanted, points[at : at + BATCH_POINTS]) for at in batches]
        return np.concatenate(parts)

    return project


def _in_rasterio(crs: Crs) -> Any:
    from rasterio.crs import CRS

    with known_to_proj(crs):
        return CRS.from_user_input(crs.user_input)


def _projected(source: Any, target: Any, points: np.ndarray) -> np.ndarray:
    from rasterio import warp

    try:
        x, y = warp.transform(source, target, points[:, 0], points[:, 1])[:2]
    except Exception as error:  # rasterio lets GDAL's own errors through, of private classes
        raise Unplaced(_words(error)) from error
    out = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)
    finite = np.isfinite(out).all(axis=1)
    if not finite.all():
        x0, y0 = points[~finite][0]
        raise Unplaced(f"({x0:g}, {y0:g})")
    return out


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
