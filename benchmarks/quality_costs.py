"""What a choice of tiles costs, from the plan it leads to: pixels, operations, bytes decoded.

Pixels are those of the windows that are planned for the chosen tiles, halos included, as receipts
count them. Operations are counted once per pass, over one window of the plan, and scaled by pixels.
Bytes decoded are the samples of the file's own tiles that the windows of a pass touch, each counted
once per pass; a file without tiles, such as a photograph, is decoded whole, once for all passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import ModelSpec, Views
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.plan import plan_sweep
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.reduce import source_span


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image."""

    tiles: tuple[int, ...]
    """Per pass, visited."""
    pixels: tuple[int, ...]
    """Per pass, through the model, halos included."""
    decoded_nbytes: int
    """Samples of the file's tiles that were touched."""


def cost_of(plan: ImagePlan, masks: tuple[np.ndarray, ...], source: Source) -> Cost:
    """What visiting the chosen tiles costs, glance included.

    Args:
        plan: of the image.
        masks: per later pass, the tiles chosen.
        source: the image, for its own tiles; nothing of it is read.
    """
    glance = plan.passes[0].tiles
    chosen = (np.ones((glance.rows, glance.columns), bool), *masks)
    reads = [
        [window.read for unit in plan_sweep(plan.name, p, mask) for window in unit.windows]
        for p, mask in zip(plan.passes, chosen, strict=True)
    ]
    pixels = tuple(sum(box.area for box in boxes) for boxes in reads)
    tiles = tuple(int(mask.sum()) for mask in chosen)
    return Cost(tiles, pixels, decoded_nbytes(plan, reads, source))


def decoded_nbytes(plan: ImagePlan, reads: list[list[Box]], source: Source) -> int:
    """Bytes of samples decoded for the windows of every pass."""
    sample_nbytes = source.channels * source.dtype.itemsize
    touched = 0
    untiled: set[int] = set()
    for layout, boxes in zip(plan.passes, reads, strict=True):
        level = source.levels[layout.plane.level]
        if level.tile is None:
            untiled |= {layout.plane.level} if boxes else set()
        else:
            touched += _touched(layout, boxes, level.shape, max(level.tile))
    whole = sum(Box.of(source.levels[level].shape).area for level in untiled)
    return (touched + whole) * sample_nbytes


def _touched(layout: PassLayout, boxes: list[Box], shape: tuple[int, int], tile_px: int) -> int:
    """Pixels of a level's own tiles that the boxes of a pass read, each tile once."""
    grid = Grid(shape, tile_px)
    seen = np.zeros((grid.rows, grid.columns), bool)
    for box in boxes:
        inside = box.clip(layout.plane.shape)
        y0, y1 = source_span(inside.y0, inside.y1, layout.plane.factor, shape[0])
        x0, x1 = source_span(inside.x0, inside.x1, layout.plane.factor, shape[1])
        seen[grid.cells_touching(Box(y0, x0, y1, x1)).slices] = True
    return int(seen.sum()) * tile_px**2


def flops_per_px(recipe: Recipe, plan: ImagePlan, folder: Path) -> tuple[float, ...]:
    """Floating-point operations per input pixel of every pass, at the size of its windows."""
    return tuple(_flops_of_passes(recipe, plan, folder))


def _flops_of_passes(recipe: Recipe, plan: ImagePlan, folder: Path) -> Iterator[float]:
    for one, layout in zip(recipe.passes, plan.passes, strict=True):
        model = load_model(one.model, base_folder=folder)
        views = _views(model.spec, layout, len(plan.passes[max(0, layout.index - 1)].classes))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(views)
        height, width = layout.window_shape
        yield counter.get_total_flops() / (height * width)


def _views(spec: ModelSpec, layout: PassLayout, classes: int) -> Views:
    """One window of nothing, with all that the pass hands its model."""
    height, width = layout.window_shape
    channels = spec.channels or 3
    context = tuple(torch.zeros(1, channels, height, width) for _ in layout.context)
    guidance = torch.zeros(1, classes, height, width) if layout.guidance else None
    features = None
    if getattr(layout, "features", False) and spec.features is not None:
        side = spec.features[1]
        features = torch.zeros(1, spec.takes_features, height // side, width // side)
    return Views(
        torch.zeros(1, channels, height, width),
        guidance=guidance,
        context=context,
        downsample=layout.plane.downsample,
        features=features,
    )
