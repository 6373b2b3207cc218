"""What was counted, as numbers: of one image, of all together, and how they spread. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Literal

from saccade.pipeline.errors import TruthError
from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.curves import (
    average_precision,
    best_threshold,
    calibration_error,
    dice,
)
from saccade.pipeline.quality.image import ImageQuality
from saccade.pipeline.quality.intervals import Spread, spread
from saccade.pipeline.quality.objects import SIZE_EDGES, Objects

Rule = float | Literal["best"] | Mapping[str, float]
"""Which threshold: one for all, the best for each on the images at hand, or by name."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What can be said of one class, of one image or of several as if they were one.

    All but the counts are shares in [0, 1], and NaN where they are not defined.
    """

    prevalence: float
    """Share of the grid's pixels that belong to the class, truth max-pooled."""
    average_precision: float
    """Area under the precision-recall curve of pixels."""
    dice: float
    """At the threshold."""
    calibration_error: float
    """Expected calibration error."""
    objects: int
    """Connected regions of the truth at level 0."""
    object_recall: float
    """Share of them with at least one pixel at or above the threshold."""
    objects_seen: float
    """Share of them with at least one pixel in a tile that the last pass answered."""
    truth_px: int
    """Pixels of level 0 that belong to the class."""
    pixels_seen: float
    """Share of them in tiles that the last pass answered."""


SPREAD_OF = ("average_precision", "dice", "object_recall", "pixels_seen", "objects_seen")
"""Numbers of which mean, 5th percentile and worst image are told."""


@dataclass(frozen=True, slots=True)
class SizeNumbers:
    """What can be said of the objects of some size."""

    objects: int
    """How many there are, in all images."""
    recall: float
    """Share that is found."""
    seen: float
    """Share that the last pass saw."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassSummary:
    """One class over all images."""

    name: str
    """Of the class, or 'any'."""
    threshold: float
    """At which Dice and recall were taken; NaN where none could be chosen."""
    pooled: Numbers
    """Of the pixels and objects of all images together."""
    images: Mapping[str, Numbers]
    """By name of the image."""
    sizes: Mapping[str, SizeNumbers]
    """By range of areas, in pixels of level 0."""
    counts: ScoreCounts
    """Of this class, all images together."""

    def values(self, number: str) -> dict[str, float]:
        """One number per image; NaN where it is not defined."""
        return {name: float(getattr(one, number)) for name, one in self.images.items()}

    def spread(self, number: str) -> Spread:
        """How one number is spread over the images for which it is defined."""
        return spread(self.values(number))


def thresholds_of(images: Sequence[ImageQuality], rule: Rule) -> dict[str, float]:
    """The threshold of each class.

    Raises:
        TruthError: the rule names thresholds, but not of every class.
    """
    names = images[0].pairs
    if isinstance(rule, Mapping):
        missing = [name for name in names if name not in rule]
        if missing:
            raise TruthError(
                f"a threshold for each of {', '.join(names)} is needed; found none for "
                f"{', '.join(missing)}; write them anew on a validation part"
            )
        return {name: float(rule[name]) for name in names}
    if rule == "best":
        counts = pooled_counts(images)
        every = (counts.negatives, counts.positives)
        best = [best_threshold(*of, counts.scores) for of in zip(*every, strict=True)]
        return dict(zip(names, best, strict=True))
    return dict.fromkeys(names, float(rule))


def pooled_counts(images: Sequence[ImageQuality]) -> ScoreCounts:
    """Those of all images together."""
    return reduce(add, (image.counts for image in images))


def summarise(
    images: Sequence[ImageQuality], thresholds: Mapping[str, float], least_px: int = 0
) -> tuple[ClassSummary, ...]:
    """What can be said of each class.

    Args:
        images: at least one; all with the same classes.
        thresholds: by class.
        least_px: smaller objects don't count, in pixels of level 0.
    """
    counts = pooled_counts(images)
    return tuple(
        _summary(images, counts, index, name, thresholds[name], least_px)
        for index, name in enumerate(images[0].pairs)
    )


def _summary(
    images: Sequence[ImageQuality],
    counts: ScoreCounts,
    index: int,
    name: str,
    threshold: float,
    least_px: int,
) -> ClassSummary:
    each = {image.name: image.objects[index].at_least(least_px) for image in images}
    every = Objects.joined(each.values())
    truth_px, seen_px = (
        sum(int(getattr(image, which)[index]) for image in images)
        for which in ("truth_px", "seen_px")
    )
    return ClassSummary(
        name=name,
        threshold=threshold,
        pooled=_numbers(counts, index, threshold, every, truth_px, seen_px),
        images={
            image.name: _numbers(
                image.counts,
                index,
                threshold,
                each[image.name],
                int(image.truth_px[index]),
                int(image.seen_px[index]),
            )
            for image in images
        },
        sizes={
            size: SizeNumbers(len(some), some.recall(threshold), some.seen_share)
            for size, some in every.by_size(_edges(least_px)).items()
        },
        counts=counts.only(index),
    )


def _edges(least_px: int) -> tuple[int, ...]:
    return (least_px, *(edge for edge in SIZE_EDGES if edge > least_px))


def _numbers(
    counts: ScoreCounts,
    index: int,
    threshold: float,
    objects: Objects,
    truth_px: int,
    seen_px: int,
) -> Numbers:
    negatives, positives = counts.negatives[index], counts.positives[index]
    pixels = int(negatives.sum() + positives.sum())
    return Numbers(
        prevalence=int(positives.sum()) / pixels if pixels else math.nan,
        average_precision=average_precision(negatives, positives),
        dice=dice(negatives, positives, counts.scores, threshold),
        calibration_error=calibration_error(negatives, positives, counts.scores),
        objects=len(objects),
        object_recall=objects.recall(threshold),
        objects_seen=objects.seen_share,
        truth_px=truth_px,
        pixels_seen=seen_px / truth_px if truth_px else math.nan,
    )


NUMBERS = tuple(field.name for field in fields(Numbers))
"""Their names, in order."""
