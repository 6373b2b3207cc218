"""What passes did of images that are only counted: numbers by place, and their sums. Pure.

Every pass has a column per number, as long as the list; what no image has set takes no memory. So
an image that begins anew is counted out again, exactly but for the last digits of its seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Key = tuple[str, str, str]
"""Pass, what is counted ('units', 'tiles', 'seconds', 'pixels', 'images'), and which of these."""
DTYPES = {"pixels": np.uint64, "seconds": np.float32, "images": np.bool_}
"""Of columns; counts are 32 bits wide."""
Counted = Iterator[tuple[Key, float]]


@dataclass(slots=True)
class PassNumbers:
    """What one image, or many, did of the passes: the sums that status tells."""

    units: dict[str, list[int]] = field(default_factory=dict)
    """Per pass: units done, units planned."""
    tiles: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per pass: tiles selected, of how many, done, degraded, failed."""
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per pass: busy seconds by lane."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Per pass: pixels through the model, halos included."""

    def numbers(self) -> Counted:
        """One by one."""
        for name, (done, planned) in self.units.items():
            yield (name, "units", "done"), done
            yield (name, "units", "planned"), planned
            yield (name, "images", ""), bool(planned)
        for name, tiles in self.tiles.items():
            yield from (((name, "tiles", outcome), count) for outcome, count in tiles.items())
        for name, lanes in self.seconds.items():
            yield from (((name, "seconds", lane), seconds) for lane, seconds in lanes.items())
        for name, pixels in self.pixels.items():
            yield (name, "pixels", ""), pixels


class FoldedPasses:
    """Numbers by place in a list, and their sums.

    Args:
        places: in the list.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._columns: dict[Key, memoryview[Any]] = {}
        self._sums: dict[Key, float] = {}

    def put(self, place: int, numbers: Counted) -> None:
        """Count an image in."""
        for key, value in numbers:
            column = self._columns.get(key)
            if column is None:
                column = self._begin(key)
            column[place] = value
            self._sums[key] += column[place]

    def take(self, place: int) -> None:
        """Count an image out that begins anew."""
        for key, column in self._columns.items():
            self._sums[key] -= column[place]
            column[place] = 0

    def images(self) -> Counter[str]:
        """By pass: images whose units of it are planned."""
        found = ((name, int(n)) for (name, what, _), n in self._sums.items() if what == "images")
        return Counter(dict(found))

    def total(self) -> PassNumbers:
        """All images together."""
        total = PassNumbers()
        for (name, what, which), value in self._sums.items():
            if what == "units":
                total.units.setdefault(name, [0, 0])[which == "planned"] = int(value)
            elif what == "tiles":
                total.tiles.setdefault(name, {})[which] = int(value)
            elif what == "seconds":
                total.seconds.setdefault(name, {})[which] = max(0.0, value)
            elif what == "pixels":
                total.pixels[name] = int(value)
        return total

    def _begin(self, key: Key) -> memoryview[Any]:
        # zeros that are never written are never made
        column: np.ndarray = np.zeros(self._places, DTYPES.get(key[1], np.uint32))
        self._columns[key], self._sums[key] = column.data, 0
        return self._columns[key]
