"""What the generated slide looks like: stained tissue drawn for any box of level 0.

Each pixel gets an amount of hematoxylin and of eosin; light through both gives its colour
(Beer-Lambert). Nuclei sit on a jittered lattice and around glands. It knows no file and no level
but the finest; where tissue and nests lie is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saccade.jobs.sample_anatomy import (
    Bools,
    Floats,
    SampleTruth,
    hashed,
    noise,
    tissue_outline,
    waver,
    wavering_distance,
)
from saccade.pipeline.geometry import Box

HEMATOXYLIN = (0.62, 0.72, 0.31)
"""Optical density of one unit of the stain in red, green, blue; near Macenko 2009, table 1."""
EOSIN = (0.14, 0.84, 0.46)
"""As above."""
GLASS = 243.0
"""Brightness of the empty slide, 0 to 255."""
REACH_PX = 16
"""No nucleus is drawn farther than this from its centre."""
CELL_PX = 16
"""Pitch of the lattice that nuclei are scattered on."""
GLAND_PITCH_PX = 232
"""Pitch of the lattice that glands are scattered on."""
GLAND_REACH_PX = 190
"""No gland reaches farther than this from its cell of that lattice."""
EDGE, GLAND_DEPTH = 60, 1400
"""Outline times the slide's side where tissue is full, and where glands may lie; per pixel of
distance from the border it grows by about 7."""
STROMA_DENSITY, NEST_DENSITY = 0.21, 0.80
"""Share of lattice cells that hold a nucleus."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Ellipses to stain, one entry per nucleus; positions in pixels of level 0."""

    y: Floats
    """Row of the centre."""
    x: Floats
    """Column of the centre."""
    long_px: Floats
    """Long semi-axis; below ``REACH_PX``."""
    short_px: Floats
    """Short semi-axis."""
    angle: Floats
    """Of the long axis, radians from the x axis towards y."""
    stain: Floats
    """Hematoxylin in the middle."""


@dataclass(slots=True)
class _Canvas:
    """What is known of each pixel of a box while it is drawn."""

    box: Box
    """In pixels of level 0; all arrays have its shape."""
    ys: Floats
    """Its rows."""
    xs: Floats
    """Its columns."""
    tissue: Floats
    """0 on glass, 1 in tissue, a few pixels between."""
    nest: Floats
    """0 outside lesions, 1 inside."""
    hematoxylin: Floats
    """Of everything but nuclei; 1 is the darkest nucleus."""
    eosin: Floats
    """0 to about 0.5."""
    crowded: Bools
    """Where no scattered nucleus goes: glands and clefts."""


def stained(truth: SampleTruth, box: Box) -> npt.NDArray[np.uint8]:
    """The slide inside a box of level 0: ``(height, width, 3)`` RGB.

    The box may reach beyond the slide; there is glass. Neighbouring boxes agree at their border.
    """
    side_px = truth.shape[0]
    seed = truth.seed
    if tissue_outline(side_px, seed).highest(box) <= 0:
        return _through_glass(seed, box, None, None)
    canvas = _blank(truth, box.grow(REACH_PX))
    _stroma(canvas, seed)
    linings = _glands(canvas, truth)
    nuclei = _nuclear_stain(canvas, seed, [_scattered(canvas, seed), *linings])
    keep = box.relative_to(canvas.box).slices
    hematoxylin = np.maximum(canvas.hematoxylin, nuclei)[keep]
    return _through_glass(seed, box, hematoxylin * canvas.tissue[keep], canvas.eosin[keep])


def _blank(truth: SampleTruth, box: Box) -> _Canvas:
    ys = np.arange(box.y0, box.y1, dtype=np.float32)
    xs = np.arange(box.x0, box.x1, dtype=np.float32)
    side_px = truth.shape[0]
    inward = tissue_outline(side_px, truth.seed).at(ys, xs) * np.float32(side_px)
    tissue = np.clip(inward / np.float32(EDGE), 0, 1)
    nest = np.zeros(box.shape, np.float32)
    for y, x, radius in truth.nests:
        if Box(int(y), int(x), int(y) + 1, int(x) + 1).grow(int(1.4 * radius)).overlaps(box):
            distance = wavering_distance(ys, xs, y, x, radius)
            np.maximum(nest, np.clip((1.02 - distance) * np.float32(radius / 16), 0, 1), out=nest)
    empty = np.zeros(box.shape, np.float32)
    return _Canvas(box, ys, xs, tissue, nest, empty, empty.copy(), np.zeros(box.shape, bool))


