"""Reducing pixels by area averaging, so that a value depends on its absolute place only.

Output pixel ``i`` covers ``[i * f, (i + 1) * f)`` of the input along each axis. Sums are taken one
tap after the other, elementwise, so their order (and every bit) is the same in any window. Knows no
source: arrays in, arrays out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.sources.bands import Samples

SLACK = 1e-9
"""Overlaps below this share of an input pixel are rounding, not area."""
MIN_VALID_SHARE = 1e-6
"""Share of a pixel's area that must hold data for the pixel to hold any."""

BAND_SAMPLES = 1 << 20
"""Input samples that are in work at a time; intermediate sums are up to eight bytes each."""

Taps = list[tuple[np.ndarray, np.ndarray]]


def source_span(start: int, stop: int, factor: float, length: int) -> tuple[int, int]:
    """First and one-past-last input pixel under output pixels ``[start, stop)``."""
    if start == stop:
        return (0, 0)
    first = math.floor(start * factor + SLACK)
    last = math.ceil(stop * factor - SLACK)
    return (min(first, length - 1), min(last, length))


def reduce_area(pixels: np.ndarray, box: Box, factor: float, shape: Shape) -> np.ndarray:
    """Average input pixels, all of which hold data, into a box of the output.

    Args:
        pixels: ``(h, w, channels)``: the ``source_span`` of the box along each axis.
        box: in output pixels.
        factor: input pixels per output pixel, above 1.
        shape: height and width of the whole input.

    Returns:
        ``(height, width, channels)`` of the dtype of ``pixels``; integers rounded half to even.
    """
    return reduce_valid(Samples(pixels, None), box, factor, shape, np.zeros(1)).pixels


def reduce_valid(
    samples: Samples,
    box: Box,
    factor: float,
    shape: Shape,
    fills: np.ndarray,
    dtype: np.dtype[Any] | None = None,
) -> Samples:
    """Average those input samples that hold data into a box of the output.

    Args:
        samples: of the ``source_span`` of the box along each axis.
        box: in output pixels.
        factor: input pixels per output pixel, above 1.
        shape: height and width of the whole input.
        fills: per channel, what a pixel that covers no data is set to.
        dtype: of the means; by default that of the input.

    Returns:
        ``(height, width, channels)`` of ``dtype``; integers rounded half to even. A pixel holds
        data where any sample that it covers does.
    """
    pixels, known = samples
    dtype = pixels.dtype if dtype is None else dtype
    out = np.empty((*box.shape, pixels.shape[2]), dtype)
    valid = None if known is None else np.ones((*box.shape, known.shape[2]), bool)
    columns = _Axis(box.x0, box.x1, factor, shape[1])
    top = source_span(box.y0, box.y1, factor, shape[0])[0]
    step = max(1, int(BAND_SAMPLES / (pixels[0].size * factor)))
    for y0 in range(box.y0, box.y1, step):
        rows = _Axis(y0, min(y0 + step, box.y1), factor, shape[0])
        source = slice(rows.span[0] - top, rows.span[1] - top)
        part = slice(y0 - box.y0, rows.stop - box.y0)
        band = pixels[source]
        if known is None or valid is None or known[source].all():
            out[part] = _mean_of_all(_sum(band, rows, columns), rows, columns, dtype)
        else:
            some = _mean_of_some(band, known[source], rows, columns, fills.astype(dtype))
            out[part], valid[part] = some
    return Samples(out, valid)


