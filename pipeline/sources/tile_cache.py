"""Decoded tiles that are kept for the next read, bounded in bytes. Knows no file and no codec."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

DEFAULT_NBYTES = 64 << 20
LARGEST_NBYTES = 512 << 20
TILES_IN_REACH = 6
"""Tiles that neighbouring windows share where one tile is larger than a window: 3 by 2."""
TRIES = 2
"""A tile that could not be made so often is not tried again: a hiccup would be over by now."""
MOST_BROKEN = 1 << 12
"""Tiles whose errors are remembered, at most."""


class TileBroken(Exception):
    """A tile can't be made, and was tried often enough."""


def cache_limit(tile_nbytes: int) -> int:
    """Bytes that a cache may hold for tiles of this size: 64 MiB, more where tiles are huge.

    Enough for the tiles under neighbouring windows up to 512 MiB, and for one tile in any case.
    """
    in_reach = min(TILES_IN_REACH * tile_nbytes, LARGEST_NBYTES)
    return max(DEFAULT_NBYTES, in_reach, tile_nbytes)


class _Pending:
    """A tile that one thread decodes while others may wait for it."""

    __slots__ = ("done", "tile")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.tile: np.ndarray | None = None


class TileCache:
    """The tiles used last, shared between threads; each is made by one thread at a time.

    Args:
        limit_nbytes: what all tiles together may hold; a tile above it is made and not kept.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self.limit_nbytes = limit_nbytes
        self.nbytes = 0
        """Held now; never above the limit."""
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._pending: dict[Hashable, _Pending] = {}
        self._errors: dict[Hashable, list[str]] = {}

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The tile of this key, made now unless it is here or being made.

        Returns:
            A read-only array that others hold as well: copy from it.

        Raises:
            Exception: whatever ``make`` raises; the next caller tries again.
            TileBroken: it was tried before, and again, and it was not the storage that failed: to
                fail anew for every window under a large tile would take as long as reading it.
        """
        while True:
            with self._lock:
                errors = self._errors.get(key, [])
                if len(errors) >= TRIES:
                    raise TileBroken(errors[-1])
                if (tile := self._tiles.get(key)) is not None:
                    self._tiles.move_to_end(key)
                    return tile
                pending = self._pending.get(key)
                if pending is None:
                    mine = self._pending[key] = _Pending()
            if pending is None:
                return self._make(key, mine, make)
            with pending.done:
                if pending.tile is not None:
                    return pending.tile

    def holds(self, key: Hashable) -> bool:
        """Whether the tile of this key is here or being made."""
        with self._lock:
            return key in self._tiles or key in self._pending

    def clear(self) -> None:
        """Forget every tile."""
        with self._lock:
            self._tiles.clear()
            self._errors.clear()
            self.nbytes = 0

    def _make(self, key: Hashable, pending: _Pending, make: Callable[[], np.ndarray]) -> np.ndarray:
        try:
            tile = make()
            tile.flags.writeable = False
            pending.tile = tile
            return tile
        except Exception as error:
            self._remember(key, error)
            raise
        finally:
            with self._lock:
                del self._pending[key]
                if pending.tile is not None:
                    self._keep(key, pending.tile)
            pending.done.release()

    def _remember(self, key: Hashable, error: Exception) -> None:
        """Unless the system names a cause, which lies outside of the file."""
        with self._lock:
            if getattr(error, "errno", None) is None and len(self._errors) < MOST_BROKEN:
                self._errors.setdefault(key, []).append(str(error) or type(error).__name__)

    def _keep(self, key: Hashable, tile: np.ndarray) -> None:
        if held_nbytes(tile) > self.limit_nbytes:
            return
        self._tiles[key] = tile
        self.nbytes += held_nbytes(tile)
        while self.nbytes > self.limit_nbytes:
            _, oldest = self._tiles.popitem(last=False)
            self.nbytes -= held_nbytes(oldest)


def held_nbytes(array: np.ndarray) -> int:
    """Memory behind an array, in which an axis that repeats one row costs nothing."""
    stored = [n for n, stride in zip(array.shape, array.strides, strict=True) if stride]
    return int(array.itemsize * math.prod(stored))
