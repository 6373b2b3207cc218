"""From scored images to the numbers of a row, and from rows to a long table. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from quality_scores import ANY, Scored, pooled

from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.curves import average_precision, best_threshold, dice
from saccade.pipeline.quality.gate import Gate, gate
from saccade.pipeline.quality.intervals import Spread, spread
from saccade.pipeline.quality.objects import Objects

Images = Mapping[str, Scored]
"""Per image what one row's answer is worth."""
HEAD = ("seed", "way", "share", "metric", "class", "value")


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of one row."""

    metric: str
    """What it is; units in its name."""
    group: str
    """Class, bin of sizes, image or pass that it is of; empty for all."""
    value: float
    """NaN where it is not defined."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What every row of one set of weights is compared with."""

    classes: tuple[str, ...]
    """Of the result."""
    thresholds: Mapping[str, tuple[float, ...]]
    """By row, one per class, chosen on validation images; of rows that were not run there, those
    of the dense run."""
    dense: Images
    """Every tile."""
    foreground: Mapping[str, int]
    """Per image, tiles of the last pass."""
    whole_px: Mapping[str, int]
    """Per image, pixels of the whole plane of the last pass."""
    flops_per_px: Mapping[str, tuple[float, ...]]
    """By row, per pass; of other rows those of the dense run."""

    def at(self, row: str) -> tuple[float, ...]:
        """Thresholds of a row."""
        return self.thresholds.get(row, self.thresholds["dense"])

    def flops(self, row: str) -> tuple[float, ...]:
        """Operations per pixel of a row's passes."""
        return self.flops_per_px.get(row, self.flops_per_px["dense"])


def thresholds(images: Images, classes: int) -> tuple[float, ...]:
    """Per class the score with the best Dice over images; a half where no image has the class."""
    counts = pooled(images.values()).counts
    found = (
        best_threshold(counts.negatives[k], counts.positives[k], counts.scores)
        for k in range(classes)
    )
    return tuple(0.5 if math.isnan(one) else one for one in found)


def precisions(counts: ScoreCounts) -> list[float]:
    """Average precision per class, ``any`` last."""
    return [
        average_precision(n, p) for n, p in zip(counts.negatives, counts.positives, strict=True)
    ]


def mean_precision(counts: ScoreCounts) -> float:
    """Mean over the classes that occur, ``any`` left out."""
    found = [one for one in precisions(counts)[:-1] if not math.isnan(one)]
    return float(np.mean(found)) if found else math.nan


def per_image(images: Images) -> dict[str, float]:
    """Mean average precision of each image."""
    return {name: mean_precision(one.counts) for name, one in images.items()}


def gate_of(dense: Images, glance: Images) -> Gate:
    """Whether dense fine beats dense glance, paired over images."""
    return gate(per_image(dense), per_image(glance))


def gate_cells(verdict: Gate) -> list[Cell]:
    """What the gate found, as numbers of the dense row."""
    gain = verdict.gain
    return [
        Cell("gate, gain over glance", "mean", gain.mean),
        Cell("gate, gain over glance", "low", gain.low),
        Cell("gate, gain over glance", "high", gain.high),
    ]


def cells(row: str, images: Images, basis: Basis, open_gate: bool) -> Iterator[Cell]:
    """Every number of one row."""
    every = pooled(images.values())
    yield from _quality(every, images, basis, open_gate)
    yield from _labelled(every, images, basis, basis.at(row))
    yield from _coverage(every, images, basis)
    yield from _costs(every, images, basis, basis.flops(row))
    yield Cell("labels equal", "", every.agrees.labels_equal)
    yield Cell("mean |dp|", "", every.agrees.mean_difference)


def _quality(every: Scored, images: Images, basis: Basis, open_gate: bool) -> Iterator[Cell]:
    names = (*basis.classes, ANY)
    for name, value in zip(names, precisions(every.counts), strict=True):
        yield Cell("AP", name, value)
    mean = mean_precision(every.counts)
    yield Cell("AP", "", mean)
    dense = mean_precision(pooled(basis.dense.values()).counts)
    yield Cell("AP retained", "", mean / dense if open_gate and dense else math.nan)
    yield from _spread("AP of an image", spread(per_image(images)))
    before = per_image(basis.dense)
    lost = {name: value - before[name] for name, value in per_image(images).items()}
    yield from _spread("AP of an image gained", spread(lost))


def _labelled(every: Scored, images: Images, basis: Basis, at: Sequence[float]) -> Iterator[Cell]:
    """What depends on thresholds: Dice, and the objects that are found."""
    counts = every.counts
    found = [
        dice(counts.negatives[k], counts.positives[k], counts.scores, one)
        for k, one in enumerate(at)
    ]
    for name, value in zip(basis.classes, found, strict=True):
        yield Cell("Dice", name, value)
    yield Cell("Dice", "", float(np.nanmean(found)))
    yield Cell("object recall", "", recall(every, at))
    of = recall_by_size(pooled(basis.dense.values()), basis.at("dense"))
    for size, part in recall_by_size(every, at).items():
        yield Cell("object recall", f"{size} px", part)
        yield Cell("object recall kept", f"{size} px", _ratio(part, of[size]))
    before = {n: recall(s, basis.at("dense")) for n, s in basis.dense.items()}
    gained = {n: recall(s, at) - before[n] for n, s in images.items()}
    yield from _spread("object recall of an image gained", spread(gained))


