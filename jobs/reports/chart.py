"""Throughput as a drawing: one area per pass, stacked, in SVG written here. Pure.

The plot stretches with the page; text stands beside it at shares of its size and stays upright.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from saccade.jobs.monitoring.progress import duration
from saccade.jobs.pictures.words import significant
from saccade.jobs.reports.model import Throughput
from saccade.jobs.reports.timeline import Stretch

HEIGHT_PX, PLOT_PX, TOP_PX = 190, 150, 14
"""Of the drawing, of the plot in it, and of the room above."""
WIDE = 1000
"""The plot's own width, in units that stretch."""
PAUSE_BINS = 3
"""A pause is drawn so many bins wide."""
ROUND = ((1, 5), (2, 4), (4, 4), (5, 5), (8, 4), (10, 5))
"""Tops of a plot, times a power of ten, each with the lines that divide it into round rates."""


def chart(throughput: Throughput) -> str:
    """The drawing; empty where nothing was computed."""
    bins = [dict(one) for one in _laid_out(throughput.stretches)]
    rates = [sum(one.values()) / throughput.width_seconds for one in bins]
    if not any(rates):
        return ""
    top, lines = ceiling(max(rates))
    parts = (
        f'<div class="plot"><svg class="rates" width="74" height="{HEIGHT_PX}" aria-hidden="true">',
        *_rates(top, lines),
        f'</svg><svg class="chart" width="100%" height="{HEIGHT_PX}" role="img" ',
        f'aria-label="{escape(_said(throughput, rates))}">',
        *_lines(lines),
        f'<svg x="0" y="{TOP_PX}" width="100%" height="{PLOT_PX}" ',
        f'viewBox="0 0 {WIDE} {PLOT_PX}" preserveAspectRatio="none">',
        *_areas(throughput, bins, top),
        *_targets(throughput, bins),
        "</svg>",
        *_dates(throughput, len(bins)),
        "</svg></div>",
    )
    return "".join(parts)


def _laid_out(stretches: Sequence[Stretch]) -> Iterator[dict[str, float]]:
    """All bins side by side, pauses as a few empty ones."""
    for number, stretch in enumerate(stretches):
        if number:
            yield from ({} for _ in range(PAUSE_BINS))
        yield from map(dict, stretch.bins)


def ceiling(rate: float) -> tuple[float, int]:
    """The round number that a plot of this rate ends at, and how many lines divide it."""
    power = 10.0 ** math.floor(math.log10(rate))
    top, lines = next(pair for pair in ROUND if pair[0] * power >= rate * (1 - 1e-9))
    return top * power, lines


def _lines(lines: int) -> Iterator[str]:
    """Lines across, from the bottom of the plot to its top."""
    for line in range(lines + 1):
        y = TOP_PX + PLOT_PX * (1 - line / lines)
        yield f'<line class="rule" x1="0" x2="100%" y1="{y:g}" y2="{y:g}"/>'


def _rates(top: float, lines: int) -> Iterator[str]:
    """What each line stands for, beside it."""
    for line in range(lines + 1):
        y = TOP_PX + PLOT_PX * (1 - line / lines) + 4
        text = pixels_text(top * line / lines) + "/s" if line == lines else ""
        text = text or pixels_text(top * line / lines).split()[0]
        yield f'<text x="64" y="{y:g}">{text}</text>'


def pixels_text(pixels: float) -> str:
    """An amount of pixels, three digits of it: '3.19 Mpx'."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if pixels >= size:
            return f"{significant(pixels / size)} {unit}px"
    return f"{significant(pixels)} px"


def _areas(throughput: Throughput, bins: Sequence[dict[str, float]], top: float) -> Iterator[str]:
    """One stepped area per pass, each on those below it."""
    below = [0.0] * len(bins)
    for index, name in enumerate(throughput.passes):
        above = [
            base + one.get(name, 0) / throughput.width_seconds
            for base, one in zip(below, bins, strict=True)
        ]
        path = _steps(above, top) + _steps(below, top, back=True)
        yield f'<path class="pass-{index}" d="M{path}Z"/>'
        below = above


def _steps(rates: Sequence[float], top: float, back: bool = False) -> str:
    """The upper edge of an area as points, from left to right or back."""
    wide = WIDE / len(rates)
    points = [
        f"{(i + side) * wide:.1f} {PLOT_PX * (1 - rate / top):.1f}"
        for i, rate in enumerate(rates)
        for side in (0, 1)
    ]
    return ("L" if back else "") + "L".join(reversed(points) if back else points)


def _targets(throughput: Throughput, bins: Sequence[dict[str, float]]) -> Iterator[str]:
    """What a pointer finds over each bin."""
    wide = WIDE / len(bins)
    for index, one in enumerate(bins):
        if one:
            told = ", ".join(f"{name} {pixels_text(amount)}" for name, amount in one.items())
            yield (
                f'<rect class="target" x="{index * wide:.1f}" y="0" width="{wide:.1f}" '
                f'height="{PLOT_PX}"><title>{escape(told)} in '
                f"{throughput.width_seconds:g} s</title></rect>"
            )


def _dates(throughput: Throughput, bins: int) -> Iterator[str]:
    """When each stretch began, as far as there is room, and when the last one ended."""
    start, room = 0, 0.0
    y = TOP_PX + PLOT_PX + 17
    last = throughput.stretches[-1]
    end = last.since_seconds + len(last.bins) * throughput.width_seconds
    for number, stretch in enumerate(throughput.stretches):
        share = start / bins
        if number:
            at = (start - PAUSE_BINS / 2) / bins
            yield (
                f'<line class="pause" x1="{at:.2%}" x2="{at:.2%}" y1="{TOP_PX}" '
                f'y2="{TOP_PX + PLOT_PX}"/>'
            )
        if room <= share <= 0.62:
            yield f'<text x="{share:.2%}" y="{y}">{_time(stretch.since_seconds, throughput)}</text>'
            room = share + 0.24
        start += len(stretch.bins) + PAUSE_BINS
    yield f'<text class="end" x="100%" y="{y}">{_time(end, throughput)}</text>'


def _time(seconds: float, throughput: Throughput) -> str:
    if not throughput.by_clock:
        return f"{duration(seconds)} busy"
    return date_text(seconds)


def date_text(seconds: float | None) -> str:
    """A moment for people, in UTC; 'unknown' for None, and for what no calendar holds."""
    try:
        assert seconds is not None
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (AssertionError, ValueError, OverflowError, OSError):
        return "unknown"


def _said(throughput: Throughput, rates: Sequence[float]) -> str:
    """The drawing in words, for those who do not see it."""
    busy = [rate for rate in rates if rate]
    return (
        f"Pixels through models per second over time: at most {pixels_text(max(rates))}, on "
        f"average {pixels_text(sum(busy) / len(busy))} while there was work"
    )
