"""The directories of a TIFF file as bytes: classic and BigTIFF, little-endian. Pure.

TIFF 6.0, section 2, and the BigTIFF design of 2007. Knows no image and no file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["ascii", "short", "long", "double", "offset"]
KINDS: Mapping[str, tuple[int, str]] = {
    "ascii": (2, "u1"),
    "short": (3, "<u2"),
    "long": (4, "<u4"),
    "double": (12, "<f8"),
}
"""Number of a type in a file, and numpy's word for its values."""
OFFSETS: Mapping[bool, tuple[int, str]] = {False: (4, "<u4"), True: (16, "<u8")}
"""Of places in a file, which a BigTIFF counts in 8 bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Tag:
    """One entry of a directory."""

    code: int
    """Says what it is about."""
    kind: Kind
    """Type of its values."""
    values: Any
    """Text of an 'ascii' one; else a sequence of numbers, or an array."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A classic TIFF, or a BigTIFF."""

    big: bool
    """Whether places are counted in 8 bytes."""

    def header(self, first: int) -> bytes:
        """What a file begins with.

        Args:
            first: place of the first directory.
        """
        return struct.pack("<2sHHHQ" if self.big else "<2sHI", b"II", *self._version, first)

    def size(self, tags: Sequence[Tag]) -> int:
        """Bytes of a directory together with its values."""
        return len(self.directory(tags, 0, 0))

    def directory(self, tags: Sequence[Tag], at: int, following: int) -> bytes:
        """A directory, and behind it the values that don't fit into its entries.

        Args:
            tags: in any order.
            at: its place in the file, even.
            following: place of the next directory; 0 after the last.
        """
        entry, word = ("<HHQ", "<Q") if self.big else ("<HHI", "<I")
        inline = struct.calcsize(word)
        count = struct.pack("<Q" if self.big else "<H", len(tags))
        behind = at + len(count) + len(tags) * struct.calcsize(entry + word[1:]) + inline
        entries, values = [count], bytearray()
        for tag in sorted(tags, key=lambda one: one.code):
            number, data, length = self._encoded(tag)
            entries.append(struct.pack(entry, tag.code, number, length))
            if len(data) <= inline:
                entries.append(data.ljust(inline, b"\0"))
            else:
                entries.append(struct.pack(word, behind + len(values)))
                values += data + b"\0" * (-len(data) % 8)
        return b"".join([*entries, struct.pack(word, following), values])

    @property
    def _version(self) -> tuple[int, ...]:
        return (43, 8, 0) if self.big else (42,)

    def _encoded(self, tag: Tag) -> tuple[int, bytes, int]:
        """Number of its type, its values' bytes, how many there are."""
        if tag.kind == "ascii":
            text = str(tag.values).encode("utf-8") + b"\0"
            return KINDS["ascii"][0], text, len(text)
        number, dtype = OFFSETS[self.big] if tag.kind == "offset" else KINDS[tag.kind]
        values = np.asarray(tag.values).astype(dtype)
        return number, values.tobytes(), values.size
