"""From a pass's answer to one number per tile of the next pass. Pure numpy.

A *signal* is a map over the previous pass's scores; a *statistic* sums it up inside each tile of
the next pass's grid. What the numbers are good for is ``selection``'s business; this module knows
no threshold, no cost and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from saccade.pipeline.geometry import Box, Grid, Shape
from saccade.pipeline.selectors import (
    AllTiles,
    Dilate,
    Escalate,
    Foreground,
    Proposals,
    Scored,
    Selector,
    Statistic,
    Uncertainty,
    Union,
    When,
    inner,
)
from saccade.pipeline.signals import signal_map

TOP_PERCENT = 2
"""'top' is the mean of this percentage of a tile's pixels, the highest ones."""
STRIP_PX = 2**22
"""A strip of the coarse plane holds about this many pixels, and at least one row of tiles."""
_TOUCH = 1e-6
"""A tile that reaches less than this into a coarse pixel does not touch it: it is rounding."""

ReadStrip = Callable[[Box], tuple[np.ndarray, np.ndarray | None]]
"""Coarse box -> scores ``(C, h, w)`` in [0, 1] and the model's saliency ``(h, w)`` or None."""
ReadSignal = Callable[[Box], np.ndarray]
"""Coarse box -> a signal ``(h, w)`` float32 in [0, 1] that is not made from the scores alone."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number per tile that a selector judges by."""

    signal: str
    """As in ``signals.signal_map``, or one that is read on its own."""
    statistic: Statistic | Literal["share"]
    """How the signal is summed up inside a tile; 'share' is the share of its pixels above."""
    above: float | None = None
    """What pixels are compared with; stated for 'share' only."""
    cells: int = 1
    """The number is given for the cells of a grid this many times finer than that of the tiles, at
    most; see ``cells_per_tile``."""

    def __post_init__(self) -> None:
        if (self.statistic == "share") != (self.above is not None):
            raise ValueError(f"'above' goes with the statistic 'share' and no other; found {self}")

    @classmethod
    def of(cls, node: Foreground | Scored | Uncertainty | When) -> Column:
        """The column that one selector judges by."""
        if isinstance(node, Foreground):
            return cls(node.signal, "share", node.above)
        cells = node.cells if isinstance(node, Proposals) else 1
        signal = node.measure if isinstance(node, Uncertainty) else node.signal
        return cls(signal, node.statistic, None, cells)


def cells_per_tile(grid: Grid, wanted: int) -> int:
    """Cells along each side of a tile: the largest number up to ``wanted`` that divides it."""
    return next(n for n in range(min(wanted, grid.tile_px), 0, -1) if grid.tile_px % n == 0)


