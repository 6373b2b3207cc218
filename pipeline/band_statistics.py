"""Statistics of an image's bands over valid samples, gathered piece by piece. Pure numpy.

Percentiles are exact, in bounded memory: samples are counted by the upper 16 bits of a key that
sorts as they do, and where that does not tell them all (wider types) counted again by the lower
16 bits of the few keys that matter. Floats and wide integers count as float32, as a model sees
them. Knows no file and no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DIGIT = 1 << 16
"""Values of half a key."""
SIGN = np.uint32(0x8000_0000)


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """One band of an image over its valid samples; zeros where there is none."""

    valid_px: int
    """Samples counted; those that are not finite are left out."""
    mean: float
    """Of them."""
    std: float
    """Their standard deviation (of all of them: divided by their number)."""
    percentiles: tuple[tuple[float, float], ...] = ()
    """Percent and sample, linear between neighbours, for those that were asked for."""

    def percentile(self, percent: float) -> float:
        """The sample at a percentile that was asked for."""
        return dict(self.percentiles)[percent]

    def scaled(self, scale: float, offset: float) -> BandStatistics:
        """Of the same samples times ``scale``, plus ``offset``."""
        turned = [(p if scale >= 0 else 100 - p, v * scale + offset) for p, v in self.percentiles]
        mean, std = self.mean * scale + offset, self.std * abs(scale)
        return BandStatistics(self.valid_px, mean, std, tuple(sorted(turned)))

    def to_dict(self) -> dict[str, Any]:
        """As kept in the image's plan."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> BandStatistics:
        """The inverse of ``to_dict``, through JSON as well."""
        pairs = tuple((float(percent), float(value)) for percent, value in tree["percentiles"])
        return cls(**tree | {"percentiles": pairs})


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether 16 bits tell all samples of a type, so that counting once is enough."""
    return dtype.kind in "biu" and dtype.itemsize <= 2


class BandTally:
    """What is known of one band so far.

    Give it all samples with ``add``; where ``wants_more`` then says so, all of them once more.
    """

    def __init__(self, dtype: np.dtype[Any], percents: Sequence[float] = ()) -> None:
        self._narrow, self._percents = is_narrow(dtype), tuple(sorted(set(percents)))
        self._offset = _offset(dtype)
        self._count, self._mean, self._spread = 0, 0.0, 0.0
        self._upper = np.zeros(DIGIT if percents else 0, np.int64)
        self._lower: dict[int, np.ndarray] | None = None

    @property
    def wants_more(self) -> bool:
        """Whether all samples are to be given again, for the lower halves of their keys."""
        more = self._percents and not self._narrow and self._lower is None and self._count
        if more:
            uppers = {self._upper_of(rank)[0] for rank in self._ranks}
            self._lower = {upper: np.zeros(DIGIT, np.int64) for upper in uppers}
        return bool(more)

    def add(self, samples: np.ndarray) -> None:
        """Count samples, ``(n,)`` of the band's dtype; those that are not finite are left out."""
        if samples.dtype.kind == "f":
            samples = samples[np.isfinite(samples)]
        if not samples.size:
            return
        if self._lower is not None:
            self._count_lower(samples)
            return
        self._add_moments(samples)
        if self._percents:
            digits = _keys(samples) if self._narrow else _keys(samples) >> 16
            self._upper += np.bincount(digits, minlength=DIGIT)

    def _add_moments(self, samples: np.ndarray) -> None:
        """Mean and squared deviations of two parts together (Chan, Golub and LeVeque, 1979)."""
        values = samples.astype(np.float64)
        mean, count = float(values.mean()), len(values)
        spread = float(np.square(values - mean).sum())
        total, apart = self._count + count, mean - self._mean
        self._spread += spread + apart**2 * self._count * count / total
        self._mean += apart * count / total
        self._count = total

    def _count_lower(self, samples: np.ndarray) -> None:
        assert self._lower is not None
        keys = _keys(samples)
        upper = keys >> 16
        for digit, counts in self._lower.items():
            counts += np.bincount(keys[upper == digit] & 0xFFFF, minlength=DIGIT)

    @property
    def _ranks(self) -> set[int]:
        """Positions, in ascending order of samples, that the percentiles lie at or between."""
        places = [percent / 100 * (self._count - 1) for percent in self._percents]
        return {int(place) for place in places} | {int(np.ceil(place)) for place in places}

    def _upper_of(self, rank: int) -> tuple[int, int]:
        """Upper half of the key at a rank, and the samples below that half."""
        ends = np.cumsum(self._upper)
        digit = int(np.searchsorted(ends, rank, side="right"))
        return digit, int(ends[digit - 1]) if digit else 0

    def _sample_at(self, rank: int) -> float:
        digit, below = self._upper_of(rank)
        if self._narrow:
            return float(digit - self._offset)
        assert self._lower is not None
        lower = np.searchsorted(np.cumsum(self._lower[digit]), rank - below, side="right")
        return _sample_of(digit << 16 | int(lower))

    def result(self) -> BandStatistics:
        """The statistics of all samples given."""
        if not self._count:
            return BandStatistics(0, 0.0, 0.0, tuple((p, 0.0) for p in self._percents))
        found = []
        for percent in self._percents:
            place = percent / 100 * (self._count - 1)
            low, high = self._sample_at(int(place)), self._sample_at(int(np.ceil(place)))
            found.append((percent, low + (high - low) * (place - int(place))))
        std = float(np.sqrt(self._spread / self._count))
        return BandStatistics(self._count, self._mean, std, tuple(found))


def _keys(samples: np.ndarray) -> np.ndarray:
    """``(n,)`` numbers that sort as samples do: below 2**16 of narrow types, else below 2**32."""
    if is_narrow(samples.dtype):
        return samples.astype(np.int32) + _offset(samples.dtype)
    bits = samples.astype(np.float32).view(np.uint32)
    keys: np.ndarray = np.where(bits & SIGN, ~bits, bits | SIGN)
    return keys.astype(np.int64)


def _offset(dtype: np.dtype[Any]) -> int:
    """What makes the lowest sample of a narrow type 0."""
    return 1 << (8 * dtype.itemsize - 1) if dtype.kind == "i" else 0


def _sample_of(key: int) -> float:
    """The float32 of a key."""
    bits = np.uint32(key)
    bits = bits ^ SIGN if bits & SIGN else ~bits
    return float(np.array([bits], np.uint32).view(np.float32)[0])
