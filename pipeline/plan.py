"""Plans: recipe, image facts and selection in; frozen units out. Pure.

A unit owns whole shards and lists the windows that it computes, already grouped into batches, so
that neither scheduling nor the number of workers can change a byte of the result. The plan of a
pass is written down before any of its units runs and is never computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from saccade.pipeline.errors import PlanError
from saccade.pipeline.geometry import Box, Grid, fixed_size_window
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.merging import merge_tiles

EMPTY = Box(0, 0, 0, 0)
Kind = Literal["prepare", "sweep", "select", "finalise"]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle that is read and computed at once, in input pixels of its pass."""

    core: Box
    """What it answers for: whole tiles, cut off at the image's edge."""
    read: Box
    """What the model sees: the core and its halo."""

    def to_list(self) -> list[int]:
        """Eight numbers, as written to the plan."""
        return [*self.core.as_tuple(), *self.read.as_tuple()]

    @classmethod
    def from_list(cls, numbers: Sequence[int]) -> Window:
        """The inverse of ``to_list``."""
        return cls(Box(*numbers[:4]), Box(*numbers[4:]))


Batch = tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest resumable piece of work. Running it twice writes the same bytes."""

    id: str
    """Hash of image, pass, resolution and region."""
    image: str
    """Name of the image in the run."""
    kind: Kind
    """What it does."""
    pass_index: int
    """Which pass it belongs to; the number of passes for *finalise*."""
    region: Box = EMPTY
    """Scores that a sweep answers for: whole shards, cut off at the edge."""
    batches: tuple[Batch, ...] = ()
    """Windows that go through the model together, in this order."""

    @property
    def windows(self) -> Iterator[Window]:
        """All windows, in order."""
        return (window for batch in self.batches for window in batch)

    def to_dict(self) -> dict[str, Any]:
        """As written to the plan."""
        return {
            "id": self.id,
            "image": self.image,
            "kind": self.kind,
            "pass_index": self.pass_index,
            "region": list(self.region.as_tuple()),
            "batches": [[window.to_list() for window in batch] for batch in self.batches],
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Unit:
        """The inverse of ``to_dict``."""
        batches = tuple(tuple(map(Window.from_list, batch)) for batch in tree["batches"])
        return cls(**(tree | {"region": Box(*tree["region"]), "batches": batches}))


def unit_id(
    image: str, kind: Kind, layout: PassLayout | None = None, region: Box | None = None
) -> str:
    """Hash of image, pass, resolution and write region: 16 hexadecimal digits."""
    place = (layout.name, layout.plane.level, layout.plane.factor) if layout else ()
    text = repr((image, kind, place, region.as_tuple() if region else ()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def single_unit(image: str, kind: Kind, pass_index: int, layout: PassLayout | None = None) -> Unit:
    """A unit without a region: prepare, select, finalise."""
    return Unit(unit_id(image, kind, layout), image, kind, pass_index)


def plan_sweep(
    image: str,
    layout: PassLayout,
    chosen: np.ndarray,
    *,
    everywhere: bool = False,
    within: np.ndarray | None = None,
) -> tuple[Unit, ...]:
    """The units of one pass.

    Args:
        image: the image's name.
        layout: how the pass lies over it.
        chosen: ``(tile rows, tile columns)`` bool, the tiles to visit.
        everywhere: plan a unit for every shard, also where no tile is chosen; the last pass does
            so, because its units also write the fused result.
        within: ``(tile rows, tile columns)`` bool: 'everywhere' means shards with such a tile,
            because there is nothing to write elsewhere; None means all.

    Raises:
        PlanError: the plan would give a shard two owners or leave a chosen tile out.
    """
    grid = layout.tiles
    if chosen.shape != (grid.rows, grid.columns):
        raise PlanError(f"{grid.rows} x {grid.columns} tiles expected; found {chosen.shape}")
    whole = layout.window_tiles == 0
    regions = [Box.of(layout.score_shape)] if whole else list(layout.shards)
    units = (_sweep_unit(image, layout, region, chosen) for region in regions)
    kept = tuple(
        unit
        for unit in units
        if unit.batches or (everywhere and _holds_any(layout, unit.region, within))
    )
    check_plan(layout, chosen, kept)
    return kept


def _holds_any(layout: PassLayout, region: Box, tiles: np.ndarray | None) -> bool:
    cells = layout.tiles.cells_touching(region.scale(layout.stride))
    return tiles is None or bool(tiles[cells.slices].any())


def _sweep_unit(image: str, layout: PassLayout, region: Box, chosen: np.ndarray) -> Unit:
    cells = layout.tiles.cells_touching(region.scale(layout.stride))
    if layout.window_tiles == 0:
        rectangles = [cells] if chosen.any() else []
    elif layout.blend == "hann":
        rectangles = list(_tiles_reaching(layout, region, chosen))
    else:
        margin = layout.halo_px / layout.tile_px
        rectangles = list(merge_tiles(chosen, cells, layout.window_tiles, margin))
    windows = [window_over(layout, rectangle) for rectangle in rectangles]
    batches = tuple(group_by_shape(windows, layout.batch))
    return Unit(
        unit_id(image, "sweep", layout, region), image, "sweep", layout.index, region, batches
    )


def _tiles_reaching(layout: PassLayout, region: Box, chosen: np.ndarray) -> Iterator[Box]:
    """Single tiles whose core and halo touch the region: what blending inside a unit needs."""
    reach = layout.tiles.cells_touching(
        region.scale(layout.stride).grow(layout.halo_px).clip(layout.plane.shape)
    )
    return merge_tiles(chosen, reach, 1)


def window_over(layout: PassLayout, cells: Box) -> Window:
    """The window that answers for a rectangle of tiles (rows, columns)."""
    core = layout.tiles.span(cells)
    if layout.window_tiles == 0:
        return Window(core, Box.of(layout.padded_shape))
    margins = 2 * layout.halo_px
    size = cells.height * layout.tile_px + margins, cells.width * layout.tile_px + margins
    read = fixed_size_window(core, layout.halo_px, size, layout.padded_shape, layout.multiple)
    return Window(core, read)


def group_by_shape(windows: Iterable[Window], size: int) -> Iterator[Batch]:
    """Batches of windows of one shape, each at most ``size`` long, in order of first appearance."""
    waiting: dict[tuple[int, int], list[Window]] = {}
    for window in windows:
        same = waiting.setdefault(window.read.shape, [])
        same.append(window)
        if len(same) == size:
            yield tuple(same)
            same.clear()
    yield from (tuple(rest) for rest in waiting.values() if rest)


def check_plan(layout: PassLayout, chosen: np.ndarray, units: Sequence[Unit]) -> None:
    """Refuse a plan in which a shard has two owners or a chosen tile is answered other than once.

    Raises:
        PlanError: always with the first place that is wrong.
    """
    owner: dict[int, str] = {}
    answered = np.zeros(chosen.shape, np.int64)
    for unit in units:
        for shard in _shards_of(layout.shards, unit.region):
            if owner.setdefault(shard, unit.id) != unit.id:
                raise PlanError(f"pass {layout.name!r}: shard {shard} has two owners")
        inside = layout.tiles.cells_touching(unit.region.scale(layout.stride))
        for window in unit.windows:
            cells = layout.tiles.cells_touching(window.core).intersect(inside)
            answered[cells.slices] += 1
    wrong = np.argwhere((answered != 1) & chosen)
    if len(wrong):
        row, column = wrong[0]
        times = answered[row, column]
        raise PlanError(f"pass {layout.name!r}: tile ({row}, {column}) is answered {times} times")


def _shards_of(shards: Grid, region: Box) -> Iterator[int]:
    cells = shards.cells_touching(region)
    if shards.span(cells) != region:
        raise PlanError(f"a unit owns whole shards; found region {region} over shards of {shards}")
    yield from shards.indices(cells)
