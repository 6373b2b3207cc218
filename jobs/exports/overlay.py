"""One class's scores as a heat map over the image, of a stated size: `saccade export --to png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from saccade.jobs.pictures.colours import NO_DATA, dimmed, heat, mix, stripes
from saccade.jobs.pictures.ground import Ground
from saccade.jobs.pictures.layers import class_scores
from saccade.jobs.pictures.page import MARGIN_PT, WIDTH_PT, PageLayout, draw_page
from saccade.jobs.pictures.panels import STRIPE_SHARE, Panel, Row, as_bytes, opacity
from saccade.jobs.pictures.picture import heading
from saccade.jobs.pictures.thumbnail import thumbnail
from saccade.jobs.pictures.words import resolution
from saccade.pipeline.errors import SourceError
from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.result import Result
from saccade.pipeline.store import ImageStore

GROUND = 243.0
"""Grey below the colours of the legend: about that of a pale image."""


def draw_overlays(
    result: Result, store: ImageStore, classes: tuple[str, ...], longest_px: int
) -> dict[str, Image.Image]:
    """A page per class: the image, pale, and over it the scores.

    Args:
        result: of the image, finished or not.
        store: the same.
        classes: to draw.
        longest_px: longer side of the image on the page.
    """
    shape = _shape(result.plan.level_shapes[0], longest_px)
    ground = dimmed(_image(result.plan, shape))
    scores = class_scores(result, store, shape)
    pages = {}
    for name in classes:
        panel = _panel(result.plan, name, ground, scores[result.classes.index(name)])
        pages[name] = draw_page(
            _layout(shape), heading(result), (panel,), Ground.of(result.plan, shape)
        )
    return pages


def write_page(path: Path, page: Image.Image, facts: str) -> None:
    """Write a PNG file whose text 'saccade' says what it was made from."""
    info = PngInfo()
    info.add_text("saccade", facts)
    page.save(path, "PNG", compress_level=6, pnginfo=info)


def _shape(image: Shape, longest_px: int) -> Shape:
    scale = longest_px / max(image)
    return max(1, round(image[0] * scale)), max(1, round(image[1] * scale))


def _layout(shape: Shape) -> PageLayout:
    """One panel on a page, its pixels those asked for; words stay readable beside a small one."""
    scale = max(1.0, max(shape) / (WIDTH_PT - 2 * MARGIN_PT))
    return PageLayout(1, (shape[0] / scale, shape[1] / scale), scale)


def _image(plan: ImagePlan, shape: Shape) -> np.ndarray:
    """The image over the colour of no data; of one that is gone that colour alone."""
    empty = np.full((*shape, 3), NO_DATA, np.float32)
    try:
        pixels = thumbnail(plan, shape)
    except SourceError:
        return empty
    return mix(empty, pixels[..., :3], pixels[..., 3].astype(np.float32) / 255)


def _panel(plan: ImagePlan, name: str, ground: np.ndarray, scores: np.ndarray) -> Panel:
    unknown = np.isnan(scores)
    pixels = mix(ground, heat(scores), np.where(unknown, 0.0, opacity(np.nan_to_num(scores))))
    lines = stripes(scores.shape, max(6, round(max(scores.shape) * STRIPE_SHARE)))
    pixels = mix(pixels, NO_DATA, np.where(unknown & lines, 1.0, 0.0))
    said = f"score at up to {resolution(plan, plan.last)}"
    rows = Row(name, bar=_bar()), Row(said, quiet=True)
    return Panel(name, as_bytes(pixels), rows)


def _bar() -> np.ndarray:
    """What a score looks like over pale ground, from 0 to 1: ``(256, 3)`` uint8."""
    steps = np.linspace(0, 1, 256, dtype=np.float32)[None]
    ground = np.full((1, 256, 3), GROUND, np.float32)
    return as_bytes(mix(ground, heat(steps), opacity(steps))).reshape(-1, 3)
