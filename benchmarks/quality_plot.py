"""Line plots in one PNG, two in a row, drawn with Pillow alone. Knows points, not runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCALE = 3
"""Drawn so many times larger and reduced, so that lines are smooth."""
SHOWN = 2
"""Pixels of the file per unit in which everything is placed."""
COLUMNS, WIDTH, HEIGHT, LEGEND = 2, 560, 400, 34
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 44, 52
INK, GRID, PAPER = "#222222", "#e3e3e3", "#ffffff"
Place = tuple[float, float]
"""x and y."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Line:
    """One curve."""

    label: str
    """In the legend."""
    points: tuple[tuple[float, float], ...]
    """x and y, rising in x."""
    colour: str
    """As '#rrggbb'."""
    band: tuple[tuple[float, float], ...] = ()
    """Lowest and highest y per point, over seeds; empty for none."""
    dashed: bool = False
    """Whether the line is broken."""
    joined: bool = True
    """Whether points are joined; single marks otherwise."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot."""

    title: str
    """Above it."""
    x: str
    """Label of the axis, unit included."""
    y: str
    """Likewise; written above the axis."""
    lines: tuple[Line, ...]
    """Drawn in order."""
    targets: tuple[tuple[float, float], ...] = ()
    """Marked with a cross: what is aimed at."""


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write the panels, two in a row, and one legend for all of them below."""
    columns = min(COLUMNS, len(panels))
    width, height = WIDTH * columns, HEIGHT * -(-len(panels) // columns)
    canvas = Image.new("RGB", (width * SCALE, (height + LEGEND) * SCALE), PAPER)
    pen = ImageDraw.Draw(canvas)
    for index, panel in enumerate(panels):
        _Drawing(pen, index % columns * WIDTH, index // columns * HEIGHT, panel).all()
    _legend(pen, panels, height)
    size = (width * SHOWN, (height + LEGEND) * SHOWN)
    reduced = canvas.resize(size, Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    reduced.save(path, optimize=True)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most so many."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def limits(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds all values, with a little room."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.1
    return low - room, high + room


class _Drawing:
    """One panel on the canvas; positions in unscaled pixels."""

    def __init__(self, on: ImageDraw.ImageDraw, left: int, top: int, panel: Panel) -> None:
        self.on, self.left, self.top, self.panel = on, left, top, panel
        xs = [x for line in panel.lines for x, _ in line.points] + [x for x, _ in panel.targets]
        ys = [y for line in panel.lines for _, y in line.points] + [y for _, y in panel.targets]
        ys += [end for line in panel.lines for band in line.band for end in band]
        self.xs, self.ys = limits([0.0, *xs]), limits(ys)

    def all(self) -> None:
        """Axes, lines, targets."""
        self._axes()
        for line in self.panel.lines:
            self._band(line)
        for line in self.panel.lines:
            self._line(line)
        for target in self.panel.targets:
            _cross(self.on, *self._place(*target))

    def _place(self, x: float, y: float) -> Place:
        across = (x - self.xs[0]) / (self.xs[1] - self.xs[0])
        up = (y - self.ys[0]) / (self.ys[1] - self.ys[0])
        return (
            self.left + LEFT + across * (WIDTH - LEFT - RIGHT),
            self.top + HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    def _axes(self) -> None:
        for x in ticks(*self.xs):
            at = self._place(x, self.ys[0])
            self._stroke([at, self._place(x, self.ys[1])], GRID, 1)
            self._text((at[0], at[1] + 13), f"{x:g}", "mm", 11)
        for y in ticks(*self.ys):
            at = self._place(self.xs[0], y)
            self._stroke([at, self._place(self.xs[1], y)], GRID, 1)
            self._text((at[0] - 6, at[1]), f"{y:g}", "rm", 11)
        corner = self._place(self.xs[0], self.ys[0])
        self._stroke([corner, self._place(self.xs[1], self.ys[0])], INK, 1)
        self._stroke([corner, self._place(self.xs[0], self.ys[1])], INK, 1)
        self._text((self.left + LEFT, self.top + 14), self.panel.title, "lm", 14)
        self._text((self.left + LEFT, self.top + 32), self.panel.y, "lm", 11)
        middle = self.left + LEFT + (WIDTH - LEFT - RIGHT) / 2
        self._text((middle, self.top + HEIGHT - 18), self.panel.x, "mm", 12)

    def _band(self, line: Line) -> None:
        if not line.band or len(line.points) < 2:
            return
        pairs = list(zip(line.points, line.band, strict=True))
        edge = [self._place(x, high) for (x, _), (_, high) in pairs]
        edge += [self._place(x, low) for (x, _), (low, _) in reversed(pairs)]
        self.on.polygon([_scaled(p) for p in edge], fill=_paler(line.colour))

    def _line(self, line: Line) -> None:
        places = [self._place(x, y) for x, y in line.points]
        if line.joined:
            for piece in _dashes(places) if line.dashed else [places]:
                self._stroke(piece, line.colour, 2)
        for x, y in places:
            _dot(self.on, x, y, line.colour)

    def _stroke(self, places: Sequence[Place], colour: str, width: float) -> None:
        _stroke(self.on, places, colour, width)

    def _text(self, at: Place, text: str, anchor: str, size: int) -> None:
        _text(self.on, at, text, anchor, size)


def _legend(pen: ImageDraw.ImageDraw, panels: Sequence[Panel], top: int) -> None:
    """Every label once, in the order of the panels, and what a cross means."""
    shown = dict.fromkeys((one.label, one.colour) for panel in panels for one in panel.lines)
    x, y = float(LEFT), top + LEGEND / 2 - 4
    for label, colour in [*shown, *([("target", "")] if any(p.targets for p in panels) else [])]:
        if colour:
            _dot(pen, x, y, colour)
        else:
            _cross(pen, x, y)
        x += 14 + _text(pen, (x + 11, y), label, "lm", 12) + 24


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.ellipse([_scaled((x - 3.2, y - 3.2)), _scaled((x + 3.2, y + 3.2))], fill=colour)


def _cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    _stroke(pen, [(x - 6, y - 6), (x + 6, y + 6)], INK, 1.5)
    _stroke(pen, [(x - 6, y + 6), (x + 6, y - 6)], INK, 1.5)


def _stroke(pen: ImageDraw.ImageDraw, places: Sequence[Place], colour: str, width: float) -> None:
    if len(places) > 1:
        points = [_scaled(place) for place in places]
        pen.line(points, fill=colour, width=round(width * SCALE), joint="curve")


def _text(pen: ImageDraw.ImageDraw, at: Place, text: str, anchor: str, size: int) -> float:
    """Write, and say how wide it is."""
    font: Font = ImageFont.load_default(size * SCALE)
    pen.text(_scaled(at), text, fill=INK, font=font, anchor=anchor)
    return float(pen.textlength(text, font=font)) / SCALE


def _scaled(place: Place) -> Place:
    return place[0] * SCALE, place[1] * SCALE


def _paler(colour: str, share: float = 0.22) -> str:
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)


def _dashes(places: Sequence[Place], dash: float = 6.0) -> Iterator[list[Place]]:
    """A broken line, as pieces."""
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / dash))
        for piece in range(0, count, 2):
            a, b = piece / count, min(1.0, (piece + 1) / count)
            yield [
                (x0 + a * (x1 - x0), y0 + a * (y1 - y0)),
                (x0 + b * (x1 - x0), y0 + b * (y1 - y0)),
            ]
