"""From one resolution to another: coarse answers upsampled, and a pyramid's halvings. Pure numpy.

Everything here depends on absolute pixel positions alone, so a pixel's value is the same bit for
bit whichever box it is asked for in. Knows no pass, no file and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.uniform import first_pixel, is_uniform, uniform

Mode = Literal["bilinear", "nearest"]
BAND_NBYTES = 2**18
"""A pyramid's levels are halved in bands of about this size."""
LOW_BYTE, HIGH_BYTE = np.uint16(0xFF), np.uint16(8)


def coarse_box_for(fine_box: Box, ratio: float, coarse_shape: Shape) -> Box:
    """The coarse pixels that ``upsample`` needs for a box of fine pixels, in either mode.

    Args:
        fine_box: not empty, in fine pixels.
        ratio: fine pixels per coarse pixel; positive.
        coarse_shape: height and width of the whole coarse plane.
    """
    (y0, _), (_, y1) = (_span(y, ratio, coarse_shape[0]) for y in (fine_box.y0, fine_box.y1 - 1))
    (x0, _), (_, x1) = (_span(x, ratio, coarse_shape[1]) for x in (fine_box.x0, fine_box.x1 - 1))
    return Box(y0, x0, y1 + 1, x1 + 1)


def _span(position: int, ratio: float, length: int) -> tuple[int, int]:
    """The two coarse pixels between whose centres a fine pixel's centre lies."""
    below = math.floor((position + 0.5) / ratio - 0.5)
    return min(max(below, 0), length - 1), min(max(below + 1, 0), length - 1)


def upsample(
    coarse: np.ndarray,
    coarse_origin: Shape,
    ratio: float,
    fine_box: Box,
    coarse_shape: Shape,
    mode: Mode = "bilinear",
) -> np.ndarray:
    """A coarse answer at the centres of fine pixels.

    Fine pixel ``y`` looks at coarse position ``(y + 0.5) / ratio - 0.5``, held at the plane's edge.
    NaN means *not computed*: mixing leaves it out in favour of its neighbours, so that it stays
    only where all of them are NaN.

    Args:
        coarse: ``(C, h, w)``, a part of the coarse plane that holds ``coarse_box_for(...)``.
        coarse_origin: row and column of its corner in the coarse plane.
        ratio: fine pixels per coarse pixel; positive, not necessarily whole.
        fine_box: the fine pixels wanted.
        coarse_shape: height and width of the whole coarse plane.
        mode: 'bilinear', or 'nearest' (the coarse pixel that a fine pixel's centre lies in).

    Returns:
        ``(C, height, width)`` float32; a constant stays the same constant, bit for bit.

    Raises:
        ValueError: ``coarse`` lacks pixels that the box needs.
    """
    part = np.asarray(coarse, np.float32)
    have = Box.of((part.shape[1], part.shape[2])).shift(*coarse_origin)
    need = coarse_box_for(fine_box, ratio, coarse_shape)
    if not have.contains(need):
        raise ValueError(f"upsampling {fine_box} needs coarse {need}; found {have}")
    part = part[(slice(None), *need.relative_to(have).slices)]
    if (part == part[:, :1, :1]).all():
        return _constant(part[:, 0, 0], fine_box.shape)
    y = _positions(fine_box.y0, fine_box.y1, ratio)
    x = _positions(fine_box.x0, fine_box.x1, ratio)
    if mode == "nearest":
        rows = _nearest(y, coarse_shape[0]) - need.y0
        columns = _nearest(x, coarse_shape[1]) - need.x0
        return np.ascontiguousarray(np.take(np.take(part, rows, axis=1), columns, axis=2))
    wide = _along_columns(part, x, need.x0, coarse_shape[1])
    return _along_rows(wide, y, need.y0, coarse_shape[0])


def _constant(values: np.ndarray, shape: Shape) -> np.ndarray:
    if not values.any():
        return np.zeros((len(values), *shape), np.float32)
    return np.broadcast_to(values[:, None, None], (len(values), *shape)).copy()


def _positions(start: int, stop: int, ratio: float) -> np.ndarray:
    """Coarse positions of fine pixel centres, in units of coarse pixels from the plane's corner."""
    return (np.arange(start, stop, dtype=np.float64) + 0.5) / ratio


def _nearest(positions: np.ndarray, length: int) -> np.ndarray:
    inside: np.ndarray = np.clip(np.floor(positions).astype(np.int64), 0, length - 1)
    return inside


def _between(positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower neighbour, upper neighbour, and the upper one's weight, for every position."""
    centred = positions - 0.5
    below = np.floor(centred)
    weight = (centred - below).astype(np.float32)
    first = below.astype(np.int64)
    return np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1), weight


def _along_columns(part: np.ndarray, x: np.ndarray, x0: int, length: int) -> np.ndarray:
    left, right, weight = _between(x, length)
    low, high = _without_nan(part[:, :, left - x0], part[:, :, right - x0])
    mixed: np.ndarray = low + weight * (high - low)
    return mixed


def _along_rows(part: np.ndarray, y: np.ndarray, y0: int, length: int) -> np.ndarray:
    above, below, weight = _between(y, length)
    fine = np.empty((len(part), len(y), part.shape[2]), np.float32)
    # Fine rows between the same two coarse rows are mixed together: the difference stays in cache.
    starts = np.flatnonzero(np.diff(above, prepend=-1) | np.diff(below, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(y)], strict=True):
        low, high = _without_nan(part[:, above[start] - y0], part[:, below[start] - y0])
        block = fine[:, start:stop]
        np.multiply(weight[start:stop, None], (high - low)[:, None], out=block)
        block += low[:, None]
    return fine


