"""The pictures in a report: the panels of ``saccade show``, small, as WebP; and pixels by class.

Which images get how many is decided here from their cards; a report of any archive stays small
enough for a mail. What can't be drawn is said in its place.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from PIL import Image

from saccade.jobs.pictures.ground import Ground, with_ground
from saccade.jobs.pictures.panels import Panel, Scene, panels, result_panel
from saccade.jobs.pictures.picture import make_scene
from saccade.jobs.reports.model import Card
from saccade.pipeline.fusion import dequantise
from saccade.pipeline.geometry import Shape
from saccade.pipeline.palette import Colour, class_colours
from saccade.pipeline.result import open_result
from saccade.pipeline.signals import BACKGROUND
from saccade.pipeline.store import ImageStore
from saccade.workers.folder import RunFolder

LARGE_PX, SMALL_PX = 400, 112
"""Longer side of a picture, where an image has all four, and where it has one."""
PX_PER_PT = 1.4
"""Of scale bars and arrows, on pictures of the larger size."""
LARGE_QUALITY, SMALL_QUALITY = 62, 55
"""Of WebP, 0 to 100."""
LEAST_PX = 8
"""Shorter side of a picture of a long and narrow image."""
MOST_SCORES = 1 << 22
"""Pixels by class are counted on the finest level of the result that has at most so many scores."""
THRESHOLD = 0.5
"""A pixel has a class when its score is at least this; classes need not exclude each other."""
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many images have pictures."""

    large: int = 24
    """Images with all four pictures, at most."""
    small: int = 240
    """Images with one small picture, at most, beside those."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One panel."""

    title: str
    """What is seen."""
    shape: Shape
    """Height and width in pixels."""
    webp: bytes
    """Encoded."""


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How much of an image a class has."""

    name: str
    """Of the class."""
    colour: Colour
    """In the picture of the result."""
    share: float
    """Of the image's pixels, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is shown of one image."""

    number: int
    """Of its card."""
    pictures: tuple[Picture, ...] = ()
    """Four, or one."""
    classes: tuple[ClassShare, ...] = ()
    """But the background; nothing of an unfinished image."""
    problem: str = ""
    """Why there is no picture."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images have pictures; numbers of cards."""

    large: tuple[int, ...]
    """All four."""
    small: tuple[int, ...]
    """One."""
    without: int
    """How many images with answers are left without."""


def choose(cards: Sequence[Card], has_result: Callable[[str], bool], limits: Limits) -> Choice:
    """Images that ask to be looked at come first, then the order of the run."""
    order = sorted(range(len(cards)), key=lambda number: cards[number].care)
    drawn = [n for n in order if cards[n].answered and has_result(cards[n].name)]
    end = limits.large + limits.small
    return Choice(tuple(drawn[: limits.large]), tuple(drawn[limits.large : end]), len(drawn[end:]))


def draw(run: RunFolder, cards: Sequence[Card], choice: Choice) -> Iterator[Seen]:
    """What is shown of the chosen images, one by one, in their order."""

    def one(number: int, px: int) -> Seen:
        try:
            return see(run, cards[number].name, number, px)
        except Exception as error:
            # Whatever is wrong with one result, the report of all others must not fail on it.
            return Seen(number, problem=f"can't be drawn: {str(error) or type(error).__name__}")

    wanted = [(n, LARGE_PX) for n in choice.large] + [(n, SMALL_PX) for n in choice.small]
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda pair: one(*pair), wanted)


def see(run: RunFolder, name: str, number: int, px: int) -> Seen:
    """Pictures and classes of one prepared image.

    Raises:
        StoreError: its result can't be read.
    """
    path = run.result(name)
    result = open_result(path)
    scene = make_scene(result, ImageStore.open(path), fit(result.plan.level_shapes[0], px))
    if px == LARGE_PX:
        ground = Ground.of(scene.plan, scene.shape)
        drawn = (
            replace(one, pixels=with_ground(one.pixels, ground, PX_PER_PT)) for one in panels(scene)
        )
        pictures = tuple(encode(panel, LARGE_QUALITY) for panel in drawn)
    else:
        pictures = (encode(result_panel(scene), SMALL_QUALITY),)
    return Seen(number, pictures, class_shares(scene))


def fit(image: Shape, px: int) -> Shape:
    """Height and width of a picture whose longer side is so many pixels."""
    scale = px / max(image)
    height, width = (max(LEAST_PX, round(side * scale)) for side in image)
    return height, width


def encode(panel: Panel, quality: int) -> Picture:
    """A panel as WebP."""
    encoded = io.BytesIO()
    Image.fromarray(panel.pixels).save(encoded, "WEBP", quality=quality, method=4)
    height, width = panel.pixels.shape[:2]
    return Picture(panel.title, (height, width), encoded.getvalue())


def class_shares(scene: Scene) -> tuple[ClassShare, ...]:
    """How much of a finished image each class has; composing an unfinished one would be work."""
    result = scene.result
    if not result.complete:
        return ()
    few = [level for level in result.levels if level.size <= MOST_SCORES]
    level = (few[0] if few else result.levels[-1]).compute()
    shares = (dequantise(level) >= THRESHOLD).mean(axis=(1, 2))
    colours = class_colours(scene.plan.classes)
    return tuple(
        ClassShare(name, colour, float(share))
        for (name, colour), share in zip(colours.items(), shares, strict=True)
        if name != BACKGROUND
    )
