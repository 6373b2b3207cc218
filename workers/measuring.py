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
    Inputs,
    inputs_of,
    may_lack_data,
    needs_statistics,
    percents_of,
)
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.recipe import ModelRecipe, Recipe
from saccade.pipeline.sources.averaged import Unrounded
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane, locate
from saccade.workers.reading import read_or_repair

BLOCK_PX = 1024
"""Side of what is read at a time."""
ENOUGH_TO_FILL_PX = 2**22
"""So many pixels tell what stands where there is no data; more are not decoded for it."""


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
    known: tuple[BandStatistics, ...] | None = None
    if is_measured(recipe, source):
        percents = percents_of([model.normalise for model in models], source.bands)
        known = measure(source, _looked_at(plan.passes[0], models, source), percents)
    passes = tuple(
        replace(layout, inputs=_inputs(layout, model, source, known))
        for layout, model in zip(plan.passes, models, strict=True)
    )
    return replace(plan, passes=passes, statistics=known)


def is_measured(recipe: Recipe, source: Source) -> bool:
    """Whether what some pass's model is given depends on the statistics of an image's bands."""
    lacks, models = may_lack_data(source), [one.model for one in recipe.passes]
    return any(needs_statistics(model.normalise, model.nodata, lacks) for model in models)


def _looked_at(glance: PassLayout, models: Sequence[ModelRecipe], source: Source) -> PassLayout:
    """What the statistics are of: the glance's pixels.

    Where they are for filling alone, for which a mean of much will do, means of those pixels.
    """
    if any(needs_statistics(model.normalise, "keep", lacks=False) for model in models):
        return glance
    downsample, (height, width) = glance.plane.downsample, glance.plane.shape
    while height * width > ENOUGH_TO_FILL_PX:
        downsample, height, width = 2 * downsample, height // 2, width // 2
    if downsample == glance.plane.downsample:
        return glance
    return replace(glance, plane=locate(source, downsample=downsample))


def _inputs(
    layout: PassLayout,
    model: ModelRecipe,
    source: Source,
    known: Sequence[BandStatistics] | None,
) -> Inputs:
    """Of the bands that a pass reads, as it reads them."""
    which = range(source.channels) if layout.bands is None else layout.bands
    chosen = None if known is None else [known[band] for band in which]
    if chosen is not None and layout.scaled:
        bands = [source.bands[band] for band in which]
        chosen = [one.scaled(b.scale, b.offset) for one, b in zip(chosen, bands, strict=True)]
    return inputs_of(model.normalise, model.nodata, len(which), chosen)


def measure(
    source: Source, glance: PassLayout, percents: Sequence[float]
) -> tuple[BandStatistics, ...]:
    """Statistics of every band, as stored, over the valid pixels of the glance's plane.

    Where the glance is given scaled samples, means of integers are not rounded here either.
    """
    source = Unrounded(source) if glance.scaled and source.dtype.kind in "iu" else source
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
    plane = Plane(source, glance.plane)
    for block in Grid(glance.plane.shape, BLOCK_PX):
        (pixels, valid), lost = read_or_repair(plane, block, glance)
        counted = np.ones(pixels.shape, bool)
        if valid is not None:
            counted &= valid
        for box, _ in lost:
            counted[box.relative_to(block).slices] = False
        yield pixels, counted
