"""A million names in a few bytes each: by a hash of 64 bits instead of the text. Pure.

Two names of one list that share a hash are found when the list is read (``Names.doubles``). That a
name from elsewhere shares the hash of one in a list of a million happens once in 10^13 look-ups.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

TOLD = 2000
"""Names that are kept as text too: images that are told one by one."""
RECENT = 1 << 16
"""Hashes that a set takes in before it sorts them among the others."""


def name_hash(name: str) -> int:
    """64 bits that stand for a name, the same on every machine."""
    text = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class Names:
    """Where each name stands in a list; 12 bytes a name.

    Args:
        hashes: of the names, in the order of the list.
        first: the first names of the list, as text.
    """

    def __init__(self, hashes: np.ndarray, first: Iterable[str] = ()) -> None:
        order = np.argsort(hashes, kind="stable")
        self.first = tuple(first)
        self._sorted = np.asarray(hashes, np.uint64)[order]
        self._places = order.astype(np.uint32)
        self._view = self._sorted.data

    @classmethod
    def of(cls, names: Iterable[str], told: int = TOLD) -> Names:
        """The places of these names."""
        hashes, first = array("Q"), list[str]()
        for name in names:
            hashes.append(name_hash(name))
            if len(first) < told:
                first.append(name)
        return cls(np.frombuffer(hashes, np.uint64), first)

    def place(self, name: str) -> int | None:
        """Of a name; None where the list does not have it."""
        wanted = name_hash(name)
        at = bisect_left(self._view, wanted)
        found = at < len(self._view) and self._view[at] == wanted
        return int(self._places[at]) if found else None

    def places(self, others: Names) -> np.ndarray:
        """``(len(others),)`` int64: the place here of each name of another list; -1 without one."""
        if not len(self):
            return np.full(len(others), -1)
        wanted = others.hashes()
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self) - 1)
        return np.where(self._sorted[at] == wanted, self._places[at].astype(np.int64), -1)

    def hashes(self) -> np.ndarray:
        """``(len,)`` uint64, in the order of the list."""
        hashes = np.empty(len(self), np.uint64)
        hashes[self._places] = self._sorted
        return hashes

    def doubles(self) -> list[tuple[int, int]]:
        """Places of names that share a hash, in pairs; in the order of the list."""
        equal = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        pairs = ((int(self._places[i]), int(self._places[i + 1])) for i in equal)
        return sorted(pairs, key=lambda pair: pair[1])

    def __contains__(self, name: str) -> bool:
        return self.place(name) is not None

    def __len__(self) -> int:
        return len(self._sorted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and np.array_equal(self.hashes(), other.hashes())

    __hash__ = None  # type: ignore[assignment]


class NameSet:
    """A set of names that can tell which it has, but not list them; 8 bytes a name."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._view = self._sorted.data
        self._recent: set[int] = set()
        self._gone: set[int] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Take a name in."""
        wanted = name_hash(name)
        self._gone.discard(wanted)
        if not self._settled(wanted):
            self._recent.add(wanted)
            if len(self._recent) >= RECENT:
                self._settle()

    def discard(self, name: str) -> None:
        """Let a name go, if it is there."""
        wanted = name_hash(name)
        self._recent.discard(wanted)
        if self._settled(wanted):
            self._gone.add(wanted)

    def __contains__(self, name: str) -> bool:
        wanted = name_hash(name)
        return wanted in self._recent or (self._settled(wanted) and wanted not in self._gone)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent) - len(self._gone)

    def __eq__(self, other: object) -> bool:
        others = NameSet(other) if isinstance(other, set | frozenset) else other
        if not isinstance(others, NameSet):
            return NotImplemented
        return self._hashes() == others._hashes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"NameSet({len(self)} names)"

    def _settled(self, wanted: int) -> bool:
        at = bisect_left(self._view, wanted)
        return at < len(self._view) and self._view[at] == wanted

    def _settle(self) -> None:
        recent = np.fromiter(self._recent, np.uint64, len(self._recent))
        self._sorted = np.sort(np.concatenate([self._sorted, recent]))
        self._view = self._sorted.data
        self._recent = set()

    def _hashes(self) -> set[int]:
        return ({*self._view.tolist()} | self._recent) - self._gone
