"""Names of images: safe as file names, made from where an image lies. Pure."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from saccade.jobs.manifests.places import folder_of, last_part

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,150}")
NAME_RULE = "letters, digits and _ . @ + - only, at most 151, a letter or digit first"
MAX_CHARS = 151
FIRST_SLOTS = 1 << 10


def name_of(path: Path | str) -> str:
    """A name for an image from its file or URL: the stem, in characters that any disk takes."""
    return plain(re.sub(r"(\.ome|\.mosaic)?(\.[A-Za-z0-9]{1,6})$", "", last_part(str(path))))


def plain(text: str) -> str:
    """A text as a name: what no name may hold becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9_.@+-]+", "_", text).strip("._@+-")[:150] or "image"


def alternatives(name: str, place: str) -> Iterator[str]:
    """Names to try in turn: as it is, behind that of the folder, then with numbers. Never ends."""
    yield name
    folder = plain(last_part(folder_of(place)))
    longer = f"{folder}_{name}"[:MAX_CHARS]
    yield longer
    yield from (f"{longer[: MAX_CHARS - 20]}-{number}" for number in count(2))


class NameIndex:
    """Where each name was first met, in 16 bytes a slot; at most three slots of four are taken.

    Names themselves are not kept: those of equal hashes are compared where they were met, so that
    the answer is exact.
    """

    def __init__(self) -> None:
        self._hashes = array("q", bytes(8 * FIRST_SLOTS))
        self._places = array("q", bytes(8 * FIRST_SLOTS))  # one more than the place; 0 is free
        self._count = 0

    def first(self, name: str, place: int, name_at: Callable[[int], str]) -> int | None:
        """The place where a name was met before; None where it is new, and is then known.

        Args:
            name: to be looked up.
            place: where it stands now, 0 or more.
            name_at: the name that stands at a place.
        """
        if 4 * (self._count + 1) > 3 * len(self._hashes):
            self._grow()
        key = hash(name)
        slot = key % len(self._hashes)
        while earlier := self._places[slot]:
            if self._hashes[slot] == key and name_at(earlier - 1) == name:
                return earlier - 1
            slot = (slot + 1) % len(self._hashes)
        self._hashes[slot], self._places[slot] = key, place + 1
        self._count += 1
        return None

    def _grow(self) -> None:
        hashes, places = self._hashes, self._places
        size = 2 * len(hashes)
        self._hashes, self._places = array("q", bytes(8 * size)), array("q", bytes(8 * size))
        for key, place in zip(hashes, places, strict=True):
            if place:
                slot = key % size
                while self._places[slot]:
                    slot = (slot + 1) % size
                self._hashes[slot], self._places[slot] = key, place