def _mean_of_some(
    pixels: np.ndarray, valid: np.ndarray, rows: _Axis, columns: _Axis, fills: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    total = _sum(np.where(valid, pixels, np.zeros((), pixels.dtype)), rows, columns)
    area = _sum(valid, rows, columns).astype(np.float64)
    empty = area <= MIN_VALID_SHARE * rows.factor**2
    area[empty] = 1.0
    mean = _rounded(total / area, fills.dtype)
    np.copyto(mean, fills, where=empty)
    return mean, ~empty


@dataclass(frozen=True)
class _Axis:
    """How one axis is reduced: outputs ``[start, stop)`` of an input of ``length`` pixels."""

    start: int
    stop: int
    factor: float
    length: int

    @property
    def whole(self) -> int | None:
        """The factor, where it is a whole number."""
        return int(self.factor) if float(self.factor).is_integer() else None

    @property
    def span(self) -> tuple[int, int]:
        """First and one-past-last input pixel."""
        return source_span(self.start, self.stop, self.factor, self.length)

    def counts(self) -> list[tuple[slice, int]]:
        """Input pixels per output of a whole factor: of all, but for a last one that has fewer."""
        number, each = self.stop - self.start, int(self.factor)
        last = self.length - (self.stop - 1) * each
        if last >= each:
            return [(slice(0, number), each)]
        return [(slice(0, number - 1), each), (slice(number - 1, number), last)]

    def taps(self) -> Taps:
        """Per tap, for each output: the input pixel, relative to the span, and its weight."""
        first, last = self.span
        index = np.arange(self.start, self.stop, dtype=np.float64)
        low, high = index * self.factor, np.minimum((index + 1) * self.factor, self.length)
        begin = np.floor(low + SLACK).astype(np.int64)
        taps: Taps = []
        for tap in range(math.ceil(self.factor) + 1):
            pixel = begin + tap
            weight = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
            weight = np.where((weight > SLACK) & (pixel < last), weight, 0.0)
            taps.append((np.minimum(pixel, last - 1) - first, weight))
        return taps


def _sum(pixels: np.ndarray, rows: _Axis, columns: _Axis) -> np.ndarray:
    """Weighted sums over the area of each output: integers stay exact where the factor is whole."""
    whole = rows.whole
    if whole is not None:
        down = _sum_rows(pixels, whole, _accumulator(pixels.dtype, whole))
        return _sum_columns(down, whole, _accumulator(pixels.dtype, whole**2))
    return _sum_taps(_sum_taps(pixels, rows.taps(), 0), columns.taps(), 1)


def _mean_of_all(
    total: np.ndarray, rows: _Axis, columns: _Axis, dtype: np.dtype[Any]
) -> np.ndarray:
    """The sums by the areas they were taken over, all of which holds data."""
    if dtype.kind == "f" or rows.whole is None or total.dtype.itemsize > 4:
        return _rounded(total / _full_area(rows, columns), dtype)
    mean = np.empty(total.shape, dtype)
    for y, height in rows.counts():
        for x, width in columns.counts():
            mean[y, x] = _divided(total[y, x], height * width)
    return mean


def _divided(total: np.ndarray, area: int) -> np.ndarray:
    """Integers by one integer, rounded half to even; twice a total fits in twice the bits."""
    wide = np.dtype(f"{total.dtype.kind}{total.itemsize * 2}")
    doubled = total.astype(wide) * 2 + area
    mean: np.ndarray = doubled // (2 * area)
    mean -= (mean * (2 * area) == doubled) & (mean & 1).astype(bool)
    return mean


def _full_area(rows: _Axis, columns: _Axis) -> np.ndarray:
    """``_sum`` of ones, bit for bit: ``(height, width, 1)`` float64."""
    ones = np.ones((rows.span[1] - rows.span[0], 1, 1), bool)
    whole = rows.whole
    if whole is not None:
        height, width = (
            np.concatenate([np.full(at.stop - at.start, float(n)) for at, n in axis.counts()])
            for axis in (rows, columns)
        )
        area: np.ndarray = np.multiply.outer(height, width)[:, :, None]
        return area
    down = _sum_taps(ones, rows.taps(), 0)
    return _sum_taps(down, [(np.zeros_like(p), w) for p, w in columns.taps()], 1)


def _accumulator(dtype: np.dtype[Any], terms: int) -> np.dtype[Any]:
    """The narrowest type that holds the sum of so many samples; narrow ones are faster.

    Of 64-bit integers no other integer does: they are summed as floats.
    """
    if dtype.kind == "f":
        return np.dtype(np.float64)
    largest = 1 if dtype.kind == "b" else max(np.iinfo(dtype).max, -int(np.iinfo(dtype).min))
    narrow = np.dtype(np.int16 if dtype.kind == "i" else np.uint16)
    wider = (narrow, np.dtype(np.int32), np.dtype(np.int64))
    fitting = (t for t in wider if largest * terms <= np.iinfo(t).max)
    return next(fitting, np.dtype(np.float64))


def _sum_rows(pixels: np.ndarray, factor: int, accumulator: np.dtype[Any]) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1)
    total = flat[::factor].astype(accumulator)
    for tap in range(1, min(factor, len(flat))):
        part = flat[tap::factor]
        total[: len(part)] += part
    return total.reshape(len(total), *pixels.shape[1:])


def _sum_columns(pixels: np.ndarray, factor: int, accumulator: np.dtype[Any]) -> np.ndarray:
    width = pixels.shape[1]
    shape = (len(pixels), -(-width // factor), pixels.shape[2])
    total = np.empty(shape, accumulator)
    # channel by channel, because looping over a short last axis is several times slower
    for channel in range(pixels.shape[2]):
        samples, sums = pixels[:, :, channel], total[:, :, channel]
        sums[...] = samples[:, ::factor]
        for tap in range(1, min(factor, width)):
            part = samples[:, tap::factor]
            sums[:, : part.shape[1]] += part
    return total


def _sum_taps(pixels: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    # two axes, because broadcasting over a short last one is several times slower
    channels = pixels.shape[2]
    flat = pixels.reshape(len(pixels), -1)
    total: np.ndarray | None = None
    for pixel, weight in taps:
        part = _tap(flat, pixel, weight, channels, axis)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total.reshape(len(total), -1, channels)


def _tap(
    flat: np.ndarray, pixel: np.ndarray, weight: np.ndarray, channels: int, axis: int
) -> np.ndarray:
    if axis == 1:
        samples = (pixel[:, None] * channels + np.arange(channels)).ravel()
        part, shaped = flat.take(samples, axis=1), np.repeat(weight, channels)[None, :]
    else:
        part, shaped = flat.take(pixel, axis=0), weight[:, None]
    # infinity outside an output's area times a weight of 0 would not be a number
    none = shaped.ravel() == 0
    part[none if axis == 0 else (slice(None), none)] = 0
    weighted: np.ndarray = part * shaped
    return weighted


def _rounded(mean: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return mean.astype(dtype) if dtype.kind == "f" else np.rint(mean).astype(dtype)