def _stroma(canvas: _Canvas, seed: int) -> None:
    """Wavy bundles of pink fibres with clefts between them; nests are bluer and smoother."""
    ys, xs = canvas.ys, canvas.xs
    broad = noise(seed, 30, 620, ys, xs)
    bend = noise(seed, 31, 190, ys, xs) * 260 + noise(seed, 32, 47, ys, xs) * 26
    path = bend + (xs * np.float32(0.21))[None, :] + (ys * np.float32(0.34))[:, None]
    fibre = np.sin(path * np.float32(0.83)) * 0.6 + np.sin(path * np.float32(0.29) + 1.3) * 0.4
    fibre *= 2.6 * np.abs(noise(seed, 35, 73, ys, xs) - 0.4) + 0.2
    grain = noise(seed, 33, 2.7, ys, xs) - 0.5
    coarse = noise(seed, 34, 21, ys, xs) - 0.5
    cleft = np.clip((np.sin(path * np.float32(0.083)) + coarse * 1.5 - 0.86) * 5, 0, 1)
    cleft *= np.clip((broad - 0.42) * 9, 0, 1) * (1 - canvas.nest)
    loose = 0.12 + 0.20 * broad + 0.07 * fibre + 0.20 * coarse + 0.16 * grain
    packed = 0.16 + 0.14 * coarse + 0.16 * grain
    eosin = (loose + (packed - loose) * canvas.nest) * (1 - 0.9 * cleft)
    canvas.eosin = np.maximum(eosin, 0) * canvas.tissue
    canvas.hematoxylin = 0.02 + 0.10 * canvas.nest + 0.04 * coarse * (1 - cleft)
    canvas.crowded = (cleft > 0.5) | (canvas.tissue < 0.6)


def _glands(canvas: _Canvas, truth: SampleTruth) -> list[Nuclei]:
    """Draw rings of epithelium around pale lumens; returns the nuclei that line them."""
    rings = []
    for y, x, radius in gland_places(canvas.box, truth):
        distance = wavering_distance(canvas.ys, canvas.xs, y, x, radius)
        inside = np.clip((1 - distance) * np.float32(radius / 3), 0, 1) * (1 - canvas.nest)
        lumen = np.clip((0.42 - distance) * np.float32(radius / 4), 0, 1)
        cell = (0.20 + 0.10 * distance) * (1 - 0.93 * lumen)
        canvas.eosin += (cell * canvas.tissue - canvas.eosin) * inside
        body = 0.13 * (1 - lumen)
        canvas.hematoxylin += (body - canvas.hematoxylin) * inside
        canvas.crowded |= distance < 1.08
        rings.append(_lining(y, x, radius, truth.seed))
    return rings


def gland_places(box: Box, truth: SampleTruth) -> Iterator[tuple[float, float, float]]:
    """Centre and radius of each gland that may reach into a box."""
    seed, near = truth.seed, box.grow(GLAND_REACH_PX).reduce(GLAND_PITCH_PX)
    outline = tissue_outline(truth.shape[0], seed)
    for row in range(near.y0, near.y1):
        for column in range(near.x0, near.x1):
            chance = [
                float(hashed(seed, k, np.int64(row), np.int64(column))) for k in range(40, 44)
            ]
            y = (row + 0.5 + 0.64 * (chance[0] - 0.5)) * GLAND_PITCH_PX
            x = (column + 0.5 * (row % 2) + 0.5 + 0.64 * (chance[1] - 0.5)) * GLAND_PITCH_PX
            radius = 42 + 42 * chance[2]
            at_y, at_x = np.array([y], np.float32), np.array([x], np.float32)
            zone = noise(seed, 44, 900, at_y, at_x).item() > 0.50 and chance[3] < 0.8
            clear = all(np.hypot(y - v, x - u) > r + 1.3 * radius for v, u, r in truth.nests)
            if zone and clear and outline.at(at_y, at_x).item() * truth.shape[0] > GLAND_DEPTH:
                yield y, x, radius


def _lining(y: float, x: float, radius: float, seed: int) -> Nuclei:
    """One row of nuclei along the outer border of a gland, pointing at its middle."""
    count = int(2 * np.pi * 0.8 * radius / 10.5)
    index = np.arange(count)
    keys = index + int(y) * 131, index * 0 + int(x)
    jitter = [hashed(seed, salt, *keys) - np.float32(0.5) for salt in (50, 51, 52, 53)]
    angle = ((index + 0.6 * jitter[0]) * (2 * np.pi / count)).astype(np.float32)
    wrapped = np.arctan2(np.sin(angle), np.cos(angle))
    away = np.float32(radius) * waver(wrapped, y, x) * (0.80 + 0.13 * jitter[1])
    long_px, short_px = 7.6 + 2.4 * jitter[2], 4.5 + 1.0 * jitter[3]
    centre_y, centre_x = (f(angle) * away for f in (np.sin, np.cos))
    tilt = angle + jitter[3] * np.float32(0.5)
    fields = (y + centre_y, x + centre_x, long_px, short_px, tilt, 0.66 + 0.3 * jitter[0])
    return Nuclei(*(np.asarray(field, np.float32) for field in fields))


