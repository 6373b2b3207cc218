"""Line plots side by side in one PNG, drawn with Pillow alone. Knows points and labels, no run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCALE = 3
"""Drawn so many times larger and reduced, so that lines are smooth."""
WIDTH, HEIGHT = 560, 430
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 44, 52
INK, GRID, PAPER = "#222222", "#e3e3e3", "#ffffff"
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
    legend: str = "lower right"
    """Its corner: 'lower right' or 'upper right'."""


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write the panels, side by side."""
    size = (WIDTH * len(panels) * SCALE, HEIGHT * SCALE)
    canvas = Image.new("RGB", size, PAPER)
    for index, panel in enumerate(panels):
        _Drawing(ImageDraw.Draw(canvas), index * WIDTH, panel).all()
    reduced = canvas.resize((size[0] // SCALE * 2, size[1] // SCALE * 2), Image.Resampling.LANCZOS)
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

    def __init__(self, on: ImageDraw.ImageDraw, left: int, panel: Panel) -> None:
        self.on, self.left, self.panel = on, left, panel
        xs = [x for line in panel.lines for x, _ in line.points] + [x for x, _ in panel.targets]
        ys = [y for line in panel.lines for _, y in line.points] + [y for _, y in panel.targets]
        ys += [end for line in panel.lines for band in line.band for end in band]
        self.xs, self.ys = limits([0.0, *xs]), limits(ys)

    def all(self) -> None:
        """Axes, lines, targets, legend."""
        self._axes()
        for line in self.panel.lines:
            self._band(line)
        for line in self.panel.lines:
            self._line(line)
        for target in self.panel.targets:
            self._cross(*self._place(*target))
        self._legend()

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.xs[0]) / (self.xs[1] - self.xs[0])
        up = (y - self.ys[0]) / (self.ys[1] - self.ys[0])
        return (
            self.left + LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
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
        self._text((self.left + LEFT, 14), self.panel.title, "lm", 14)
        self._text((self.left + LEFT, 32), self.panel.y, "lm", 11)
        middle = self.left + LEFT + (WIDTH - LEFT - RIGHT) / 2
        self._text((middle, HEIGHT - 16), self.panel.x, "mm", 12)

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
            self._dot(x, y, line.colour)

    def _dot(self, x: float, y: float, colour: str) -> None:
        corners = [_scaled((x - 3.2, y - 3.2)), _scaled((x + 3.2, y + 3.2))]
        self.on.ellipse(corners, fill=colour)

    def _cross(self, x: float, y: float) -> None:
        self._stroke([(x - 6, y - 6), (x + 6, y + 6)], INK, 1.5)
        self._stroke([(x - 6, y + 6), (x + 6, y - 6)], INK, 1.5)

    def _legend(self) -> None:
        shown = [(line.label, line.colour) for line in self.panel.lines if line.label]
        shown += [("target", "")] if self.panel.targets else []
        height = 17 * len(shown)
        top = TOP + 12 if self.panel.legend == "upper right" else HEIGHT - BOTTOM - height - 8
        right = self.left + WIDTH - RIGHT - 8
        for index, (label, colour) in enumerate(shown):
            y = top + 17 * index + 8
            if colour:
                self._dot(right - 5, y, colour)
            else:
                self._cross(right - 5, y)
            self._text((right - 16, y), label, "rm", 11)

    def _stroke(self, places: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        if len(places) > 1:
            points = [_scaled(place) for place in places]
            self.on.line(points, fill=colour, width=round(width * SCALE), joint="curve")

    def _text(self, at: tuple[float, float], text: str, anchor: str, size: int) -> None:
        font: Font = ImageFont.load_default(size * SCALE)
        self.on.text(_scaled(at), text, fill=INK, font=font, anchor=anchor)


def _scaled(place: tuple[float, float]) -> tuple[float, float]:
    return place[0] * SCALE, place[1] * SCALE


def _paler(colour: str, share: float = 0.22) -> str:
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)


def _dashes(
    places: Sequence[tuple[float, float]], dash: float = 6.0
) -> Iterator[list[tuple[float, float]]]:
    """A broken line, as pieces."""
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / dash))
        for piece in range(0, count, 2):
            a, b = piece / count, min(1.0, (piece + 1) / count)
            yield [
                (x0 + a * (x1 - x0), y0 + a * (y1 - y0)),
                (x0 + b * (x1 - x0), y0 + b * (y1 - y0)),
            ]
