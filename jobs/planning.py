"""What `saccade plan` prints: the schedule of a recipe on one image, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from saccade.jobs.rehearsal import Conditions, Rehearsal, rehearse
from saccade.pipeline.forecast import Forecast, forecast
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.recipe_file import load_recipe
from saccade.workers.device import device_name
from saccade.workers.memory import Account
from saccade.workers.memory_schedule import side_by_side
from saccade.workers.memory_size import format_nbytes

MOST_SIDE_BY_SIDE = 16
"""More forward passes at once than this are not counted."""


@dataclass(frozen=True, slots=True)
class PassSchedule:
    """One pass, as it would run."""

    layout: PassLayout
    """How it lies over the image."""
    expected: Forecast
    """What it visits: tiles at most, and their pixels where they lie together."""
    seconds: float
    """Of the device for all of that, by what one batch takes."""
    account: Account | None
    """Memory of one worker; None where the model can't be probed."""

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        one = self.layout
        return {
            "pass": one.name,
            "downsample": one.plane.downsample,
            "shape": list(one.plane.shape),
            "precision": one.precision,
            "tile": one.tile_px,
            "halo": one.halo_px,
            "window": list(one.window_shape),
            "batch": one.batch,
            "guidance": one.guidance,
            "features": {word: list(facts) for word, facts in one.flow.facts.items()},
            "tiles": len(one.tiles),
            "expected": asdict(self.expected),
            "seconds": self.seconds,
            "memory": None if self.account is None else self.account.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recipe on one image, as it would run."""

    passes: tuple[PassSchedule, ...]
    """In order."""
    workers: int
    """On this host."""
    side_by_side: int
    """Forward passes, whichever they are, that one worker's memory would hold at once."""
    device: str
    """For people."""

    @property
    def seconds(self) -> float:
        """Of computing, shared by the workers."""
        return sum(one.seconds for one in self.passes) / self.workers

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "device": self.device,
            "workers": self.workers,
            "side_by_side": self.side_by_side,
            "seconds": self.seconds,
            "passes": [one.to_dict() for one in self.passes],
        }


def plan_image(recipe_path: Path, uri: str, conditions: Conditions) -> Schedule:
    """The schedule of a recipe on one image: resolutions, tiles, batches, memory, seconds.

    Args:
        recipe_path: of the recipe.
        uri: of the image.
        conditions: on what it would run.

    Raises:
        UnitTooLarge: a pass does not fit the memory; names the worst and what to do.
        SaccadeError: the recipe or the image does not open, or they do not fit each other.
    """
    recipe = load_recipe(recipe_path)
    with rehearse(recipe, recipe_path.parent.absolute(), uri, conditions) as rehearsal:
        return _schedule(rehearsal)


def _schedule(rehearsal: Rehearsal) -> Schedule:
    resolver = rehearsal.resolver
    resolved = resolver.resolve()
    plan = resolved.plan
    heaviest = max(resolved.works, key=lambda work: work.safe_nbytes, default=None)
    accounts, passes = resolved.accounts, []
    for layout in plan.passes:
        pace = resolver.seconds_per_px(plan, layout)
        expected = forecast(resolver.recipe.passes[layout.index].select, layout, pace)
        account = accounts.get(layout.name)
        passes.append(PassSchedule(layout, expected, expected.pixels * pace, account))
    copies = [heaviest] * MOST_SIDE_BY_SIDE if heaviest else []
    return Schedule(
        passes=tuple(passes),
        workers=rehearsal.count,
        side_by_side=side_by_side(copies, resolved.budget),
        device=device_name(rehearsal.spec.device),
    )


# ------------------------------------------------------------------------------------- for people


def as_json(schedule: Schedule) -> str:
    """For programs."""
    return json.dumps(schedule.to_dict(), indent=1)


def as_page(schedule: Schedule) -> Iterator[Table | str]:
    """For people."""
    yield schedule.device
    yield _work(schedule.passes)
    yield _memory(schedule.passes)
    yield from _given(schedule.passes)
    workers = _count(schedule.workers, "worker")
    if schedule.side_by_side:
        fit = _count(schedule.side_by_side, "forward pass", "es")
        yield f"the memory of one worker holds {fit} of the heaviest kind at once"
    yield (
        f"about {_time(schedule.seconds)} of computing on {workers}; reading and writing run "
        "beside it"
    )


def _work(passes: Sequence[PassSchedule]) -> Table:
    """What there is to do, and how long it takes at most."""
    table = _table("pass", "pixel", "size", "tiles", "megapixels", "time")
    for one in passes:
        layout, expected = one.layout, one.expected
        all_tiles = len(layout.tiles)
        some = f"at most {expected.tiles} of " if expected.tiles < all_tiles else ""
        height, width = layout.plane.shape
        tiles = f"{some}{all_tiles} of {layout.tile_px} px"
        size, megapixels = f"{height} x {width}", f"{expected.pixels / 1e6:.1f}"
        table.add_row(layout.name, _pixel(layout), size, tiles, megapixels, _time(one.seconds))
    return table


def _memory(passes: Sequence[PassSchedule]) -> Table:
    """What goes through the model at once, and what a worker holds for it."""
    table = _table("pass", "arithmetic", "batch", "window", "allowed", "reserved", "projected")
    for one in passes:
        layout = one.layout
        words = ["", "", "unknown"]
        if one.account is not None:
            told = list(one.account.to_dict().values())[:3]
            words = [format_nbytes(nbytes or 0) for nbytes in told]
        table.add_row(layout.name, layout.precision, str(layout.batch), _window(layout), *words)
    return table


def _given(passes: Sequence[PassSchedule]) -> Iterator[str]:
    """What passes are given of the one before them, a line each."""
    for before, one in pairwise(passes):
        parts = ["scores"] if one.layout.guidance else []
        if (taken := one.layout.takes) is not None:
            parts.append(f"{taken.channels} features per {taken.stride} px")
        if parts:
            yield f"{one.layout.name} is given {' and '.join(parts)} by {before.layout.name}"


def _window(layout: PassLayout) -> str:
    height, width = layout.window_shape
    size = f"{height} px" if height == width else f"{height} x {width}"
    return size if layout.window_tiles else "whole image"


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _pixel(layout: PassLayout) -> str:
    size = layout.plane.pixel_size
    return f"1/{layout.plane.downsample:.3g}" if size is None else f"{size.y:.3g} {size.unit}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
