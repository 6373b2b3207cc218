"""An evaluation for people: tables that tell the tail beside the mean. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from saccade.jobs.evaluations.evaluating import Evaluation
from saccade.pipeline.quality.summary import SPREAD_OF
from saccade.workers.memory_size import format_nbytes

Part = Table | Text


def as_page(evaluation: Evaluation) -> Iterator[Part]:
    """Tables of classes, spread, sizes, cost and, against a dense run, what was kept."""
    grids = ", ".join(f"1/{downsample:g}" for downsample in evaluation.downsample)
    part = f" of part {evaluation.part!r}" if evaluation.part else ""
    yield Text(
        f"{len(evaluation.images)} images{part}, compared at {grids} of level 0 with the truth "
        "max-pooled; objects are connected regions of level 0, found when one pixel is"
    )
    yield from map(Text, evaluation.notes)
    yield _classes(evaluation)
    yield _spread(evaluation)
    yield _sizes(evaluation)
    if evaluation.cost:
        yield _cost(evaluation)
    if evaluation.gate is not None:
        yield Text(str(evaluation.gate))
    if evaluation.kept:
        yield from _kept(evaluation)


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash where it is not defined."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def _classes(evaluation: Evaluation) -> Table:
    table = Table(
        "class, all pixels", "prevalence", "AP", "threshold", "Dice", "calibration error",
        "objects", "found", "objects seen", "pixels seen",
    )  # fmt: skip
    for one in evaluation.classes:
        pooled = one.pooled
        table.add_row(
            one.name,
            number(pooled.prevalence, ".3%"),
            number(pooled.average_precision),
            number(one.threshold),
            number(pooled.dice),
            number(pooled.calibration_error, ".4f"),
            str(pooled.objects),
            number(pooled.object_recall),
            number(pooled.objects_seen),
            number(pooled.pixels_seen),
        )
    return table


def _spread(evaluation: Evaluation) -> Table:
    table = Table(
        "class, per image", "number", "images", "mean", "5th percentile", "worst", "image"
    )
    for one in evaluation.classes:
        for name in SPREAD_OF:
            over = one.spread(name)
            numbers = map(number, (over.mean, over.low, over.worst))
            words = name.replace("_", " ")
            table.add_row(one.name, words, str(over.images), *numbers, over.worst_image)
    return table


def _sizes(evaluation: Evaluation) -> Table:
    table = Table("class, by size in pixels of level 0", "area", "objects", "found", "seen")
    for one in evaluation.classes:
        for area, some in one.sizes.items():
            found = number(some.recall), number(some.seen)
            table.add_row(one.name, area, str(some.objects), *found)
    return table


def _cost(evaluation: Evaluation) -> Table:
    table = Table(
        "cost of a pass", "tiles", "share", "pixels with halo", "whole-image passes",
        "pixels decoded", "busy seconds", "memory",
    )  # fmt: skip
    for one in evaluation.cost:
        seconds = ", ".join(f"{lane} {value:.1f}" for lane, value in one.seconds.items())
        table.add_row(
            one.name,
            f"{one.visited} of {one.tiles}",
            f"{one.visited / one.tiles:.1%}",
            f"{one.pixels:,}",
            number(one.whole_image_passes),
            f"{one.source_pixels:,}",
            seconds,
            format_nbytes(one.measured_nbytes) if one.measured_nbytes else "",
        )
    total = sum(one.whole_image_passes for one in evaluation.cost)
    table.add_row("all", "", "", "", number(total), "", "", "")
    return table


def _kept(evaluation: Evaluation) -> Iterator[Part]:
    if (same := evaluation.agreement) is not None:
        yield Text(
            f"against the dense run: {number(same.labels_equal, '.3%')} of labels equal, mean |dp| "
            f"{number(same.mean_difference, '.4f')}"
        )
    table = Table(
        "class, of the dense run", "AP", "dense AP", "kept", "difference per image",
        "worst change of recall", "image",
    )  # fmt: skip
    for one in evaluation.classes:
        kept = evaluation.kept[one.name]
        gain = kept.gain
        mean, low, high = (number(end, "+.3f") for end in (gain.mean, gain.low, gain.high))
        table.add_row(
            one.name,
            number(one.pooled.average_precision),
            number(kept.dense.pooled.average_precision),
            "undefined" if kept.precision_kept is None else number(kept.precision_kept, ".1%"),
            f"{mean} ({low} to {high})",
            number(kept.recall_change.worst, "+.3f"),
            kept.recall_change.worst_image,
        )
    yield table
