"""Which image is taken up next: today the next of the list. Pure but for reading the list."""

from __future__ import annotations

from collections.abc import Collection

from saccade.workers.tasks import ImageEntry


class Waiting:
    """Images that were not taken up yet; each is read from the list when its turn comes."""

    def __init__(self, unfinished: Collection[ImageEntry]) -> None:
        self._left = len(unfinished)
        self._entries = iter(unfinished)

    def __len__(self) -> int:
        return self._left

    def take(self) -> ImageEntry:
        """The next one; there has to be one."""
        self._left -= 1
        return next(self._entries)
