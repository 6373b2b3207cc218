"""Lazy arrays for dask that read only what is asked for. Knows no plan and no pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dask.array as da
import numpy as np

from saccade.pipeline.geometry import Box
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import ArraySpec

MAX_BLOCKS = 20_000
"""A lazy array is cut into at most this many blocks, or its graph would outweigh its pixels."""

Halve = Callable[[np.ndarray], np.ndarray]
"""``(..., h, w)`` -> ``(..., ceil(h / 2), ceil(w / 2))``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Looks like an array to dask, and reads the boxes that it is asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    read: Callable[[Box], np.ndarray]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        rows, columns = (
            range(n)[part] if isinstance(part, slice) else range(part, part + 1)
            for part, n in zip(index[-2:], self.shape[-2:], strict=True)
        )
        if rows and columns:
            ends = (*_ends(rows), *_ends(columns))
            values = self.read(Box(ends[0], ends[2], ends[1], ends[3]))
        else:
            values = np.empty((*self.shape[:-2], len(rows), len(columns)), self.dtype)
        steps = [slice(None, None, p.step) if isinstance(p, slice) else 0 for p in index[-2:]]
        return values[(*index[:-2], *steps)]


def _ends(positions: range) -> tuple[int, int]:
    """The half-open interval of all positions, in whichever direction they run."""
    return min(positions[0], positions[-1]), max(positions[0], positions[-1]) + 1


def stored_array(store: ImageStore, path: str) -> da.Array:
    """An array of a result, lazy."""
    return lazy_array(store.spec(path), lambda box: store.read(path, box))


def lazy_array(spec: ArraySpec, read: Callable[[Box], np.ndarray]) -> da.Array:
    """An array of which ``read`` gives any box, in blocks of a chunk, or of several if need be."""
    height, width = spec.area.shape
    side = spec.chunk[0]
    while -(-height // side) * -(-width // side) > MAX_BLOCKS:
        side *= 2
    chunks = (*spec.shape[:-2], min(side, height), min(side, width))
    meta = np.empty((0,) * len(spec.shape), spec.dtype)
    source = _Boxes(spec.shape, spec.dtype, read)
    return da.from_array(source, chunks=chunks, asarray=False, name=False, meta=meta)


def pyramid(level: da.Array, count: int, halve: Halve) -> tuple[da.Array, ...]:
    """An array and what comes of halving it again and again, ``count`` levels in all."""
    levels = [level]
    for _ in range(count - 1):
        levels.append(_halved(levels[-1], halve))
    return tuple(levels)


def _halved(above: da.Array, halve: Halve) -> da.Array:
    """Block by block; blocks of even sides, or pixels of two blocks would have to be averaged."""
    side = 2 * max(max(sizes) for sizes in above.chunks[-2:])
    whole = above.rechunk((*above.shape[:-2], side, side))
    sides = [tuple(-(-size // 2) for size in sizes) for sizes in whole.chunks[-2:]]
    return whole.map_blocks(halve, dtype=above.dtype, chunks=(*whole.chunks[:-2], *sides))


def halved_with(
    above: da.Array, labels: da.Array, halve: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> da.Array:
    """``(C, h, w)`` halved by what is known of its pixels, ``(h, w)``; block by block, as above."""
    side = 2 * max(max(sizes) for sizes in above.chunks[-2:])
    whole, known = above.rechunk((*above.shape[:-2], side, side)), labels.rechunk((side, side))
    sides = [tuple(-(-size // 2) for size in sizes) for sizes in whole.chunks[-2:]]
    chunks = (*whole.chunks[:-2], *sides)
    return da.map_blocks(halve, whole, known, dtype=above.dtype, chunks=chunks)
