"""Where things are on the generated slide: tissue, nests, and the noise that both grow from.

Everything is a function of absolute coordinates and a seed, so any part of the slide can be asked
for alone and agrees with its neighbours. It knows no colour and no file.

Frames: coordinates are in pixels of level 0, pixel centres at whole numbers.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Box, Shape

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

OUTLINE_PITCH_PX = 32
"""Distance of the control points that the tissue's outline is drawn through."""
TISSUE_SHARE = 0.22
"""Share of the slide inside the outline of its tissue."""
MPP = 0.5
"""Micrometres per pixel of level 0."""


@dataclass(frozen=True, slots=True)
class SampleTruth:
    """What is known about a generated slide: the answer a run on it should find."""

    shape: Shape
    """Height and width of level 0, in pixels."""
    mpp: float
    """Micrometres per pixel of level 0."""
    seed: int
    """What the slide was generated from, with its shape."""
    tissue_share: float
    """Share of level 0 inside the tissue's outline, in [0, 1]; lumens count as tissue."""
    nests: tuple[tuple[float, float, float], ...]
    """The lesions: ``(y, x, radius)`` in pixels of level 0; outlines waver by up to a fifth."""

    def tissue_mask(self, box: Box, downsample: int = 1) -> Bools:
        """Where tissue is: ``(height, width)`` bool for a box of a level.

        Args:
            box: in pixels of an array ``downsample`` times coarser than level 0.
            downsample: pixels of level 0 per pixel of that array, 1 or more.
        """
        ys, xs = _centres(box, downsample)
        outline = tissue_outline(self.shape[0], self.seed)
        return np.asarray(outline.at(ys, xs) > 0)

    def nest_mask(self, box: Box, downsample: int = 1) -> Bools:
        """Where lesions are; arguments and result as for ``tissue_mask``."""
        ys, xs = _centres(box, downsample)
        mask = np.zeros(box.shape, bool)
        for y, x, radius in self.nests:
            mask |= wavering_distance(ys, xs, y, x, radius) < 1
        return mask

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> SampleTruth:
        """Read what ``write`` wrote.

        Raises:
            UsageError: the file is not the truth of a generated slide.
        """
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            shape = (int(known["shape"][0]), int(known["shape"][1]))
            nests = tuple((float(y), float(x), float(radius)) for y, x, radius in known["nests"])
            return cls(shape, known["mpp"], known["seed"], known["tissue_share"], nests)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"{path}: expected the truth of a generated slide as JSON; found {error!r}"
            raise UsageError(f"{message}. Generate the slide again.") from error


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The tissue's outline: a smooth field that is positive inside."""

    control: Floats
    """Values at the control points, one row and column before the slide and two after it."""

    def at(self, ys: Floats, xs: Floats) -> Floats:
        """The field at ``(len(ys), len(xs))`` points; about 1 in the middle of an island.

        Outside the slide it continues the nearest edge.
        """
        last = np.float32((self.control.shape[0] - 3) * OUTLINE_PITCH_PX - 1)
        pitch = np.float32(OUTLINE_PITCH_PX)
        rows, columns = np.clip(ys, 0, last) / pitch, np.clip(xs, 0, last) / pitch
        return spline(self.control, (-1, -1), rows, columns)

    def highest(self, box: Box) -> float:
        """A bound from above of the field inside a box of level 0."""
        near = box.reduce(OUTLINE_PITCH_PX)
        part = self.control[max(0, near.y0) : near.y1 + 4, max(0, near.x0) : near.x1 + 4]
        return float(part.max(initial=-np.inf))


