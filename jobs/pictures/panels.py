"""The four panels of a picture: colours laid over the image, and what a legend says of them.

Knows layers and colours; not where on the page anything goes, nor how text is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from saccade.jobs.pictures.colours import (
    FAILED,
    NO_DATA,
    PAPER,
    dimmed,
    heat,
    heat_table,
    mix,
    pass_colours,
    stripes,
)
from saccade.jobs.pictures.layers import answers, at_tiles, glance_saliency, tile_rows
from saccade.jobs.pictures.words import percent, resolution
from saccade.pipeline.coverage import was_answered
from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import COVERAGE_NODATA, STATUS_FAILED, STATUS_NONE, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.palette import Colour, class_colours
from saccade.pipeline.result import Result
from saccade.pipeline.signals import BACKGROUND
from saccade.pipeline.store import ImageStore

MAX_ROWS = 6
"""A legend lists at most so many passes or classes."""
STRIPE_SHARE = 1 / 45
"""Distance of hatching lines, as a share of a panel's longer side."""
MIN_GRID_PX = 5
"""Tiles smaller than this on a panel are outlined as a region, not each."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a legend."""

    text: str = ""
    """On the left; cut short where it is too long."""
    note: str = ""
    """After it in grey, where all lines of the legend have room for theirs."""
    right: str = ""
    """On the right, never cut short."""
    swatch: Colour | None = None
    """A square of this colour before the text."""
    hatched: bool = False
    """Whether the square is hatched."""
    bar: np.ndarray | None = None
    """``(n, 3)`` uint8: a strip of colours from 0 to 1, in place of the text."""
    quiet: bool = False
    """Whether it is set in grey, below the line that it explains."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One part of a picture."""

    title: str
    """What is seen."""
    pixels: np.ndarray
    """``(h, w, 3)`` uint8."""
    legend: tuple[Row, ...]
    """What it means."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What all panels are drawn from."""

    result: Result
    """Of the image, finished or not."""
    store: ImageStore
    """The same, for what an unfinished one has of its pyramid."""
    thumbnail: np.ndarray
    """``(h, w, 4)`` uint8 at the panels' size; alpha 0 where there is no data."""
    source_format: str
    """How the image is stored; or why it can't be shown."""

    @property
    def plan(self) -> ImagePlan:
        """Of the image."""
        return self.result.plan

    @property
    def shape(self) -> Shape:
        """Height and width of every panel."""
        return self.thumbnail.shape[0], self.thumbnail.shape[1]

    @property
    def pitch_px(self) -> int:
        """Distance of hatching lines."""
        return max(6, round(max(self.shape) * STRIPE_SHARE))

    @property
    def pixels(self) -> np.ndarray:
        """The image over the colour of no data, ``(h, w, 3)`` float32."""
        alpha = self.thumbnail[..., 3].astype(np.float32) / 255
        return mix(np.full((*self.shape, 3), NO_DATA, np.float32), self.thumbnail[..., :3], alpha)

    @property
    def absent(self) -> np.ndarray:
        """How much of each pixel has no data, ``(h, w)`` float32 in [0, 1]."""
        known = self.thumbnail[..., 3].astype(np.float32) / 255
        # of an image that is gone nothing is known, and what was found is shown all the same
        lacks = self.plan.passes[0].holes and bool(known.any())
        return 1 - known if lacks else np.zeros_like(known)


def panels(scene: Scene) -> tuple[Panel, ...]:
    """The image, what the glance saw, who looked where, the result."""
    return image_panel(scene), glance_panel(scene), looks_panel(scene), result_panel(scene)


# --------------------------------------------------------------------------------- image and glance


def image_panel(scene: Scene) -> Panel:
    """The image itself."""
    levels = len(scene.plan.level_shapes)
    rows = Row(scene.source_format), Row(f"{levels} level{'s'[: levels - 1]}", quiet=True)
    return Panel("The image", as_bytes(scene.pixels), rows)


def glance_panel(scene: Scene) -> Panel:
    """What the first pass said about looking closer, as a heat map."""
    layout = scene.plan.passes[0]
    title = f"What the {layout.name} saw" if len(scene.plan.passes) > 1 else "Saliency"
    saliency = glance_saliency(scene.result, scene.store, scene.shape)
    if saliency is None:
        pixels = _unknown(scene, np.ones(scene.shape, bool), scene.pixels * 0 + 255)
        return Panel(title, as_bytes(pixels), (Row("not kept; see the recipe's output.keep"),))
    pixels = heat(saliency).astype(np.float32)
    pixels = _unknown(scene, np.isnan(saliency), pixels)
    where = f"at {resolution(scene.plan, layout)}, the whole image"
    text = "nothing yet" if np.isnan(saliency).all() else where
    rows = (Row("saliency", bar=heat_table()), Row(text, quiet=True))
    return Panel(title, as_bytes(pixels), rows)


