"""Complete images of a large archive as a few numbers each: counted, and still to be taken back."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the totals of a run are made of."""

    tiles: int = 0
    """Answered, all passes."""
    pixels: int = 0
    """Through models, halos included."""
    selected: int = 0
    """Tiles that the finest pass was told to visit."""
    of: int = 0
    """Of so many; 0 where nothing was chosen."""


@dataclass
class Folded:
    """Numbers by place in a list, 25 bytes each, and their sums."""

    places: int
    """In the list."""
    images: int = 0
    """Folded."""
    total: Numbers = field(default_factory=Numbers)
    """Of them."""
    _there: bytearray = field(init=False, repr=False)
    _columns: tuple[array[int], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._there = bytearray(self.places)
        self._columns = tuple(array(kind, [0]) * self.places for kind in "qqII")

    def has(self, place: int) -> bool:
        """Whether the image at a place is folded."""
        return bool(self._there[place])

    def there(self) -> np.ndarray:
        """``(places,)`` bool: which are folded."""
        return np.frombuffer(self._there, np.bool_)

    def put(self, place: int, numbers: Numbers) -> None:
        """Count an image in."""
        self._there[place] = 1
        for column, value in zip(self._columns, _values(numbers), strict=True):
            column[place] = value
        self._count(1, numbers)

    def take(self, place: int) -> None:
        """Count an image out that begins anew."""
        self._there[place] = 0
        self._count(-1, Numbers(*(column[place] for column in self._columns)))

    def _count(self, sign: int, numbers: Numbers) -> None:
        self.images += sign
        sums = zip(_values(self.total), _values(numbers), strict=True)
        self.total = Numbers(*(total + sign * value for total, value in sums))


def _values(numbers: Numbers) -> tuple[int, int, int, int]:
    return numbers.tiles, numbers.pixels, numbers.selected, numbers.of
