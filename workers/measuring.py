"""The statistics of an image's bands, read block by block off the glance's plane: once per image.

Holds one block at a time. What can't be read, and what holds no data, does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from saccade.pipeline.band_statistics import BandStatistics, BandTally
from saccade.pipeline.geometry import Grid
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.inputs import (
    inputs_of,
    may_lack_data,
    needs_statistics,
    percents_of,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Window
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.workers.reading import read_samples, samples_present

BLOCK_PX = 1024
"""Side of what is read at a time."""


def with_inputs(plan: ImagePlan, recipe: Recipe, source: Source) -> ImagePlan:
    """A plan that says what samples become before every pass's model.

    Args:
        plan: of the image, laid out.
        recipe: with the image's overrides.
        source: the image, open; read only where a pass's inputs depend on statistics.

    Raises:
        RecipeError: fixed values of a normalisation are not one per band.
    """
    models = [one.model for one in recipe.passes]
    lacks = may_lack_data(source)
    known: tuple[BandStatistics, ...] | None = None
    if any(needs_statistics(model.normalise, model.nodata, lacks) for model in models):
        percents = percents_of([model.normalise for model in models])
        known = measure(source, plan.passes[0], percents)
    passes = tuple(
        replace(layout, inputs=inputs_of(model.normalise, model.nodata, source.channels, known))
        for layout, model in zip(plan.passes, models, strict=True)
    )
    return replace(plan, passes=passes, statistics=known)


def measure(
    source: Source, glance: PassLayout, percents: Sequence[float]
) -> tuple[BandStatistics, ...]:
    """Statistics of every band over the valid pixels of the glance's plane."""
    tallies = [BandTally(source.dtype, percents) for _ in range(source.channels)]
    _count(source, glance, tallies)
    unsettled = [tally.wants_more for tally in tallies]
    if any(unsettled):
        _count(source, glance, tallies)
    return tuple(tally.result() for tally in tallies)


def _count(source: Source, glance: PassLayout, tallies: Sequence[BandTally]) -> None:
    for pixels, counted in _blocks(source, glance):
        for band, tally in enumerate(tallies):
            tally.add(pixels[..., band][counted[..., band]])


def _blocks(source: Source, glance: PassLayout) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels of every block, and which of their samples count, both ``(h, w, bands)``."""
    plane, layout = Plane(source, glance.plane), replace(glance, context=())
    for block in Grid(glance.plane.shape, BLOCK_PX):
        read = read_samples(plane, layout, Window(block, block))
        counted = np.ones(read.pixels.shape, bool)
        present = samples_present(read.pixels, source.nodata)
        if present is not None:
            counted &= present
        for box in read.lost:
            counted[box.relative_to(block).slices] = False
        yield read.pixels, counted
