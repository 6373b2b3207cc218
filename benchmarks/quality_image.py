"""Every row of the curve for one image and one set of weights: real runs and replays, scored.

A worker process does one image at a time; what it found is kept in a file, so that a benchmark that
was stopped goes on with the next image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from quality_archive import Rule, chosen, counts_of, last_scores, unsureness
from quality_costs import cost_of
from quality_recipes import counts_at, judge, ratios
from quality_replay import (
    Hidden,
    Masks,
    Stored,
    TileScores,
    at_random,
    by_signal_of,
    choose,
    signal_scores,
    within,
)
from quality_scores import ImageTruth, Scored, foreground_tiles, restored, score

from saccade.pipeline.compose import FusedRegion
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.scores import dequantise
from saccade.pipeline.selectors import TopK
from saccade.pipeline.sources import open_source
from saccade.pipeline.truth import load_truth, open_truth

FIELD_ABOVE = 0.5
UNCERTAIN = TopK(k=0, signal="entropy", statistic="top")


@dataclass(frozen=True)
class Work:
    """One image under one set of weights."""

    name: str
    """Of the image."""
    seed: int
    """Which weights; also what random controls are drawn from."""
    recipe: Recipe
    """Under test, with these weights."""
    dense: Path
    """Run over every tile."""
    field: Path
    """Run of ``builtin:field``: the foreground."""
    contrast: Path
    """Run of ``builtin:contrast``."""
    shares: tuple[float, ...]
    """Of the foreground's tiles."""
    learned: Mapping[float, Path]
    """Real runs by share."""
    others: Mapping[str, Path]
    """Real runs by the name of their row."""
    truth: Path
    """``truth.yaml``."""
    archive: Rule | None
    """One threshold for all images."""
    checked: float
    """Share at which the replay is held against the real run."""
    out: Path
    """File for what was found."""