def cell_grid(grid: Grid, cells: int) -> Grid:
    """The grid of cells of which ``cells`` by ``cells`` make a tile."""
    return Grid(grid.shape, grid.tile_px // cells)


def spread(tiles: np.ndarray, cells: int, finer: Grid) -> np.ndarray:
    """``(rows, columns)`` of tiles as ``(finer.rows, finer.columns)``: each cell as its tile."""
    rows, columns = np.arange(finer.rows) // cells, np.arange(finer.columns) // cells
    found: np.ndarray = tiles[np.ix_(rows, columns)]
    return found


@dataclass(frozen=True, slots=True)
class TileTable:
    """The columns of an image's tiles; ``table[column]`` is ``(ntiles,) float32``."""

    columns: Mapping[Column, np.ndarray]
    """In the order of tile numbers, or of cell numbers where a column is of cells; NaN where a tile
    has no valid pixel."""

    def __getitem__(self, column: Column) -> np.ndarray:
        return self.columns[column]


def needed_columns(selector: Selector) -> tuple[Column, ...]:
    """The columns that a tree of selectors judges by, each once, in the order of the tree."""
    return tuple(dict.fromkeys(_columns(selector)))


def _columns(node: Selector) -> Iterator[Column]:
    if not isinstance(node, AllTiles | Union | Dilate | Escalate):
        yield Column.of(node)
    if isinstance(node, Escalate):
        yield Column.of(node.when)
    for part in inner(node):
        yield from _columns(part)


def tile_spans(grid: Grid, ratio: float, coarse_shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The coarse pixels that every tile touches, as spans per row and per column of tiles.

    Args:
        grid: the tiles, in pixels of the finer pass.
        ratio: finer pixels per coarse pixel; below 1 where the earlier answer is the finer one.
        coarse_shape: height and width of the coarse answer.

    Returns:
        ``(rows, 2)`` and ``(columns, 2)`` int64, half-open; never empty, inside ``coarse_shape``.
    """
    return (
        _axis_spans(grid.rows, grid.tile_px, grid.shape[0], ratio, coarse_shape[0]),
        _axis_spans(grid.columns, grid.tile_px, grid.shape[1], ratio, coarse_shape[1]),
    )


def _axis_spans(
    count: int, tile_px: int, length: int, ratio: float, coarse_length: int
) -> np.ndarray:
    starts = np.arange(count, dtype=np.int64) * tile_px
    first = np.floor(starts / ratio + _TOUCH).astype(np.int64)
    last = np.ceil(np.minimum(starts + tile_px, length) / ratio - _TOUCH).astype(np.int64)
    first = np.clip(first, 0, coarse_length - 1)
    return np.stack([first, np.clip(last, first + 1, coarse_length)], axis=1)


def tile_statistic(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, statistic: Statistic
) -> np.ndarray:
    """A statistic of a map inside every tile.

    Args:
        values: ``(h, w)`` float32; NaN pixels are left out.
        rows: ``(R, 2)`` half-open spans of rows, one per row of tiles.
        columns: ``(K, 2)`` half-open spans of columns, one per column of tiles.
        statistic: 'mean', 'max' or 'top' (the mean of the highest ``TOP_PERCENT`` of the pixels,
            rounded up to whole pixels).

    Returns:
        ``(R, K)`` float32; NaN for a tile without a valid pixel. A tile's number depends on its own
        pixels alone, bit for bit.
    """
    return _per_tile(values, rows, columns, _STATISTICS[statistic])


def tile_share(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, above: float
) -> np.ndarray:
    """Share of every tile's valid pixels that are above a value; as ``tile_statistic``."""
    return _per_tile(values, rows, columns, lambda tiles: (tiles > np.float32(above)).mean(axis=1))


def _top(tiles: np.ndarray) -> np.ndarray:
    count = -(-tiles.shape[1] * TOP_PERCENT // 100)
    highest = np.sort(tiles, axis=1)[:, -count:]
    return _mean(np.ascontiguousarray(highest))


def _mean(tiles: np.ndarray) -> np.ndarray:
    means: np.ndarray = tiles.astype(np.float64).mean(axis=1)
    return means


_STATISTICS: dict[Statistic, Callable[[np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "max": lambda tiles: tiles.max(axis=1),
    "top": _top,
}


def _per_tile(
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    summary: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    table = np.empty((len(rows), len(columns)), np.float32)
    widths = columns[:, 1] - columns[:, 0]
    for row, (y0, y1) in enumerate(rows):
        # Tiles of one size are summed up together: a row has at most a handful of widths.
        for width in np.unique(widths):
            same = widths == width
            at = columns[same, 0, None] + np.arange(width)
            tiles = np.take(values[y0:y1], at, axis=1).swapaxes(0, 1)
            table[row, same] = _leaving_nan_out(tiles.reshape(len(at), -1), summary)
    return table


def _leaving_nan_out(tiles: np.ndarray, summary: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``summary`` of each row of ``(T, n)`` without its NaN; NaN for a row of nothing else."""
    found = summary(tiles).astype(np.float32)
    holes = np.isnan(tiles)
    if not holes.any():
        return found
    found[holes.all(axis=1)] = np.nan
    for row in np.flatnonzero(holes.any(axis=1) & ~holes.all(axis=1)):
        found[row] = summary(tiles[row, ~holes[row]][None])[0]
    return found


def score_tiles(
    columns: Sequence[Column],
    grid: Grid,
    ratio: float,
    coarse_shape: Shape,
    read_strip: ReadStrip,
    classes: Sequence[str],
    *,
    own: Mapping[str, ReadSignal] | None = None,
    known: np.ndarray | None = None,
    strip_px: int = STRIP_PX,
) -> TileTable:
    """Score every tile of a grid by the previous pass's answer, strip by strip.

    Args:
        columns: what to compute, as ``needed_columns`` says.
        grid: the tiles, in pixels of the finer pass.
        ratio: finer pixels per coarse pixel.
        coarse_shape: height and width of the coarse answer.
        read_strip: reads a box of it.
        classes: names of its scores.
        own: signals that are read on their own; they win over those made from scores.
        known: ``(rows, columns)`` bool, tiles on ground that was answered; the others get NaN, and
            what lies under none of these is not read. None reads all.
        strip_px: coarse pixels per strip, about; bounds memory and changes no number.

    Raises:
        RecipeError: a column's signal does not exist.
    """
    answer = _Answer(ratio, coarse_shape, read_strip, classes, own or {})
    wanted = np.ones((grid.rows, grid.columns), bool) if known is None else known
    table: dict[Column, np.ndarray] = {}
    for asked in dict.fromkeys(column.cells for column in columns):
        part = [column for column in columns if column.cells == asked]
        cells = cells_per_tile(grid, asked)
        finer = cell_grid(grid, cells)
        table |= _score_grid(part, finer, answer, spread(wanted, cells, finer), strip_px)
    return TileTable({column: table[column] for column in columns})


@dataclass(frozen=True, slots=True)
class _Answer:
    """The previous pass's answer, as ``score_tiles`` is given it."""

    ratio: float
    shape: Shape
    read_strip: ReadStrip
    classes: Sequence[str]
    own: Mapping[str, ReadSignal]

    def signals(self, names: Sequence[str], box: Box) -> Iterator[tuple[str, np.ndarray]]:
        """Each signal in a box; scores are read at most once."""
        read = None
        for name in names:
            if name in self.own:
                yield name, self.own[name](box)
                continue
            scores, saliency = read = self.read_strip(box) if read is None else read
            yield name, signal_map(name, scores, self.classes, saliency)


def _score_grid(
    columns: Sequence[Column], grid: Grid, answer: _Answer, wanted: np.ndarray, strip_px: int
) -> dict[Column, np.ndarray]:
    """The columns of one grid, whether of tiles or of cells."""
    table = {c: np.full(wanted.shape, np.nan, np.float32) for c in columns}
    names = list(dict.fromkeys(c.signal for c in columns))
    rows, across = tile_spans(grid, answer.ratio, answer.shape)
    for part in _parts(wanted, rows, answer.shape[1], strip_px):
        high, wide = rows[part.y0 : part.y1], across[part.x0 : part.x1]
        box = Box(int(high[0, 0]), int(wide[0, 0]), int(high[-1, 1]), int(wide[-1, 1]))
        for name, values in answer.signals(names, box):
            for column in (c for c in columns if c.signal == name):
                found = _one(column, values, high - box.y0, wide - box.x0)
                table[column][part.slices] = np.where(wanted[part.slices], found, np.nan)
    return {column: values.reshape(-1) for column, values in table.items()}


def _parts(wanted: np.ndarray, rows: np.ndarray, width: int, strip_px: int) -> Iterator[Box]:
    """Of every strip the part between its first and its last wanted column of tiles."""
    for first, last in _strips(rows, width, strip_px):
        columns = np.flatnonzero(wanted[first:last].any(axis=0))
        if len(columns):
            yield Box(first, int(columns[0]), last, int(columns[-1]) + 1)


def _one(column: Column, values: np.ndarray, rows: np.ndarray, across: np.ndarray) -> np.ndarray:
    if column.statistic == "share":
        return tile_share(values, rows, across, column.above or 0.0)
    return tile_statistic(values, rows, across, column.statistic)


def _strips(rows: np.ndarray, width: int, strip_px: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of rows of tiles: at most ``strip_px`` coarse pixels, or one row."""
    first = 0
    while first < len(rows):
        fits = (rows[first:, 1] - rows[first, 0]) * width <= strip_px
        last = first + max(1, int(np.count_nonzero(fits)))
        yield first, last
        first = last