def _coverage(every: Scored, images: Images, basis: Basis) -> Iterator[Cell]:
    names = (*basis.classes, ANY)
    for name, has, covered in zip(names, every.lesion_px, every.covered_px, strict=True):
        yield Cell("lesion pixels covered", "" if name == ANY else name, _ratio(covered, has))
    one = {n: _ratio(s.covered_px[-1], s.lesion_px[-1]) for n, s in images.items()}
    yield from _spread("lesion pixels covered of an image", spread(one))
    yield Cell("objects covered", "", every.objects().seen_share)
    for size, part in every.objects().by_size().items():
        yield Cell("objects covered", f"{size} px", part.seen_share)
        yield Cell("objects", f"{size} px", float(len(part)))


def recall(one: Scored, at: Sequence[float]) -> float:
    """Share of the objects of all classes that are found, each at its class's threshold."""
    if not len(one.kind):
        return math.nan
    return float(_is_found(one, at).mean())


def _is_found(one: Scored, at: Sequence[float]) -> np.ndarray:
    found: np.ndarray = one.found >= np.array(at, np.float64)[one.kind] - 1e-6
    return found


def recall_by_size(one: Scored, at: Sequence[float]) -> dict[str, float]:
    """Recall in every bin of sizes."""
    marked = Objects(one.area, _is_found(one, at).astype(np.float32), one.seen)
    return {size: part.recall(1.0) for size, part in marked.by_size().items()}


def _costs(
    every: Scored, images: Images, basis: Basis, flops_per_px: Sequence[float]
) -> Iterator[Cell]:
    names = list(images)
    foreground = sum(basis.foreground[name] for name in names)
    whole = sum(basis.whole_px[name] for name in names)
    yield Cell("tiles", "", float(every.tiles[-1]))
    yield Cell("share of foreground tiles", "", _ratio(every.tiles[-1], foreground))
    shares = {n: _ratio(s.tiles[-1], basis.foreground[n]) for n, s in images.items()}
    yield from _spread("share of an image", spread(shares))
    for index, (tiles, pixels) in enumerate(zip(every.tiles, every.pixels, strict=True)):
        yield Cell("tiles of pass", str(index), float(tiles))
        yield Cell("MP of pass", str(index), pixels / 1e6)
    yield Cell("MP", "", every.pixels.sum() / 1e6)
    yield Cell("whole-image passes", "", every.pixels.sum() / whole)
    flops = float(np.array(flops_per_px) @ every.pixels)
    yield Cell("TFLOP", "", flops / 1e12)
    fine = basis.flops("dense")[-1] * whole  # 0 where the model is not made of counted operations
    yield Cell("whole-image passes, by FLOP", "", _ratio(flops, fine))
    yield Cell("MB decoded", "", every.decoded[0] / 1e6)


def _spread(metric: str, found: Spread) -> Iterator[Cell]:
    yield Cell(f"{metric}, mean", "", found.mean)
    yield Cell(f"{metric}, p5", "", found.low)
    yield Cell(f"{metric}, worst", found.worst_image, found.worst)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """All numbers of one way at one share, for one set of weights."""

    seed: int
    """Which weights."""
    way: str
    """How tiles were chosen."""
    share: float | None
    """Asked for; None where the way has none."""
    cells: tuple[Cell, ...]
    """Its numbers."""

    def value(self, metric: str, group: str | None = None) -> float:
        """One number; NaN where the row has none."""
        for cell in self.cells:
            if cell.metric == metric and (group is None or cell.group == group):
                return cell.value
        return math.nan


class Table:
    """All rows, looked up by way and share over seeds."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def values(
        self, way: str, share: float | None, metric: str, group: str | None = None
    ) -> list[float]:
        """One number per seed; those that are not defined are left out."""
        found = (
            row.value(metric, group) for row in self.rows if (row.way, row.share) == (way, share)
        )
        return [value for value in found if not math.isnan(value)]

    def shares(self, way: str) -> list[float]:
        """At which a way was tried, rising."""
        return sorted({row.share for row in self.rows if row.way == way and row.share is not None})

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The long table, under ``HEAD``."""
        for row in self.rows:
            share = "" if row.share is None else f"{row.share:g}"
            for cell in row.cells:
                value = "" if math.isnan(cell.value) else f"{cell.value:.6g}"
                yield str(row.seed), row.way, share, cell.metric, cell.group, value


def shown(values: Sequence[float], text: str = "{:.3f}") -> str:
    """Mean over seeds, and half of their range; '-' where nothing is defined."""
    if not values:
        return "-"
    half = text.replace("+", "").format((max(values) - min(values)) / 2)
    mean = text.format(float(np.mean(values)))
    return mean if not float(half.rstrip("%")) else f"{mean} ±{half}"