@dataclass(frozen=True)
class Foreground:
    """Which tiles of each later pass show any of the field of view."""

    masks: Mapping[int, np.ndarray] = field(default_factory=dict)
    """By index of the pass, ``(tile rows, tile columns)`` bool."""

    @classmethod
    def of(cls, run: Path, plan: ImagePlan) -> Foreground:
        """As the run of ``builtin:field`` found it."""
        found = Stored(run, plan.name)
        look = found.plan.last
        seen = dequantise(found.fused())[0] > FIELD_ABOVE
        return cls(
            {
                p.index: foreground_tiles(seen, look.score_downsample, p.tiles, p.plane.downsample)
                for p in plan.passes[1:]
            }
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles per later pass."""
        return tuple(int(mask.sum()) for _, mask in sorted(self.masks.items()))


@dataclass(frozen=True)
class Check:
    """The replay of a real run, held against it."""

    same_tiles: bool
    """Whether both chose the same tiles."""
    same_pixels: bool
    """Whether the plan counts the pixels that the receipts count."""
    different_scores: int
    """Stored scores that differ."""
    largest_gap: float
    """Between stored probabilities."""


def scored_rows(work: Work) -> dict[str, Scored]:
    """Every row of one image; those already in its file are read."""
    if work.out.is_file():
        with np.load(work.out) as stored:
            return restored({key: stored[key] for key in stored.files})
    rows = dict(_Image(work).rows())
    arrays: dict[str, np.ndarray] = {}
    for row, scored in rows.items():
        arrays |= scored.arrays(row)
    work.out.parent.mkdir(parents=True, exist_ok=True)
    partial = work.out.with_name(f".{work.out.name}")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(work.out)
    return rows


class _Image:
    """What all rows of an image share."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.dense = Stored(work.dense, work.name)
        self.plan = self.dense.plan
        with closing(open_truth(load_truth(work.truth), work.name)) as truth:
            self.truth = ImageTruth(truth, self.plan, work.name)
        self.lesion_px = {p.index: self.truth.pixels_per_tile(p) for p in self.plan.passes[1:]}
        self.foreground = Foreground.of(work.field, self.plan)
        self.whole = FusedRegion(self.dense.fused(), self.dense.whole("labels/classes/0"))

    def rows(self) -> Iterator[tuple[str, Scored]]:
        """By name: ``way@share``, or a way that has no share."""
        yield "dense", self._real(self.dense)
        none = tuple(np.zeros((p.tiles.rows, p.tiles.columns), bool) for p in self.plan.passes[1:])
        yield "glance", self._replayed(none)
        for row, run in self.work.others.items():
            yield row, self._real(Stored(run, self.work.name))
        for share, run in self.work.learned.items():
            yield f"learned@{share:g}", self._real(Stored(run, self.work.name))
        for share in self.work.shares:
            if share < 1:
                for way, scores in self._controls().items():
                    masks = choose(self.dense, self._counts(share), scores)
                    yield f"{way}@{share:g}", self._replayed(masks)
        yield from self._archive_rows()

    def _counts(self, share: float) -> tuple[int, ...]:
        return counts_at(share, self.foreground.counts, ratios(self.work.recipe))

    def _controls(self) -> dict[str, TileScores]:
        contrast = by_signal_of(Stored(self.work.contrast, self.work.name), "top")
        ways: dict[str, TileScores] = {
            "random": at_random(self.work.seed),
            "contrast": contrast,
            "uncertainty": signal_scores(UNCERTAIN),
            "oracle": lambda view, index: self.lesion_px[index][-1].ravel().astype(np.float32),
        }
        return {way: within(scores, self.foreground.masks) for way, scores in ways.items()}

    def _archive_rows(self) -> Iterator[tuple[str, Scored]]:
        rule = self.work.archive
        if rule is None:
            return
        counts, scores = self._counts(rule.share), learned_scores(self.work.recipe)
        told = counts_of(
            rule,
            last_scores(self.dense, counts, scores),
            self.foreground.counts[-1],
            unsureness(self.dense, self.foreground.masks[1]),
        )
        for way, last in told.items():
            masks = chosen(self.dense, counts, last, scores)
            yield f"{way}@{rule.share:g}", self._replayed(masks)

    def _replayed(self, masks: Masks) -> Scored:
        return self._scored(Hidden(self.dense, masks).compose(), self.plan, masks)

    def _real(self, run: Stored) -> Scored:
        answer = FusedRegion(run.fused(), run.whole("labels/classes/0"))
        return self._scored(answer, run.plan, run.chosen())

    def _scored(self, answer: FusedRegion, plan: ImagePlan, masks: Masks) -> Scored:
        same = plan.last.tiles == self.plan.last.tiles
        per_tile = (
            self.lesion_px[self.plan.last.index] if same else self.truth.pixels_per_tile(plan.last)
        )
        last = masks[-1] if masks else np.ones(per_tile.shape[1:], bool)
        with closing(open_source(Path(plan.uri))) as source:
            cost = cost_of(plan, masks, source)
        found = score(answer, self.whole, self.truth, plan, last, per_tile)
        return Scored(
            **found,
            tiles=np.array(cost.tiles),
            pixels=np.array(cost.pixels),
            decoded=np.array([cost.decoded_nbytes]),
        )


def learned_scores(recipe: Recipe) -> TileScores:
    """Tiles as the recipe's own passes judge them."""
    ways = {index: signal_scores(judge(one)) for index, one in enumerate(recipe.passes) if index}
    return lambda view, index: ways[index](view, index)


def check(work: Work, receipts: Mapping[str, int]) -> Check:
    """Replay a real run from the dense one and compare tiles, pixels and every stored score."""
    dense, real = Stored(work.dense, work.name), Stored(work.learned[work.checked], work.name)
    counts = counts_at(
        work.checked, Foreground.of(work.field, dense.plan).counts, ratios(work.recipe)
    )
    masks = choose(dense, counts, learned_scores(work.recipe))
    same = all(bool((a == b).all()) for a, b in zip(masks, real.chosen(), strict=True))
    with closing(open_source(Path(dense.plan.uri))) as source:
        cost = cost_of(real.plan, real.chosen(), source)
    pixels = tuple(receipts.get(p.name, 0) for p in real.plan.passes)
    replayed = Hidden(dense, real.chosen()).compose().scores
    box = Box.of(dense.plan.shape)
    gaps = np.abs(dequantise(replayed) - dequantise(real.read("0", box)))
    return Check(same, pixels == cost.pixels, int((gaps > 0).sum()), float(gaps.max()))
