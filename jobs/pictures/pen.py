"""Drawing in points on an image of pixels: words, rectangles, polygons. Knows no page."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from saccade.pipeline.palette import Colour

ELLIPSIS = "..."


@functools.cache
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along: Aileron, which has ASCII and little more."""
    return ImageFont.load_default(size_px)


class Pen:
    """Draws on a page in points."""

    def __init__(self, page: Image.Image, scale: float) -> None:
        self._page, self._draw, self._scale = page, ImageDraw.Draw(page), scale

    def text(
        self, x: float, y: float, words: str, size: float, colour: Colour, anchor: str = "ls"
    ) -> None:
        """Words on the baseline ``y``; anchored left ('ls'), right ('rs') or middle ('ms')."""
        place = x * self._scale, y * self._scale
        self._draw.text(place, words, colour, self._font(size), anchor=anchor)

    def width(self, words: str, size: float) -> float:
        """How wide words are."""
        return self._font(size).getlength(words) / self._scale

    def fit(self, words: str, size: float, room: float) -> str:
        """Words cut short until they fit."""
        if self.width(words, size) <= room:
            return words
        kept = len(words)
        while kept and self.width(words[:kept].rstrip() + ELLIPSIS, size) > room:
            kept -= 1
        return words[:kept].rstrip() + ELLIPSIS

    def rectangle(
        self, x: float, y: float, width: float, height: float, fill: Colour, edge: Colour | None
    ) -> None:
        """A filled rectangle, with a hairline where an edge is given."""
        box = [round(v * self._scale) for v in (x, y, x + width, y + height)]
        self._draw.rectangle((*box[:2], box[2] - 1, box[3] - 1), fill, edge)

    def paste(self, x: float, y: float, pixels: np.ndarray) -> None:
        """Pixels as they are, their corner at a point."""
        corner = round(x * self._scale), round(y * self._scale)
        self._page.paste(Image.fromarray(np.ascontiguousarray(pixels)), corner)

    def pixels(self, length: float) -> int:
        """A length in pixels."""
        return max(1, round(length * self._scale))

    def _font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return font(max(4, round(size * self._scale)))

    def polygon(self, corners: Sequence[tuple[float, float]], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * self._scale, y * self._scale) for x, y in corners], fill)
