"""Planes that are the same all over: one pixel stands for them, and no memory is held.

Most of a slide is empty. An array made here looks like any other to whoever reads it; whoever asks
``is_uniform`` first is spared reading it. Not to be written to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.pipeline.geometry import Shape


def uniform(pixel: Any, shape: Shape) -> np.ndarray:
    """A pixel all over.

    Args:
        pixel: ``(..., 1, 1)``, or a number.
        shape: height and width.

    Returns:
        ``(..., height, width)``, read-only, of the pixel's own memory.
    """
    values = np.asarray(pixel)
    return np.broadcast_to(values, (*values.shape[:-2], *shape))


def is_uniform(array: np.ndarray) -> bool:
    """Whether an array of planes is known to be the same all over; False says nothing."""
    return array.ndim >= 2 and array.size > 0 and array.strides[-2:] == (0, 0)


def first_pixel(array: np.ndarray) -> np.ndarray:
    """``(..., 1, 1)``: the pixel at the corner."""
    return array[..., :1, :1]


def held_nbytes(array: np.ndarray) -> int:
    """Memory that an array of planes holds."""
    return first_pixel(array).nbytes if is_uniform(array) else array.nbytes
