"""The bytes of one shard, as the Zarr v3 sharding codec lays them out. Pure.

A shard is encoded in the calling thread, a row of chunks at a time: its chunks, channel by channel,
each compressed by zstd with a checksum of its own; last an index of offsets and lengths and its
CRC-32C (Zarr core specification v3, codec *sharding_indexed*). Chunks that are all fill are left
out. The same data always gives the same bytes. ``zarr`` reads them; encoding through it takes two
to three times as long, on threads that no budget counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import google_crc32c
import numpy as np
from numcodecs import zstd  # type: ignore[import-untyped]

from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.uniform import first_pixel, is_uniform

ZSTD_LEVEL = 1
"""Level 3 makes files of scores a tenth smaller and takes 1.1 to 3 times as long."""
ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not stored."""

Place = tuple[int, int, int]
"""Channel (0 where a chunk holds all), row and column of a chunk in its shard."""


@dataclass(frozen=True, slots=True)
class ChunkMemo:
    """Chunks that were just compressed, for another array that may have the same at that place.

    Comparing is ten times faster than compressing. The arrays must not change meanwhile.
    """

    known: dict[Place, tuple[np.ndarray, bytes]] = field(default_factory=dict)
    """Values and bytes, by place."""

    def compress(self, place: Place, values: np.ndarray) -> bytes:
        """The bytes of a whole chunk."""
        before = self.known.get(place)
        if before is None or not _identical(before[0], values):
            self.known[place] = before = values, _compress(values)
        return before[1]


class ShardEncoder:
    """The file of one shard, made from top to bottom: parts to be joined in the order they came.

    The bytes do not depend on how many rows come at a time.
    """

    def __init__(self, spec: ArraySpec) -> None:
        """Nothing encoded yet, of an array whose files hold several chunks."""
        rows, columns = (s // c for s, c in zip(spec.shard, spec.chunk, strict=True))
        self._spec = spec
        self._index = np.full((1 if spec.deep else spec.channels, rows, columns, 2), ABSENT, "<u8")
        self._row = self._offset = 0
        self._repeated = ChunkMemo()

    def add(self, data: np.ndarray, memo: ChunkMemo | None = None) -> Iterator[bytes]:
        """The bytes of the next rows of chunks.

        Args:
            data: ``(C, h, w)`` or ``(h, w)``: whole rows of chunks, but for the array's edge.
            memo: of chunks that need not be compressed again.
        """
        height, first = self._spec.chunk[0], self._row
        self._row += -(-data.shape[-2] // height)
        if all_fill(data, self._spec.fill):
            return
        little = data.astype(self._spec.dtype.newbyteorder("<"), copy=False)
        for place, chunk in _chunks(self._spec, _planes(little), first):
            if not all_fill(chunk, self._spec.fill):
                part = self._compressed(place, chunk, memo)
                self._index[place] = self._offset, len(part)
                self._offset += len(part)
                yield part

    def _compressed(self, place: Place, chunk: np.ndarray, memo: ChunkMemo | None) -> bytes:
        """The bytes of a chunk, kept only where it may come again."""
        whole = _whole_chunk(self._spec, chunk)
        if is_uniform(chunk):  # planes that are the same all over have one chunk
            return (memo or self._repeated).compress((place[0], 0, 0), whole)
        return _compress(whole) if memo is None else memo.compress(place, whole)

    def finish(self) -> bytes | None:
        """What comes last: the index and its checksum; None where no chunk is stored."""
        if not self._offset:
            return None
        table = self._index.tobytes()
        return table + int(google_crc32c.value(table)).to_bytes(4, "little")


class ChunkEncoder:
    """As ``ShardEncoder``, of an array whose files hold one chunk each, given whole."""

    def __init__(self, spec: ArraySpec) -> None:
        """Nothing encoded yet."""
        self._spec, self._stored = spec, False

    def add(self, data: np.ndarray, memo: ChunkMemo | None = None) -> Iterator[bytes]:
        """The bytes of the chunk; a memo knows none of these."""
        if not all_fill(data, self._spec.fill):
            self._stored = True
            little = data.astype(self._spec.dtype.newbyteorder("<"), copy=False)
            yield _compress(_whole_chunk(self._spec, little))

    def finish(self) -> bytes | None:
        """Nothing more; None where no chunk is stored."""
        return b"" if self._stored else None


def encoder_of(spec: ArraySpec) -> ShardEncoder | ChunkEncoder:
    """What makes one file of an array."""
    return ShardEncoder(spec) if spec.sharded else ChunkEncoder(spec)


def encode_shard(spec: ArraySpec, data: np.ndarray, memo: ChunkMemo | None = None) -> bytes | None:
    """The file of one shard.

    Args:
        spec: the array.
        data: ``(C, h, w)`` or ``(h, w)`` of its dtype; smaller than a shard at the array's edge.
        memo: of chunks that need not be compressed again.

    Returns:
        The bytes, or None where all is fill and nothing is to be stored.
    """
    encoder = encoder_of(spec)
    parts = [*encoder.add(data, memo)]
    last = encoder.finish()
    return None if last is None else b"".join([*parts, last])


def _planes(data: np.ndarray) -> np.ndarray:
    # A reshape would copy planes that are the same all over.
    return data[None] if data.ndim == 2 else data


def all_fill(data: np.ndarray, fill: float) -> bool:
    """Whether every value is the fill, NaN included."""
    data = first_pixel(data) if is_uniform(data) else data
    first = data[(0,) * data.ndim]
    if first != fill and not (np.isnan(fill) and np.isnan(first)):
        return False  # most data is told by its corner
    if fill == 0:
        return not data.any()
    return bool(np.isnan(data).all() if np.isnan(fill) else (data == fill).all())


def _identical(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same bytes; 0 and -0 have not."""
    bits = np.dtype(f"u{one.itemsize}")
    return one.dtype == other.dtype and np.array_equal(one.view(bits), other.view(bits))


def _chunks(
    spec: ArraySpec, data: np.ndarray, first_row: int
) -> Iterator[tuple[Place, np.ndarray]]:
    """Place in the shard and values of every chunk, row by row; cut off at the array's edge."""
    height, width = spec.chunk
    layers = data[None] if spec.deep else data
    for y in range(0, data.shape[-2], height):
        for layer, values in enumerate(layers):
            for x in range(0, data.shape[-1], width):
                place = (layer, first_row + y // height, x // width)
                yield place, values[..., y : y + height, x : x + width]


def _whole_chunk(spec: ArraySpec, values: np.ndarray) -> np.ndarray:
    """A chunk of full size: beyond the array's edge there is fill."""
    if values.shape[-2:] == spec.chunk:
        return values
    whole = np.full((*values.shape[:-2], *spec.chunk), spec.fill, values.dtype)
    whole[..., : values.shape[-2], : values.shape[-1]] = values
    return whole


def _compress(values: np.ndarray) -> bytes:
    compressed: bytes = zstd.compress(np.ascontiguousarray(values), ZSTD_LEVEL, True)
    return compressed