def _unknown(scene: Scene, where: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pale hatching where there is no answer yet, plain where there is no data."""
    lines = stripes(scene.shape, scene.pitch_px)
    ground = mix(pixels, PAPER, np.where(where, 0.9, 0.0))
    return mix(mix(ground, NO_DATA, np.where(where & lines, 1.0, 0.0)), NO_DATA, scene.absent)


# --------------------------------------------------------------------------------- who looked where


def looks_panel(scene: Scene) -> Panel:
    """The image pale, and over it every pass in its own colour, tile by tile."""
    result, plan = scene.result, scene.plan
    finest = finest_answer(scene)
    pixels = dimmed(scene.pixels)
    colours = pass_colours(len(plan.passes))
    for layout, colour in zip(plan.passes, colours, strict=True):
        strength = 0.12 + 0.43 * (layout.index + 1) / len(plan.passes)
        pixels = mix(pixels, colour, np.where(finest == layout.index + 1, strength, 0.0))
    pixels = _unknown(scene, finest == 0, pixels)
    pixels = _outlined(scene, pixels, colours)
    failed = at_tiles(result.status == STATUS_FAILED, plan, plan.last, scene.shape)
    lines = stripes(scene.shape, scene.pitch_px)
    pixels = mix(pixels, FAILED, np.where(failed, np.where(lines, 1.0, 0.25), 0.0))
    return Panel("Who looked where", as_bytes(pixels), tuple(_looks_legend(scene, colours)))


def finest_answer(scene: Scene) -> np.ndarray:
    """``(h, w)`` int64: ``k + 1`` where pass ``k`` is the finest that answered; 0 where none did.

    Coverage credits whole tiles of the last pass; tiles of an earlier pass that do not nest with
    them are known from that pass's own status, where it was kept.
    """
    coverage = np.where(scene.result.coverage >= COVERAGE_NODATA, 0, scene.result.coverage)
    finest = at_tiles(coverage.astype(np.int64), scene.plan, scene.plan.last, scene.shape)
    for one in scene.result.passes.values():
        here = at_tiles(was_answered(one.status), scene.plan, one.layout, scene.shape)
        finest = np.maximum(finest, np.where(here, one.layout.index + 1, 0))
    return finest


def _outlined(scene: Scene, pixels: np.ndarray, colours: tuple[Colour, ...]) -> np.ndarray:
    """Tiles outlined: those that later passes visited, and those that they are still to visit."""
    for one in list(scene.result.passes.values())[1:]:
        layout, status = one.layout, one.status
        selection = None if scene.result.complete else one.selection
        wanted = status != STATUS_NONE
        if selection is not None:
            wanted = wanted | selection.mask(layout.tiles)
        each = layout is scene.plan.last
        lines = tile_outlines(scene.plan, layout, wanted, scene.shape, each)
        pixels = mix(pixels, colours[layout.index], np.where(lines, 0.85, 0.0))
    return pixels


def tile_outlines(
    plan: ImagePlan, layout: PassLayout, wanted: np.ndarray, shape: Shape, each: bool
) -> np.ndarray:
    """``(h, w)`` bool: borders of some tiles of a pass, one pixel wide on both sides.

    Args:
        plan: of the image.
        layout: of the pass.
        wanted: ``(tile rows, tile columns)`` bool, the tiles.
        shape: of the panel.
        each: outline every tile, where tiles are large enough; else only the region they make up.
    """
    rows, columns = (tile_rows(plan, layout, shape, axis) for axis in (0, 1))
    inside: np.ndarray = wanted[np.ix_(rows, columns)]
    numbers = np.where(inside, 1, 0)
    tile_px = layout.tile_px * layout.plane.downsample * shape[0] / plan.level_shapes[0][0]
    if each and tile_px >= MIN_GRID_PX:
        numbers = np.where(inside, 1 + rows[:, None] * layout.tiles.columns + columns, 0)
    padded = np.pad(numbers, 1)
    lines: np.ndarray = inside & (
        (padded[:-2, 1:-1] != numbers)
        | (padded[1:-1, :-2] != numbers)
        | (padded[2:, 1:-1] == 0)
        | (padded[1:-1, 2:] == 0)
    )
    return lines


def _looks_legend(scene: Scene, colours: tuple[Colour, ...]) -> Iterator[Row]:
    plan, summary = scene.plan, scene.result.summary()
    counts = summary["passes"]
    for layout in plan.passes[:MAX_ROWS]:
        yield _pass_row(scene, layout, counts[layout.name], colours[layout.index])
    if len(plan.passes) > MAX_ROWS:
        yield Row(f"and {len(plan.passes) - MAX_ROWS} more passes", quiet=True)
    if scene.absent.any():
        yield Row("no data", "", f"{percent(float(scene.absent.mean()))} of the area", NO_DATA)
    failed = sum(count["failed"] for count in counts.values() if count)
    if failed:
        yield Row("could not be read", "", f"{failed:,} tiles", FAILED, hatched=True)


def _pass_row(
    scene: Scene, layout: PassLayout, count: dict[str, int] | None, colour: Colour
) -> Row:
    """How many tiles a pass visited: of all, or of those that it is to visit."""
    size, chosen = resolution(scene.plan, layout), _chosen(scene, layout)
    if count is None:
        return Row(layout.name, size, "not kept", colour)
    visited, total = count["visited"], count["tiles"]
    if chosen is not None and chosen > visited:
        return Row(layout.name, size, f"{visited:,} of {chosen:,} chosen so far", colour)
    if not visited and not scene.result.complete:
        return Row(layout.name, size, "not yet", colour)
    answered = visited - count.get("nodata", 0)
    text = f"{answered:,} of {total:,} tiles, {percent(answered / total)}"
    return Row(layout.name, size, text, colour)


def _chosen(scene: Scene, layout: PassLayout) -> int | None:
    """How many tiles a pass is to visit; None where that is not known, or no longer matters."""
    one = scene.result.passes.get(layout.name)
    if scene.result.complete or one is None or one.selection is None:
        return None
    return len(one.selection.tiles)


# --------------------------------------------------------------------------------------- the result


def result_panel(scene: Scene) -> Panel:
    """The strongest answer over the pale image: the class as colour, the score as its strength."""
    found = answers(scene.result, scene.store, scene.shape)
    classes = scene.plan.classes
    palette = np.array(list(class_colours(classes).values()), np.uint8)
    alpha = opacity(np.nan_to_num(found.score))
    pixels = mix(dimmed(scene.pixels), palette[found.winner], alpha)
    pixels = _unknown(scene, np.isnan(found.score), pixels)
    shown = [name for name in classes if name != BACKGROUND]
    title = f"The result: {shown[0]}" if len(shown) == 1 else "The result"
    return Panel(title, as_bytes(pixels), tuple(_result_legend(scene, palette)))


def opacity(score: np.ndarray) -> np.ndarray:
    """How strongly a score in [0, 1] covers the image; a score of 1 lets a little of it through."""
    strength: np.ndarray = 0.92 * np.clip(score, 0, 1) ** 0.75
    return strength


def _result_legend(scene: Scene, palette: np.ndarray) -> Iterator[Row]:
    pairs = zip(scene.plan.classes, palette, strict=True)
    named = [(name, colour) for name, colour in pairs if name != BACKGROUND]
    if len(named) == 1:
        yield Row(named[0][0], bar=_opacity_bar(named[0][1]))
    else:
        for name, colour in named[:MAX_ROWS]:
            yield Row(name, swatch=(int(colour[0]), int(colour[1]), int(colour[2])))
        if len(named) > MAX_ROWS:
            yield Row(f"and {len(named) - MAX_ROWS} more classes", quiet=True)
    yield from (Row(line, quiet=True) for line in _result_lines(scene))


def _opacity_bar(colour: np.ndarray) -> np.ndarray:
    """A score's colour over pale ground, from 0 to 1: ``(256, 3)`` uint8."""
    ground = np.full((1, 256, 3), 243, np.float32)
    strip = as_bytes(mix(ground, colour, opacity(np.linspace(0, 1, 256))[None]))
    return strip.reshape(-1, 3)


def _result_lines(scene: Scene) -> Iterator[str]:
    """How fine the answers are."""
    size = resolution(scene.plan, scene.plan.last)
    if len(scene.plan.passes) == 1 and scene.result.complete:
        yield f"at {size}"
        return
    yield f"{percent(scene.result.summary()['refined'])} of the area at {size}"
    if not scene.result.complete:
        yield "as far as the run has come"
    else:
        yield "the rest from coarser passes"


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Rounded to uint8."""
    rounded: np.ndarray = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
    return rounded
