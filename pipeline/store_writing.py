"""Shards that grow from top to bottom, and are put into place together.

Whoever computes a region strip by strip gives its rows as they come; they are compressed at once,
so that no more than a row of chunks is held of any array. Knows bytes and boxes; not what values
mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.errors import StoreError
from saccade.pipeline.geometry import Box
from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.store_shards import ChunkMemo, encoder_of
from saccade.pipeline.store_shelf import Shelf, Upload


@dataclass(frozen=True, slots=True)
class Written:
    """What a write put where; as receipts keep it."""

    key: str
    """Relative to the result's root."""
    nbytes: int
    """Bytes stored; 0 where all is fill and there is no object."""
    checksum: str
    """Hash of the bytes stored; empty where there is no object."""


class ShardFile:
    """One shard on its way to its place."""

    def __init__(self, spec: ArraySpec, shelf: Shelf, key: str, place: Box) -> None:
        """Nothing encoded yet of the shard at a place of its array."""
        self.place = place
        self._shelf, self._key = shelf, key
        self._encoder = encoder_of(spec)
        self._upload: Upload | None = None
        self._nbytes, self._hash = 0, hashlib.blake2b(digest_size=16)

    def add(self, rows: np.ndarray, memo: ChunkMemo | None) -> None:
        """Compress and append the next rows of chunks."""
        for part in self._encoder.add(rows, memo):
            self._append(part)

    def end(self) -> None:
        """Append what comes last; all rows are in."""
        last = self._encoder.finish()
        if last:
            self._append(last)

    def _append(self, part: bytes) -> None:
        if self._upload is None:
            self._upload = self._shelf.begin(self._key)
        self._upload.append(part)
        self._hash.update(part)
        self._nbytes += len(part)

    def put(self) -> Written:
        """Replace what is in its place; where all is fill, remove it."""
        if self._upload is None:
            self._shelf.delete(self._key)
            return Written(self._key, 0, "")
        self._upload.commit()
        return Written(self._key, self._nbytes, self._hash.hexdigest())

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._upload is not None:
            self._upload.abandon()


class RegionWriter:
    """A box of whole shards of one array, given from top to bottom.

    Args:
        shelf: where the result lies.
        spec: of the array.
        box: whole shards, cut off at the array's edge.
        dropped: whether the array is gone from the result, where nothing may stay then: an attempt
            that another one overtook may write when the image is complete.

    Raises:
        StoreError: the box cuts a shard.
    """

    def __init__(
        self, shelf: Shelf, spec: ArraySpec, box: Box, dropped: Callable[[], bool]
    ) -> None:
        self._shelf, self._spec, self._box, self._dropped = shelf, spec, box, dropped
        self._files = [ShardFile(spec, shelf, key, place) for key, place in spec.shards(box)]
        self._waiting: list[np.ndarray] = []
        self._given_y = self._encoded_y = box.y0

    def add(self, rows: np.ndarray, memo: ChunkMemo | None = None) -> None:
        """Take the next rows of the box; those that make up whole chunks are compressed at once.

        Args:
            rows: ``(C, h, w)`` or ``(h, w)`` of the array's dtype, as wide as the box.
            memo: shared by arrays that may have chunks in common.

        Raises:
            StoreError: the rows do not fit the array, or the storage fails.
            StorageFull: no space is left. What is in place is untouched.
        """
        below_y = self._given_y + rows.shape[-2]
        self._spec.check_data(Box(self._given_y, self._box.x0, below_y, self._box.x1), rows)
        self._given_y = below_y
        self._waiting.append(rows)
        ragged = 0 if below_y == self._box.y1 else (below_y - self._box.y0) % self._spec.chunk[0]
        if below_y - ragged > self._encoded_y:
            held = (
                self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, -2)
            )
            whole = held.shape[-2] - ragged
            self._waiting = [held[..., whole:, :].copy()] if ragged else []
            self._encode(held[..., :whole, :], memo)

    def _encode(self, rows: np.ndarray, memo: ChunkMemo | None) -> None:
        strip = Box(self._encoded_y, self._box.x0, self._encoded_y + rows.shape[-2], self._box.x1)
        self._encoded_y = strip.y1
        for file in self._files:
            part = strip.intersect(file.place)
            if part.area:
                file.add(rows[(..., *part.relative_to(strip).slices)], memo)
                if part.y1 == file.place.y1:
                    file.end()

    def put(self) -> Iterator[Written]:
        """Put every shard into place.

        Raises:
            StoreError: rows are missing, or the storage fails.
        """
        if self._encoded_y != self._box.y1:
            raise StoreError(
                f"{self._spec.path}: rows up to {self._box.y1} expected; found {self._encoded_y}"
            )
        for file in self._files:
            yield file.put()
        if self._dropped():  # asked only now, so that whichever came last clears away
            self._shelf.delete(self._spec.path)

    def abandon(self) -> None:
        """Leave nothing of what is not in place."""
        for file in self._files:
            file.abandon()