def _without_nan(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both neighbours, each standing in for the other where that one is NaN."""
    holes_low, holes_high = np.isnan(low), np.isnan(high)
    if not (holes_low.any() or holes_high.any()):
        return low, high
    return np.where(holes_low, high, low), np.where(holes_high, low, high)


def halve_mean(array: np.ndarray) -> np.ndarray:
    """Half the height and width of ``(C, h, w)`` (rounded up), each pixel the mean of its 2 x 2.

    At an odd edge the mean is that of the pixels there are. Unsigned integers are averaged as such,
    halves rounded up; floats leave NaN out, and give NaN where there is nothing else.
    """
    if is_uniform(array):
        return uniform(first_pixel(array), _half(array))
    return _by_bands(_halved_mean, array)


def halve_valid(array: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """As ``halve_mean``, of valid pixels only; 0 (of floats NaN) where there are none.

    Args:
        array: ``(C, h, w)``.
        valid: ``(h, w)`` bool.
    """
    if array.dtype.kind != "u":
        return halve_mean(array)  # what is not valid is NaN
    corners, weights = _corners(array), _corners(valid)
    total = sum(c.astype(np.uint32) * w for c, w in zip(corners, weights, strict=True))
    count = np.maximum(sum(w.astype(np.uint32) for w in weights), 1)
    mean: np.ndarray = (2 * total + count) // (2 * count)
    return mean.astype(array.dtype)


def _halved_mean(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "u":
        return _integer_mean(array)
    a, b, c, d = (corner.astype(np.float32) for corner in _corners(array))
    mean: np.ndarray = ((a + b) + (c + d)) * np.float32(0.25)
    if np.isnan(mean).any():
        mean = _mean_of_valid(np.stack([a, b, c, d]))
    return mean.astype(array.dtype)


def _half(array: np.ndarray) -> Shape:
    height, width = array.shape[-2:]
    return -(-height // 2), -(-width // 2)


def _by_bands(halve: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """Halve an array a few rows at a time: what is held in between stays in the cache."""
    halved = np.empty((*array.shape[:-2], *_half(array)), array.dtype)
    row_nbytes = max(1, array.nbytes // array.shape[-2])
    step = max(1, BAND_NBYTES // row_nbytes // 2)
    for start in range(0, halved.shape[-2], step):
        band = array[..., 2 * start : 2 * (start + step), :]
        halved[..., start : start + step, :] = halve(band)
    return halved


def _integer_mean(array: np.ndarray) -> np.ndarray:
    if array.itemsize == 1:
        return _byte_mean(_even(array))
    total: np.ndarray = np.full((), 2, np.uint32)
    for corner in _corners(array):
        total = np.add(total, corner, dtype=np.uint32)
    return (total >> 2).astype(array.dtype)


def _byte_mean(array: np.ndarray) -> np.ndarray:
    """Of uint8 with even sides: neighbours in a row are the two halves of one 16-bit number."""
    pairs = np.ascontiguousarray(array).view(np.uint16)
    total = pairs & LOW_BYTE
    total += pairs >> HIGH_BYTE
    rows = total[..., 0::2, :] + total[..., 1::2, :]
    rows += np.uint16(2)
    rows >>= np.uint16(2)
    return rows.astype(np.uint8)


def _mean_of_valid(corners: np.ndarray) -> np.ndarray:
    a, b, c, d = np.where(np.isnan(corners), np.float32(0), corners)
    count = np.count_nonzero(~np.isnan(corners), axis=0).astype(np.float32)
    mean: np.ndarray = ((a + b) + (c + d)) / np.where(count > 0, count, np.float32(np.nan))
    return mean


def halve_mode(labels: np.ndarray, reserved: int = 254) -> np.ndarray:
    """Half the height and width of ``(h, w)`` labels (rounded up), each the commonest of its 2 x 2.

    Of equally common labels the lowest wins. ``reserved`` and what is above it (above every label)
    have no vote: the lowest of them remains where no pixel bears another.
    """
    if is_uniform(labels):
        return uniform(first_pixel(labels), _half(labels))
    return _by_bands(lambda band: _halved_mode(band, reserved), labels)


def _halved_mode(labels: np.ndarray, reserved: int) -> np.ndarray:
    a, b, c, d = map(np.ascontiguousarray, _corners(labels))
    low_ab, high_ab = np.minimum(a, b), np.maximum(a, b)
    low_cd, high_cd = np.minimum(c, d), np.maximum(c, d)
    first, fourth = np.minimum(low_ab, low_cd), np.maximum(high_ab, high_cd)
    inner, outer = np.maximum(low_ab, low_cd), np.minimum(high_ab, high_cd)
    second, third = np.minimum(inner, outer), np.maximum(inner, outer)
    # In ascending order equal labels are neighbours; two of the lowest can't be outvoted.
    middle = (second == third) & (second < reserved)
    last = (third == fourth) & (third < reserved)
    mode: np.ndarray = np.where(middle, second, np.where(last, third, first))
    return np.where(first == second, first, mode).astype(labels.dtype)


def _corners(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """The four pixels of every 2 x 2; at an odd edge the last ones stand for those that lack."""
    array = _even(array)
    return tuple(array[..., i::2, j::2] for i in (0, 1) for j in (0, 1))


def _even(array: np.ndarray) -> np.ndarray:
    """With even sides, the last row or column twice where there is an odd one."""
    height, width = array.shape[-2:]
    if height % 2 or width % 2:
        sides = [(0, 0)] * (array.ndim - 2) + [(0, height % 2), (0, width % 2)]
        array = np.pad(array, sides, mode="edge")
    return array
