"""Recipe and image together give the frozen plan of one image. Reads no pixel, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from saccade.pipeline.capacity import ANY_DEVICE, Capacity
from saccade.pipeline.change import shared_classes
from saccade.pipeline.errors import PlanError, RecipeError
from saccade.pipeline.exit_rules import compares_passes
from saccade.pipeline.feature_grid import FeatureFlow, flows_of
from saccade.pipeline.image_plan import LABEL_NODATA, ImagePlan
from saccade.pipeline.inputs import may_lack_data
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import PassRecipe, Recipe, Resolution
from saccade.pipeline.sources.base import Identity, PixelSize, Source
from saccade.pipeline.sources.plane import PlaneSpec, locate
from saccade.pipeline.sources.some_bands import find_channels, seen_through

MOST_TILES = 1 << 27
"""In a pass; plans and their tables hold a few bytes of each."""
MOST_PIXEL_NBYTES = 1 << 30
"""Of the level that is read, under one pixel of a pass: it takes them in at once."""
FINER_TOLERANCE = 0.02
"""A pass may be this much coarser than the one before it; pyramids are not exact."""


def resolve_image(
    name: str,
    source: Source,
    identity: Identity,
    recipe: Recipe,
    specs: Sequence[ModelSpec],
    pixel_size: PixelSize | None = None,
    capacities: Sequence[Capacity] = (),
    model_hashes: Sequence[str] = (),
) -> ImagePlan:
    """How every pass of a recipe lies over one image.

    Args:
        name: the image's name in the run.
        source: the image, open.
        identity: the source's identity.
        recipe: with this image's overrides applied.
        specs: what the model of each pass declares, in the recipe's order.
        pixel_size: of level 0, where the file is silent or wrong.
        capacities: of the device, by pass; none where nothing is known of it.
        model_hashes: of each pass's model and weights; none where nobody asks.

    Raises:
        MissingPixelSize, ResolutionUnavailable: the image can't be read as the recipe asks.
        RecipeError: a model and a pass do not fit each other, or there are too many classes.
        PlanError: sizes do not nest, or passes do not go from coarse to fine.
    """
    size = pixel_size or source.pixel_size
    count = len(recipe.passes)
    known = capacities or [ANY_DEVICE] * count
    flows = flows_of(recipe, specs, model_hashes or [""] * count)
    layouts = tuple(
        _lay_out_pass(recipe, index, source, specs[index], size, known[index], flows[index])
        for index in range(count)
    )
    _check_tiles(name, layouts)
    _check_reads(name, layouts, source)
    _check_order(name, layouts)
    _check_exits(recipe, layouts)
    classes = recipe.output.classes or layouts[-1].classes
    _check_classes(classes)
    return ImagePlan(
        name=name,
        uri=source.uri,
        identity=identity,
        format=source.format,
        level_shapes=tuple(level.shape for level in source.levels),
        pixel_size=size,
        passes=layouts,
        classes=classes,
        fuse=recipe.fuse,
        scores=recipe.output.scores,
        keep=_kept(recipe),
        label_threshold=recipe.output.label_threshold,
        georeference=source.georeference,
    )


def locate_resolution(source: Source, asked: Resolution, pixel_size: PixelSize | None) -> PlaneSpec:
    """The image at a resolution that is stated outright.

    Args:
        source: the image, open.
        asked: anything but 'auto'.
        pixel_size: of level 0, where the file is silent or wrong.
    """
    return locate(
        source,
        mpp=asked.mpp,
        gsd=asked.gsd,
        downsample=asked.downsample,
        level=asked.level,
        pixel_size=pixel_size,
    )


def _lay_out_pass(
    recipe: Recipe,
    index: int,
    source: Source,
    spec: ModelSpec,
    pixel_size: PixelSize | None,
    capacity: Capacity,
    flow: FeatureFlow,
) -> PassLayout:
    one = recipe.passes[index]
    bands = None if one.bands is None else find_channels(source, one.bands)
    _check_model(one, seen_through(source, bands, scaled=one.scaled), spec)
    plane = locate_resolution(source, one.resolution, pixel_size)
    precision = "float32" if recipe.precision == "auto" else recipe.precision
    layout = lay_out(
        one, index, plane, spec, recipe.output, capacity=capacity, precision=precision, flow=flow
    )
    return replace(layout, bands=bands, scaled=one.scaled, holes=may_lack_data(source))


def seen_by(layout: PassLayout, source: Source) -> Source:
    """What a pass reads of an image: the bands that were frozen with its plan."""
    return seen_through(source, layout.bands, scaled=layout.scaled)


def _check_model(recipe: PassRecipe, source: Source, spec: ModelSpec) -> None:
    if spec.channels is not None and spec.channels != source.channels:
        raise RecipeError(
            f"pass {recipe.name!r}: the model takes {spec.channels} channels; {source.uri} has "
            f"{source.channels} ({', '.join(source.channel_names[:8])}); choose with `bands`"
        )
    if recipe.guidance and not spec.guidance:
        raise RecipeError(
            f"pass {recipe.name!r}: guidance is on, but its model takes none; remove 'guidance', "
            "or state 'guidance: true' on the model if its forward() has that argument"
        )


def _check_tiles(name: str, layouts: Sequence[PassLayout]) -> None:
    for one in layouts:
        count = one.tiles.rows * one.tiles.columns
        if count > MOST_TILES:
            raise PlanError(
                f"{name}: at most {MOST_TILES} tiles in a pass expected; {one.name!r} has "
                f"{count}, of {one.tile_px} pixels over {one.plane.shape}: choose larger "
                "tiles or a coarser resolution, if the image is so large indeed"
            )


def _check_reads(name: str, layouts: Sequence[PassLayout], source: Source) -> None:
    """Refuse what no memory holds: a pixel of a pass is the mean of all that lies under it."""
    for one in layouts:
        height, width = source.levels[one.plane.level].shape
        area = min(one.plane.factor, height) * min(one.plane.factor, width)
        nbytes = int(area) * source.channels * source.dtype.itemsize
        if nbytes > MOST_PIXEL_NBYTES:
            raise PlanError(
                f"{name}: at most {MOST_PIXEL_NBYTES} bytes of the image under a pixel of a pass "
                f"expected; {one.name!r} has {nbytes}, of level {one.plane.level} with {height} x "
                f"{width} pixels: ask for a finer resolution, or give the image coarser levels, "
                "if it is so large indeed"
            )


def _check_order(name: str, layouts: Sequence[PassLayout]) -> None:
    for coarse, fine in pairwise(layouts):
        if fine.plane.downsample > coarse.plane.downsample * (1 + FINER_TOLERANCE):
            raise PlanError(
                f"{name}: passes go from coarse to fine; {fine.name!r} "
                f"(1/{fine.plane.downsample:g}) is coarser than {coarse.name!r} before it "
                f"(1/{coarse.plane.downsample:g}); swap them"
            )


def _check_exits(recipe: Recipe, layouts: Sequence[PassLayout]) -> None:
    for one, (before, after) in zip(recipe.passes[1:], pairwise(layouts), strict=True):
        if compares_passes(one.exit) and not shared_classes(before, after):
            raise RecipeError(
                f"pass {after.name!r}: convergence compares the classes it shares with "
                f"{before.name!r}, and there are none: {', '.join(after.classes)}; found "
                f"{', '.join(before.classes)} there. Name classes alike, or leave by confidence"
            )


def _check_classes(classes: Sequence[str]) -> None:
    if len(classes) > LABEL_NODATA:
        raise RecipeError(
            f"labels hold at most {LABEL_NODATA} classes (254 and 255 are 'no data' and 'not "
            f"answered'); the result has {len(classes)}: name "
            "those that are wanted in 'output.classes'"
        )


def _kept(recipe: Recipe) -> tuple[str, ...]:
    if recipe.output.keep == "all":
        return tuple(one.name for one in recipe.passes)
    return recipe.output.keep
