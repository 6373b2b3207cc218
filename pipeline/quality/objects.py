"""The objects of a truth (its connected regions) and what an answer says of each. Pure.

An object's *score* is the highest score over its area: it is found at a threshold when at least one
of its pixels is predicted. It is *seen* when at least one of its pixels lies in a tile that the
last pass answered. Objects are those of level 0, whatever the resolution of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from saccade.pipeline.regions import Runs, regions

SIZE_EDGES = (0, 100, 400, 1600, 6400)
"""Smallest area of each bin of sizes, in pixels of level 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Objects of one class of one image."""

    area: np.ndarray
    """``(n,)`` int64: pixels of level 0."""
    score: np.ndarray
    """``(n,)`` float32: highest score over its area, in [0, 1]."""
    seen: np.ndarray
    """``(n,)`` bool: whether the last pass answered any of it."""

    def __len__(self) -> int:
        return len(self.area)

    @classmethod
    def joined(cls, parts: Iterable[Objects]) -> Objects:
        """Those of several images."""
        lists = [(p.area, p.score, p.seen) for p in parts] or [_nothing()]
        return cls(*(np.concatenate(column) for column in zip(*lists, strict=True)))

    def at_least(self, area_px: int) -> Objects:
        """Those of some size."""
        large = self.area >= area_px
        return Objects(self.area[large], self.score[large], self.seen[large])

    def recall(self, threshold: float) -> float:
        """Share that is found at a threshold; NaN where there is no object."""
        return _share(self.score >= threshold - 1e-6)

    @property
    def seen_share(self) -> float:
        """Share that is seen; NaN where there is no object."""
        return _share(self.seen)

    def by_size(self, edges: tuple[int, ...] = SIZE_EDGES) -> dict[str, Objects]:
        """Those of each bin of sizes, by a name such as '100-399'."""
        bins = {}
        for low, high in zip(edges, (*edges[1:], None), strict=True):
            inside = (self.area >= low) & (self.area < (np.inf if high is None else high))
            name = f"{low}+" if high is None else f"{low}-{high - 1}"
            bins[name] = Objects(self.area[inside], self.score[inside], self.seen[inside])
        return bins


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool)


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else float("nan")


@dataclass(eq=False)
class ObjectFinder:
    """Gathers the objects of one class, strip by strip from top to bottom."""

    runs: list[Runs] = field(default_factory=list)
    """Of each strip."""
    scores: list[np.ndarray] = field(default_factory=list)
    """Of each run of each strip, the highest score under it."""
    seen: list[np.ndarray] = field(default_factory=list)
    """Of each run of each strip, whether the last pass answered any of it."""

    def add(self, runs: Runs, scores: np.ndarray, seen: np.ndarray) -> Self:
        """Take in a strip: its runs, the highest score under each, and whether it was seen."""
        self.runs.append(runs)
        self.scores.append(scores.astype(np.float32))
        self.seen.append(seen.astype(bool))
        return self

    def objects(self) -> Objects:
        """The objects that all strips together hold."""
        runs = Runs.joined(self.runs)
        if not len(runs):
            return Objects(*_nothing())
        region = regions(runs)
        count = int(region.max()) + 1
        score, seen = np.zeros(count, np.float32), np.zeros(count, bool)
        np.maximum.at(score, region, np.nan_to_num(np.concatenate(self.scores)))
        np.logical_or.at(seen, region, np.concatenate(self.seen))
        return Objects(np.bincount(region, runs.lengths).astype(np.int64), score, seen)
