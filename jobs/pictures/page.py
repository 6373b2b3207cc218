"""The page of a picture: a heading, panels in columns and their legends, set in points.

A page is 830 points wide, the width of a README, and drawn at so many pixels per point. Knows
pictures and words; not where either comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from saccade.jobs.pictures.colours import FAINT, GREY, INK, PAPER, stripes
from saccade.jobs.pictures.ground import Ground, draw_ground
from saccade.jobs.pictures.panels import Panel, Row
from saccade.jobs.pictures.pen import Pen
from saccade.pipeline.geometry import Shape
from saccade.pipeline.palette import Colour

WIDTH_PT, MARGIN_PT, GAP_PT = 830.0, 18.0, 16.0
HEADING_PT, TITLE_PT, ROW_PT = 50.0, 23.0, 14.5
NAME_SIZE_PT, TITLE_SIZE_PT, TEXT_SIZE_PT = 16.0, 12.5, 10.5
SWATCH_PT = 14.0
TALLEST_PT = 420.0
"""A panel is at most this high; a tall image gets a narrow panel."""


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Where panels stand on a page; points unless said otherwise."""

    columns: int
    """Panels side by side."""
    panel: tuple[float, float]
    """Height and width of a panel's image."""
    scale: float
    """Pixels per point."""

    @classmethod
    def of(cls, image: Shape, panel_px: int) -> PageLayout:
        """The layout for an image of this shape: four panels abreast, two, or one.

        Args:
            image: height and width, in any unit.
            panel_px: longer side wanted of a panel's image.
        """
        height, width = image
        columns = 4 if width <= 1.3 * height else 2 if width <= 4 * height else 1
        room = (WIDTH_PT - 2 * MARGIN_PT - (columns - 1) * GAP_PT) / columns
        fit = min(room / width, TALLEST_PT / height)
        panel = max(24.0, height * fit), max(24.0, width * fit)
        return cls(columns, panel, min(3.5, max(1.0, panel_px / max(panel))))

    @property
    def panel_shape(self) -> Shape:
        """Height and width of a panel's image, in pixels."""
        return round(self.panel[0] * self.scale), round(self.panel[1] * self.scale)

    @property
    def column(self) -> float:
        """Width of a column."""
        return (WIDTH_PT - 2 * MARGIN_PT - (self.columns - 1) * GAP_PT) / self.columns


def draw_page(
    layout: PageLayout,
    heading: tuple[str, str, str],
    panels: tuple[Panel, ...],
    ground: Ground,
) -> Image.Image:
    """The whole page.

    Args:
        layout: where panels stand.
        heading: name, what is beside it on the right, and the line below.
        panels: all of one shape, ``layout.panel_shape``.
        ground: what a panel's pixels are on the ground, or on the slide.
    """
    lines = [panels[i : i + layout.columns] for i in range(0, len(panels), layout.columns)]
    heights = [_line_height(layout, line) for line in lines]
    height = HEADING_PT + MARGIN_PT + sum(heights)
    size = round(WIDTH_PT * layout.scale), round(height * layout.scale)
    page = Image.new("RGB", size, PAPER)
    pen = Pen(page, layout.scale)
    _draw_heading(pen, *heading)
    y = HEADING_PT + MARGIN_PT / 2
    for line, line_height in zip(lines, heights, strict=True):
        for column, panel in enumerate(line):
            x = MARGIN_PT + column * (layout.column + GAP_PT)
            _draw_panel(pen, layout, panel, ground, x, y)
        y += line_height
    return page


def _line_height(layout: PageLayout, line: tuple[Panel, ...]) -> float:
    rows = max(len(panel.legend) for panel in line)
    return TITLE_PT + layout.panel[0] + 8 + rows * ROW_PT + 8