def _scattered(canvas: _Canvas, seed: int) -> Nuclei:
    """Nuclei of stroma and nests: a lattice cell holds one, or none, somewhere inside it."""
    cells = canvas.box.reduce(CELL_PX)
    rows, columns = np.mgrid[cells.y0 : cells.y1, cells.x0 : cells.x1]
    chance = [hashed(seed, salt, rows, columns) for salt in range(60, 67)]
    y = (rows + chance[0]).astype(np.float32) * CELL_PX
    x = (columns + chance[1]).astype(np.float32) * CELL_PX
    iy, ix = np.rint(y).astype(int) - canvas.box.y0, np.rint(x).astype(int) - canvas.box.x0
    height, width = canvas.box.shape
    known = (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
    iy, ix = np.clip(iy, 0, height - 1), np.clip(ix, 0, width - 1)
    nest = canvas.nest[iy, ix] > 0.5
    wanted = np.where(nest, NEST_DENSITY, STROMA_DENSITY)
    keep = known & (chance[2] < wanted) & (nest | ~canvas.crowded[iy, ix])
    round_px, spindle = 5.6 + 2.6 * chance[3], chance[4] < 0.55
    long_px = np.where(nest, round_px, np.where(spindle, 6.6 + 3 * chance[3], 5 + chance[3]))
    short_px = np.where(nest, round_px * (0.68 + 0.3 * chance[4]), np.where(spindle, 2.9, 4.6))
    angle = np.where(nest, chance[5] * 3.14, 2.2 + 1.6 * (chance[5] - 0.5))
    stain = np.where(nest, 0.62, 0.70) + 0.34 * (chance[6] - 0.5)
    fields = (y, x, long_px, short_px, angle, stain)
    return Nuclei(*(np.asarray(field[keep], np.float32) for field in fields))


def _nuclear_stain(canvas: _Canvas, seed: int, groups: list[Nuclei]) -> Floats:
    """Hematoxylin of all nuclei; where two overlap the darker counts."""
    out = np.zeros(canvas.box.shape, np.float32)
    for nuclei in groups:
        for stamp, place in _stamps(nuclei):
            seen = place.intersect(canvas.box)
            if seen.area:
                part = out[seen.relative_to(canvas.box).slices]
                np.maximum(part, stamp[seen.relative_to(place).slices], out=part)
    out *= 0.72 + 0.56 * noise(seed, 70, 3.1, canvas.ys, canvas.xs)
    return out


def _stamps(nuclei: Nuclei) -> Iterator[tuple[Floats, Box]]:
    """Each nucleus as a small array and the box of level 0 that it fills."""
    half = REACH_PX - 3
    top, left = (np.rint(c).astype(int) - half for c in (nuclei.y, nuclei.x))
    span = np.arange(2 * half + 1, dtype=np.float32)
    dy = ((top - nuclei.y)[:, None] + span).astype(np.float32)[:, :, None]
    dx = ((left - nuclei.x)[:, None] + span).astype(np.float32)[:, None, :]
    sine, cosine = (f(nuclei.angle)[:, None, None] for f in (np.sin, np.cos))
    along = (dx * cosine + dy * sine) / nuclei.long_px[:, None, None]
    across = (dy * cosine - dx * sine) / nuclei.short_px[:, None, None]
    distance = np.sqrt(along * along + across * across)
    edge = np.clip((1 - distance) * nuclei.short_px[:, None, None] * 0.8 + 0.5, 0, 1)
    amount = nuclei.stain[:, None, None] * (0.82 + 0.24 * np.minimum(distance, 1)) * edge
    for index in range(len(top)):
        y0, x0 = int(top[index]), int(left[index])
        yield amount[index], Box(y0, x0, y0 + len(span), x0 + len(span))


def _through_glass(
    seed: int, box: Box, hematoxylin: Floats | None, eosin: Floats | None
) -> npt.NDArray[np.uint8]:
    """The colour that light keeps on its way through both stains; None is no stain."""
    ys, xs = np.arange(box.y0, box.y1)[:, None], np.arange(box.x0, box.x1)[None, :]
    light = np.float32(GLASS - 2) + 4 * hashed(seed, 80, ys, xs)
    if hematoxylin is None or eosin is None:
        return np.repeat((light + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
    out = np.empty((*box.shape, 3), np.uint8)
    for channel, (blue, pink) in enumerate(zip(HEMATOXYLIN, EOSIN, strict=True)):
        density = hematoxylin * np.float32(-2.3026 * blue) + eosin * np.float32(-2.3026 * pink)
        out[:, :, channel] = light * np.exp(density) + np.float32(0.5)
    return out
