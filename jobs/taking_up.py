"""Which image of an archive is begun next, and how many are in flight at once. Pure but for sizes.

Large images go first, so that none of them is left to the end, when few workers could help it; but
only within a window, so that a manifest of any length is read as it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Any

from saccade.workers.recent import Recent
from saccade.workers.tasks import ImageEntry

WINDOW = 256
"""Images that are compared with each other."""
PX_PER_BYTE = 4.0
"""Pixels that a byte of a file usually holds: of JPEG, as most large images are."""


FEWEST_EACH, MOST_EACH = 3.0, 8.0
"""Images in flight per worker: one that is swept, one that is chosen from, one to come; and what is
enough for the shortest, which leave a device nothing to do while they are chosen from."""


def images_in_flight(workers: int, each: float = FEWEST_EACH) -> int:
    """Images that keep workers busy."""
    return int(each * workers) + 1


class Beside:
    """What images take beside the device, as a share of what they take of it; of the latest."""

    def __init__(self) -> None:
        self._shares = Recent(101, 5)
        self._seconds: dict[str, Counter[str]] = {}

    def hear(self, receipt: Mapping[str, Any]) -> None:
        """A unit of an image in flight is done."""
        spent = self._seconds.setdefault(receipt["image"], Counter())
        spent.update(receipt.get("seconds", {}))

    def ended(self, image: str, *, complete: bool) -> None:
        """An image is in flight no more; of those set aside nothing is learned."""
        spent = self._seconds.pop(image, Counter())
        on_device = spent.pop("device", 0.0)
        if complete and on_device:
            self._shares.add(spent.total() / on_device)

    @property
    def images_each(self) -> float:
        """Images in flight per worker.

        One that is swept, and as many as are on their way to a device meanwhile; of those thrice as
        many, because images differ and come in bursts; and one more.
        """
        return min(MOST_EACH, max(FEWEST_EACH, 2 + 3 * (self._shares.median or 0.0)))


def estimated_px(entry: ImageEntry) -> float | None:
    """Pixels of an image, as the manifest says or as its file's size suggests; None: not known."""
    stated: int | None = getattr(entry, "pixels", None)
    if stated is not None:
        return float(stated)
    try:
        path = Path(entry.uri)
        return path.stat().st_size * PX_PER_BYTE if path.is_file() else None
    except OSError:
        return None


class LargestFirst:
    """Images that wait to be begun: the largest of the next few, ties as listed.

    An image of unknown size goes as soon as it comes into the window, as do those after it if none
    is known: then the order is the manifest's.
    """

    def __init__(
        self,
        entries: Iterable[ImageEntry],
        cost: Callable[[ImageEntry], float | None] = estimated_px,
        window: int = WINDOW,
    ) -> None:
        self._coming = enumerate(entries)
        self._cost = cost
        self._window: list[tuple[float, int, ImageEntry]] = []
        self._fill(window)

    def __bool__(self) -> bool:
        """Whether any image waits."""
        return bool(self._window)

    def take(self) -> ImageEntry:
        """Take out the image that is next; there is one."""
        *_, entry = heappop(self._window)
        self._fill(1)
        return entry

    def _fill(self, count: int) -> None:
        for place, entry in islice(self._coming, count):
            cost = self._cost(entry)
            heappush(self._window, (float("-inf") if cost is None else -cost, place, entry))
