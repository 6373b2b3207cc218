"""The statistics of an image's bands, read block by block off the glance's plane: once per image.

Of an image with an area of interest they are those inside the tiles of the glance that it meets.

Holds one block at a time. What can't be read, and what holds no data, does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from saccade.pipeline.band_statistics import BandStatistics, BandTally
from saccade.pipeline.geometry import Box, Grid
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


@dataclass(frozen=True, slots=True, eq=False)
class Met:
    """Tiles of the glance that an area of interest meets, over a plane that may be coarser."""

    tiles: np.ndarray
    """``(tile rows, tile columns)`` bool."""
    side_px: float
    """Of a tile, in pixels of the plane."""

    @classmethod
    def of(cls, tiles: np.ndarray, glance: PassLayout, looked: PassLayout) -> Met:
        """The glance's tiles over the plane that is looked at."""
        return cls(tiles, glance.tile_px * glance.plane.downsample / looked.plane.downsample)

    def pixels(self, box: Box) -> np.ndarray:
        """Pixels of a box of the plane whose centre lies in a tile that is met, ``(h, w)`` bool."""
        spans = ((box.y0, box.y1), (box.x0, box.x1))
        rows, columns = (
            np.minimum(((np.arange(*span) + 0.5) / self.side_px).astype(np.int64), count - 1)
            for span, count in zip(spans, self.tiles.shape, strict=True)
        )
        return self.tiles[np.ix_(rows, columns)]


def with_inputs(
    plan: ImagePlan, recipe: Recipe, source: Source, inside: np.ndarray | None = None
) -> ImagePlan:
    """A plan that says what samples become before every pass's model.

    Args:
        plan: of the image, laid out.
        recipe: with the image's overrides.
        source: the image, open; read only where a pass's inputs depend on statistics.
        inside: ``(tile rows, tile columns)`` bool, tiles of the glance that an area of interest
            meets: statistics are of pixels inside them. None means all.

    Raises:
        RecipeError: fixed values of a normalisation are not one per band.
    """
    models = [one.model for one in recipe.passes]
    known: tuple[BandStatistics, ...] | None = None
    if is_measured(recipe, source):
        percents = percents_of([model.normalise for model in models], source.bands)
        glance = plan.passes[0]
        looked = _looked_at(glance, models, source, inside)
        met = None if inside is None else Met.of(inside, glance, looked)
        known = measure(source, looked, percents, met)
    passes = tuple(
        replace(layout, inputs=_inputs(layout, model, source, known))
        for layout, model in zip(plan.passes, models, strict=True)
    )
    return replace(plan, passes=passes, statistics=known)


def is_measured(recipe: Recipe, source: Source) -> bool:
    """Whether what some pass's model is given depends on the statistics of an image's bands."""
    lacks, models = may_lack_data(source), [one.model for one in recipe.passes]
    return any(needs_statistics(model.normalise, model.nodata, lacks) for model in models)


def _looked_at(
    glance: PassLayout, models: Sequence[ModelRecipe], source: Source, inside: np.ndarray | None
) -> PassLayout:
    """What the statistics are of: the glance's pixels.

    Where they are for filling alone, for which a mean of much will do, means of those pixels.
    """
    if any(needs_statistics(model.normalise, "keep", lacks=False) for model in models):
        return glance
    downsample, (height, width) = glance.plane.downsample, glance.plane.shape
    share = 1.0 if inside is None else float(inside.mean())
    while height * width * share > ENOUGH_TO_FILL_PX:
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
    source: Source,
    glance: PassLayout,
    percents: Sequence[float],
    met: Met | None = None,
) -> tuple[BandStatistics, ...]:
    """Statistics of every band, as stored, over the valid pixels of the glance's plane.

    Where an area of interest has ``met`` tiles, of pixels inside these alone.

    Where the glance is given scaled samples, means of integers are not rounded here either.
    """
    source = Unrounded(source) if glance.scaled and source.dtype.kind in "iu" else source
    tallies = [BandTally(source.dtype, percents) for _ in range(source.channels)]
    _count(source, glance, tallies, met)
    unsettled = [tally.wants_more for tally in tallies]
    if any(unsettled):
        _count(source, glance, tallies, met)
    return tuple(tally.result() for tally in tallies)


def _count(
    source: Source, glance: PassLayout, tallies: Sequence[BandTally], met: Met | None
) -> None:
    for pixels, counted in _blocks(source, glance, met):
        for band, tally in enumerate(tallies):
            tally.add(pixels[..., band][counted[..., band]])


def _blocks(
    source: Source, glance: PassLayout, met: Met | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels of every block, and which of their samples count, both ``(h, w, bands)``."""
    plane = Plane(source, glance.plane)
    for block, wanted in _wanted(glance, met):
        (pixels, valid), lost = read_or_repair(plane, block, glance)
        counted = np.ones(pixels.shape, bool)
        if valid is not None:
            counted &= valid
        for box, _ in lost:
            counted[box.relative_to(block).slices] = False
        if wanted is not None:
            counted &= wanted[..., None]
        yield pixels, counted


def _wanted(glance: PassLayout, met: Met | None) -> Iterator[tuple[Box, np.ndarray | None]]:
    """Blocks to read, and which of their pixels count, ``(h, w)`` bool; None means all."""
    for block in Grid(glance.plane.shape, BLOCK_PX):
        if met is None:
            yield block, None
            continue
        marked = met.pixels(block)
        if marked.any():
            rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
            least = Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
            yield least.shift(block.y0, block.x0), marked[least.slices]