@functools.lru_cache(maxsize=4)
def tissue_outline(side_px: int, seed: int) -> Outline:
    """The outline of the tissue of one slide: islands whose borders noise has eaten."""
    points = np.arange(-1, side_px // OUTLINE_PITCH_PX + 2, dtype=np.float32)
    place = points * np.float32(OUTLINE_PITCH_PX / side_px)
    field = _islands(place, np.random.default_rng([seed, 1]))
    for octave, strength in enumerate((0.8, 0.9, 0.6, 0.3, 0.16, 0.08)):
        cells = np.float32(5 * 2**octave)
        field += strength * (noise(seed, 10 + octave, 1.0, place * cells, place * cells) - 0.5) * 2
    border = np.minimum(place, 1 - place)
    field -= 12 * np.maximum(0, 0.05 - np.minimum(border[:, None], border[None, :]))
    return Outline((field - np.quantile(field[1:-2, 1:-2], 1 - TISSUE_SHARE)).astype(np.float32))


def _islands(place: Floats, random: np.random.Generator) -> Floats:
    """Ellipses on a loose three by two grid, one of them missing; 1 in a centre, 0 at a border."""
    field = np.full((len(place), len(place)), -2.0, np.float32)
    cells = [(row, column) for row in range(3) for column in range(2)]
    missing = int(random.integers(len(cells)))
    for row, column in cells[:missing] + cells[missing + 1 :]:
        y = (row + 0.5 + random.uniform(-0.12, 0.12)) / 3
        x = (column + 0.5 + random.uniform(-0.16, 0.16)) / 2
        long, short = random.uniform(0.17, 0.24), random.uniform(0.09, 0.13)
        angle = random.uniform(-0.6, 0.6)
        dy, dx = place[:, None] - y, place[None, :] - x
        along = (dx * np.cos(angle) + dy * np.sin(angle)) / long
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / short
        field = np.maximum(field, 1 - np.hypot(along, across))
    return field.astype(np.float32)


@functools.lru_cache(maxsize=4)
def sample_truth(side_px: int, seed: int) -> SampleTruth:
    """Everything known about the slide of this side and seed, without drawing it."""
    outline = tissue_outline(side_px, seed)
    every = np.arange(OUTLINE_PITCH_PX // 2, side_px, OUTLINE_PITCH_PX, dtype=np.float32)
    share = float((outline.at(every, every) > 0).mean())
    shape = (side_px, side_px)
    return SampleTruth(shape, MPP, seed, round(share, 4), _place_nests(outline, side_px, seed))


def _place_nests(
    outline: Outline, side_px: int, seed: int
) -> tuple[tuple[float, float, float], ...]:
    """Two to nine discs that lie in the tissue and apart from each other."""
    random = np.random.default_rng([seed, 2])
    wanted = min(9, max(2, side_px // 1800))
    nests: list[tuple[float, float, float]] = []
    for _ in range(5000):
        y, x = (float(c) for c in random.uniform(0.05, 0.95, 2) * side_px)
        radius = max(40.0, side_px * float(random.uniform(0.010, 0.020)))
        apart = all(np.hypot(y - v, x - u) > 1.5 * (radius + r) for v, u, r in nests)
        if apart and _inside(outline, y, x, 1.3 * radius):
            nests.append((round(y, 1), round(x, 1), round(radius, 1)))
        if len(nests) == wanted:
            break
    return tuple(nests)


def _inside(outline: Outline, y: float, x: float, radius: float) -> bool:
    span = np.linspace(-radius, radius, 9, dtype=np.float32)
    disc = np.hypot(span[:, None], span[None, :]) <= radius
    return bool((outline.at(y + span, x + span)[disc] > 0).all())


def wavering_distance(ys: Floats, xs: Floats, y: float, x: float, radius: float) -> Floats:
    """Distance from a centre in units of a radius that wavers with the angle; 1 on the outline.

    Returns ``(len(ys), len(xs))``; far away, where only "outside" matters, it is 9.
    """
    out = np.full((len(ys), len(xs)), 9, np.float32)
    near_y, near_x = (np.abs(c - at) <= 1.4 * radius for c, at in ((ys, y), (xs, x)))
    if near_y.any() and near_x.any():
        dy, dx = (ys[near_y] - np.float32(y))[:, None], (xs[near_x] - np.float32(x))[None, :]
        reach = np.float32(radius) * waver(np.arctan2(dy, dx), y, x)
        out[np.ix_(near_y, near_x)] = np.sqrt(dy * dy + dx * dx) / reach
    return out


def waver(angle: Floats, y: float, x: float) -> Floats:
    """Radius over mean radius at an angle, for the outline around this centre; 0.8 to 1.2."""
    a, b, c = (hashed(0, salt, np.int64(y * 8), np.int64(x * 8)) * 6.28 for salt in (1, 2, 3))
    two, three = np.sin(2 * angle + a), np.sin(3 * angle + b)
    return np.asarray(1 + 0.1 * two + 0.06 * three + 0.04 * np.sin(5 * angle + c), np.float32)


def noise(seed: int, salt: int, pitch: float, ys: Floats, xs: Floats) -> Floats:
    """Smooth noise in (0, 1), mean 0.5, that varies over ``pitch``; one layer per ``salt``."""
    rows, columns = ys / np.float32(pitch), xs / np.float32(pitch)
    y0, y1 = int(np.floor(rows[0])) - 1, int(np.floor(rows[-1])) + 3
    x0, x1 = int(np.floor(columns[0])) - 1, int(np.floor(columns[-1])) + 3
    lattice = hashed(seed, salt, np.arange(y0, y1)[:, None], np.arange(x0, x1)[None, :])
    return spline(lattice, (y0, x0), rows, columns)


def spline(lattice: Floats, origin: tuple[int, int], rows: Floats, columns: Floats) -> Floats:
    """A uniform cubic B-spline over a lattice, at every pair of a row and a column.

    It never leaves the range of the 16 lattice values around a point.

    Args:
        lattice: the control values.
        origin: row and column of the first of them.
        rows: in steps of the lattice.
        columns: in steps of the lattice.
    """
    first, weights = _taps(rows, origin[0])
    tall = np.zeros((len(rows), lattice.shape[1]), np.float32)
    for k in range(4):
        tall += weights[k][:, None] * lattice[first + k]
    first, weights = _taps(columns, origin[1])
    out = np.zeros((len(rows), len(columns)), np.float32)
    for k in range(4):
        out += weights[k] * tall[:, first + k]
    return out


def _taps(at: Floats, origin: int) -> tuple[npt.NDArray[np.int64], tuple[Floats, ...]]:
    """Index of the first of four neighbours, and the weight of each."""
    whole = np.floor(at)
    t = (at - whole).astype(np.float32)
    u = 1 - t
    inner = [(4 - 6 * s * s + 3 * s * s * s) / 6 for s in (t, u)]
    weights = (u * u * u / 6, inner[0], inner[1], t * t * t / 6)
    return whole.astype(np.int64) - 1 - origin, tuple(w.astype(np.float32) for w in weights)


def hashed(
    seed: int, salt: int, y: npt.NDArray[np.int64] | np.int64, x: npt.NDArray[np.int64] | np.int64
) -> Floats:
    """A number in [0, 1) for whole coordinates: the finaliser of MurmurHash3 over their mix."""
    start = (seed * 0x9E3779B1 + salt * 0x85EBCA77) & 0xFFFFFFFF
    with np.errstate(over="ignore"):
        mixed = np.asarray(y, np.int64).astype(np.uint32) * np.uint32(0xC2B2AE3D)
        mixed = (mixed ^ np.uint32(start)) * np.uint32(0x27D4EB2F)
        mixed = mixed + np.asarray(x, np.int64).astype(np.uint32) * np.uint32(0x165667B1)
        mixed ^= mixed >> np.uint32(16)
        mixed *= np.uint32(0x85EBCA6B)
        mixed ^= mixed >> np.uint32(13)
        mixed *= np.uint32(0xC2B2AE35)
        mixed ^= mixed >> np.uint32(16)
    return np.asarray((mixed >> np.uint32(8)).astype(np.float32) * np.float32(2**-24))


def _centres(box: Box, downsample: int) -> tuple[Floats, Floats]:
    """Level-0 coordinates of the pixel centres of a box of a coarser array."""
    shift = (downsample - 1) / 2
    ys, xs = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
    return (
        (ys * downsample + shift).astype(np.float32),
        (xs * downsample + shift).astype(np.float32),
    )
