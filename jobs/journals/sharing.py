"""How independent drivers divide the images of one run among them. Pure but for listing folders.

Part *i* of *n* holds the images whose name's hash says so, so that a list may grow without any
image changing its part. Each part has a journal of its own, ``journal/shard-3-of-16``, beside the
files of drivers that work on the whole run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.jobs.manifests.names import name_hash
from saccade.pipeline.errors import UsageError

LABEL = re.compile(r"shard-([1-9]\d*)-of-([1-9]\d*)")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of so many equal parts of a run; part 1 of 1 is the whole."""

    index: int = 1
    """Which, from 1."""
    count: int = 1
    """Of how many."""

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(
                f"a part of a run is i/n with i from 1 to n, like 3/16; "
                f"found {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """'3/16'.

        Raises:
            UsageError: it is something else.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise UsageError(f"a part of a run is i/n, like 3/16; found {text!r}")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def whole(self) -> bool:
        """Whether it is everything."""
        return self.count == 1

    @property
    def label(self) -> str:
        """Names the part in paths and records; empty for the whole."""
        return "" if self.whole else f"shard-{self.index}-of-{self.count}"

    def journal(self, root: Path) -> Path:
        """The folder of this part's journal, below the run's."""
        return root / self.label if self.label else root

    def holds(self, name: str) -> bool:
        """Whether an image is of this part."""
        return name_hash(name) % self.count == self.index - 1

    def held(self, hashes: np.ndarray) -> np.ndarray:
        """``(n,)`` bool: the same of many, by the hashes of their names."""
        held: np.ndarray = hashes % np.uint64(self.count) == np.uint64(self.index - 1)
        return held

    def overlaps(self, other: Shard) -> bool:
        """Whether an image may be of both parts."""
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0


WHOLE = Shard()


def shard_of(folder: Path) -> tuple[Path, Shard]:
    """The journal of the whole run that a journal's folder belongs to, and whose it is."""
    match = LABEL.fullmatch(folder.name)
    if match is None:
        return folder, WHOLE
    return folder.parent, Shard(int(match[1]), int(match[2]))


def journals(root: Path, shard: Shard = WHOLE) -> Iterator[tuple[Shard, Path]]:
    """The journals below the whole run's that may speak of images of a part; its own first."""
    own = shard.journal(root)
    yield shard, own
    others = [shard_of(path) for path in root.glob("shard-*-of-*") if path.is_dir()]
    for _, other in sorted([(root, WHOLE), *others]):
        if other != shard and shard.overlaps(other):
            yield other, other.journal(root)