def _draw_heading(pen: Pen, name: str, right: str, below: str) -> None:
    room = WIDTH_PT - 2 * MARGIN_PT
    taken = pen.width(right, TEXT_SIZE_PT) + GAP_PT
    pen.text(MARGIN_PT, 26, pen.fit(name, NAME_SIZE_PT, room - taken), NAME_SIZE_PT, INK)
    pen.text(WIDTH_PT - MARGIN_PT, 26, right, TEXT_SIZE_PT, GREY, "rs")
    pen.text(MARGIN_PT, 42, pen.fit(below, TEXT_SIZE_PT, room), TEXT_SIZE_PT, GREY)
    pen.rectangle(MARGIN_PT, HEADING_PT, room, 0.7, FAINT, None)


def _draw_panel(
    pen: Pen, layout: PageLayout, panel: Panel, ground: Ground, x: float, y: float
) -> None:
    height, width = layout.panel
    pen.text(x, y + 14, pen.fit(panel.title, TITLE_SIZE_PT, layout.column), TITLE_SIZE_PT, INK)
    top = y + TITLE_PT
    pen.rectangle(x - 0.6, top - 0.6, width + 1.2, height + 1.2, FAINT, None)
    pen.paste(x, top, panel.pixels)
    draw_ground(pen, ground, (x, top), layout.panel, layout.panel_shape[1])
    noted = all(_has_room_for_note(pen, row, layout.column) for row in panel.legend)
    for number, row in enumerate(panel.legend):
        shown = row if noted else replace(row, note="")
        _draw_row(pen, shown, x, top + height + 8 + number * ROW_PT, layout.column)


def _has_room_for_note(pen: Pen, row: Row, room: float) -> bool:
    words = (row.text, row.note, row.right)
    return SWATCH_PT + sum(pen.width(w, TEXT_SIZE_PT) + 6 for w in words if w) <= room


def _draw_row(pen: Pen, row: Row, x: float, y: float, room: float) -> None:
    """One line of a legend, ``ROW_PT`` high."""
    if row.bar is not None:
        _draw_bar(pen, row, row.bar, x, y, room)
        return
    if row.swatch is not None:
        _draw_swatch(pen, row, row.swatch, x, y + 1.2)
    left, baseline, size = x + (SWATCH_PT if row.swatch else 0), y + 10, TEXT_SIZE_PT
    end = x + room - (pen.width(row.right, size) + 6 if row.right else 0)
    words = pen.fit(row.text, size, end - left)
    pen.text(left, baseline, words, size, GREY if row.quiet else INK)
    left += pen.width(words, size) + 5
    pen.text(left, baseline, row.note, size, GREY)
    pen.text(x + room, baseline, row.right, size, GREY, "rs")


def _draw_swatch(pen: Pen, row: Row, colour: Colour, x: float, y: float) -> None:
    side = pen.pixels(9.5)
    pixels = np.broadcast_to(np.array(colour, np.uint8), (side, side, 3))
    if row.hatched:
        lines = stripes((side, side), max(3, side // 3))
        pixels = np.where(lines[..., None], pixels, np.array(PAPER, np.uint8))
    pen.paste(x, y, pixels)


def _draw_bar(pen: Pen, row: Row, bar: np.ndarray, x: float, y: float, room: float) -> None:
    """A strip of colours with its ends' values, and what it measures."""
    words = pen.fit(row.text, TEXT_SIZE_PT, room * 0.45)
    start = x + pen.width(words, TEXT_SIZE_PT) + 8
    pen.text(x, y + 10, words, TEXT_SIZE_PT, INK)
    pen.text(start, y + 10, "0", TEXT_SIZE_PT, GREY)
    pen.text(x + room, y + 10, "1", TEXT_SIZE_PT, GREY, "rs")
    start += pen.width("0", TEXT_SIZE_PT) + 4
    length = pen.pixels(x + room - pen.width("1", TEXT_SIZE_PT) - 4 - start)
    colours = bar[np.linspace(0, len(bar) - 1, length).astype(np.int64)]
    pen.paste(start, y + 2, np.repeat(colours[None], pen.pixels(8.5), axis=0))
