"""What the samples of one image become before a pass's model: frozen numbers, one per band. Pure.

Measured or stated once per image and kept with its plan, so that every tile, worker and resumed run
sees the same; never per tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from saccade.pipeline.band_statistics import BandStatistics
from saccade.pipeline.errors import RecipeError
from saccade.pipeline.normalising import (
    ByDeviation,
    ByPercentiles,
    Fixed,
    Nodata,
    Normalise,
    spread,
)
from saccade.pipeline.sources.bands import Band
from saccade.pipeline.sources.base import Source


@dataclass(frozen=True, slots=True)
class Inputs:
    """What samples become: ``(sample - zero) / unit``, per band."""

    zero: tuple[float, ...] = ()
    """Sample that becomes 0; empty where samples are divided by the model's scale instead."""
    unit: tuple[float, ...] = ()
    """Samples from there that make 1; positive."""
    clip: bool = False
    """Whether what lies outside of [0, 1] is cut."""
    fill: tuple[float, ...] = ()
    """Sample that stands where there is no data; empty keeps what is stored there."""

    def to_dict(self) -> dict[str, Any]:
        """As written to the image's plan."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any] | None) -> Inputs:
        """The inverse of ``to_dict``, through JSON as well; the default of plans without any."""
        if tree is None:
            return cls()
        return cls(**tree | {key: tuple(tree[key]) for key in ("zero", "unit", "fill")})

    def filled(self, pixels: np.ndarray, present: np.ndarray | None) -> np.ndarray:
        """Pixels whose samples without data are replaced; the array itself where there are none.

        Args:
            pixels: ``(h, w, bands)`` as read.
            present: ``(h, w, bands)`` or ``(h, w, 1)`` bool, samples that hold data; None where
                all do.

        Returns:
            The same dtype: of integers the fill is rounded. NaN is never kept, whatever is asked:
            without a fill it becomes 0.
        """
        if not self.fill or present is None:
            return without_nan(pixels)
        fill = np.array(self.fill)
        stand_in = (np.rint(fill) if pixels.dtype.kind in "iu" else fill).astype(pixels.dtype)
        whole: np.ndarray = np.where(present, pixels, stand_in)
        return whole


AS_STORED = Inputs()
"""Samples divided by the model's scale."""


def without_nan(pixels: np.ndarray) -> np.ndarray:
    """The pixels with 0 for NaN, one of which would turn every score within its reach into NaN."""
    if pixels.dtype.kind != "f" or not np.isnan(pixels).any():
        return pixels
    whole: np.ndarray = np.where(np.isnan(pixels), pixels.dtype.type(0), pixels)
    return whole


def may_lack_data(source: Source) -> bool:
    """Whether pixels of an image can be without data; only then is it asked of every window."""
    return source.lacks_data


def percents_of(normalise: Sequence[Normalise | None], bands: Sequence[Band]) -> tuple[float, ...]:
    """Percentiles that normalisations ask for; of a band that scaling turns round, both ends."""
    asked = [one for one in normalise if isinstance(one, ByPercentiles)]
    percents = {percent for one in asked for percent in (one.low, one.high)}
    if any(band.scale < 0 for band in bands):
        percents |= {100 - percent for percent in percents}
    return tuple(sorted(percents))


def needs_statistics(normalise: Normalise | None, nodata: Nodata, lacks: bool) -> bool:
    """Whether a model's inputs depend on the image's statistics."""
    stated = isinstance(normalise, Fixed)
    filled = lacks and nodata == "fill" and not (isinstance(normalise, Fixed) and normalise.mean)
    return filled or (normalise is not None and not stated)


def inputs_of(
    normalise: Normalise | None,
    nodata: Nodata,
    bands: int,
    statistics: Sequence[BandStatistics] | None,
) -> Inputs:
    """What a model's recipe says, in numbers for one image.

    Args:
        normalise: what samples become; None leaves them to the model's scale.
        nodata: what stands where there is no data.
        bands: of the image.
        statistics: of every band, where ``needs_statistics``; else None.

    Raises:
        RecipeError: fixed values are not one, or one per band.
    """
    known = statistics or ()
    zero, unit = _scaling(normalise, bands, known)
    fill: tuple[float, ...] = ()
    if nodata == "fill":
        stated = isinstance(normalise, Fixed) and normalise.mean is not None
        fill = zero if stated else tuple(band.mean for band in known)
    clip = isinstance(normalise, ByPercentiles) or (
        isinstance(normalise, Fixed) and normalise.low is not None
    )
    return Inputs(zero, unit, clip, fill)


Pair = tuple[tuple[float, ...], tuple[float, ...]]


def _scaling(normalise: Normalise | None, bands: int, known: Sequence[BandStatistics]) -> Pair:
    """Zero and unit of every band; a band that is the same all over becomes 0."""
    if isinstance(normalise, Fixed):
        return _fixed(normalise, bands)
    if isinstance(normalise, ByPercentiles):
        low = tuple(band.percentile(normalise.low) for band in known)
        high = tuple(band.percentile(normalise.high) for band in known)
        return low, tuple(b - a or 1.0 for a, b in zip(low, high, strict=True))
    if isinstance(normalise, ByDeviation):
        return tuple(band.mean for band in known), tuple(band.std or 1.0 for band in known)
    return (), ()


def _fixed(normalise: Fixed, bands: int) -> Pair:
    first, second = normalise.pair
    for values in (first, second):
        if len(values) not in (1, bands):
            raise RecipeError(
                f"normalise: one value, or one per band ({bands}) expected; found {len(values)}"
            )
    first, second = spread(first, bands), spread(second, bands)
    if normalise.low is None:
        return first, second
    return first, tuple(b - a for a, b in zip(first, second, strict=True))
