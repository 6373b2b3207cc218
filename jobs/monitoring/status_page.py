"""A run's status as a person reads it: a headline, its passes, its images, what failed. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.jobs.monitoring.passes import MEMORY
from saccade.jobs.monitoring.progress import duration
from saccade.jobs.monitoring.status import Now, Status
from saccade.jobs.monitoring.tally import ImageTally, Tally
from saccade.jobs.quarantine import FailedImage
from saccade.workers.memory_size import format_nbytes

ROWS = 24
"""Images listed; ``--json`` lists the first ten thousand."""
ROWS_LIVE = 8
"""Images listed on a screen that is drawn again and again."""
REASONS = 4
"""Images set aside whose reasons are told beside the table; ``--failed`` tells all."""
NOTES = 4
"""Kinds of notes on images that are told; the report tells all, image by image."""
ORDER = {"quarantined": 0, "running": 1, "waiting": 2, "complete": 3}
"""Those that need care first."""


def as_page(status: Status, at: float | None = None, rows: int = ROWS) -> Group:
    """All that a person wants to know at a glance.

    Args:
        status: of the run.
        at: seconds since 1970; now if left out.
        rows: images listed at most.
    """
    now = status.now(time.time() if at is None else at)
    return Group(
        Text(headline(status, now)),
        *_told_aside(tuple(status.failed)),
        *_noted(status.tally),
        _passes(now),
        _images(status, rows),
        *_memory(now),
    )


def headline(status: Status, now: Now) -> str:
    """One line: state, images, speed, share refined, failures, time left."""
    tally = status.tally
    parts = [now.state, f"{tally.count('complete')}/{tally.total} images"]
    if aside := tally.count("quarantined"):
        parts.append(f"{aside} set aside")
    if status.failed.attempts:
        parts.append(_counted(status.failed.attempts, "failed attempt"))
    parts.append(f"{tally.tiles_done} tiles")
    if (speed := now.pace.tiles_per_second()) is not None and now.state == "running":
        parts.append(f"{speed:.1f} tiles/s over {duration(now.pace.seconds)}")
    if (share := tally.share_refined) is not None:
        parts.append(f"{share:.0%} refined")
    if (busy := now.pace.device_busy_share) is not None and now.state == "running":
        parts.append(f"devices {busy:.0%} busy")
    if now.seconds_left is not None:
        parts.append(f"about {duration(now.seconds_left)} left")
    return " | ".join(parts)


def _passes(now: Now) -> Table:
    """A row per pass: how far, how fast, how much of the image."""
    table = Table("pass", "units", "tiles", "tiles/s", "refined", "unreadable")
    for one in now.passes:
        share, speed = one.share_refined, now.pace.tiles_per_second(one.name)
        table.add_row(
            one.name,
            f"{one.units_done}/{one.units_planned}" if one.units_planned else "",
            str(one.tiles_done or ""),
            f"{speed:.1f}" if speed is not None and now.state == "running" else "",
            "" if share is None else f"{share:.0%}",
            str(one.tiles.get("failed") or ""),
        )
    return table


def _memory(now: Now) -> Iterator[Table]:
    """A row per pass, what was projected beside what was measured; nothing where none is known."""
    known = [one for one in now.passes if any(one.memory.values())]
    if known:
        table = Table("memory of a pass", *(word.removesuffix("_nbytes") for word in MEMORY))
        for one in known:
            cells = (one.memory.get(word, 0) for word in MEMORY)
            table.add_row(one.name, *(format_nbytes(n) if n else "" for n in cells))
        yield table


def _images(status: Status, rows: int) -> Table:
    table = Table("image", "state", "stage", "units", "tiles", "refined", "unreadable")
    table.columns[0].overflow = "fold"
    images = sorted(status.tally.images.values(), key=lambda image: ORDER[image.state])
    for image in images[:rows]:
        table.add_row(*_image_cells(image))
    if status.tally.total > rows:
        table.add_row(f"and {status.tally.total - rows} more")
    return table


def _image_cells(image: ImageTally) -> list[str]:
    done, planned = image.units.get(image.stage, [0, 0])
    chosen = image.finest_choice
    return [
        image.name,
        image.state,
        image.stage,
        f"{done}/{planned}" if planned else "",
        str(image.tiles_done or ""),
        f"{chosen['selected'] / chosen['of']:.0%}" if chosen else "",
        str(image.tiles_failed or ""),
    ]


def _told_aside(failed: tuple[FailedImage, ...]) -> Iterator[RenderableType]:
    for image in failed[:REASONS]:
        yield Text(f"set aside: {image.name}: {image.reason}")
    if len(failed) > REASONS:
        yield Text(f"and {len(failed) - REASONS} more set aside: saccade status --failed tells why")


def _noted(tally: Tally) -> Iterator[RenderableType]:
    """Each note once, with the images that it is on, of those that are told one by one."""
    holders: dict[str, list[str]] = {}
    among = f" (of {len(tally.images)} images looked at)" if tally.untold else ""
    for image in tally.images.values():
        for note in image.notes:
            holders.setdefault(note, []).append(image.name)
    for note, names in list(holders.items())[:NOTES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Text(f"note: {names[0]}{more}{among}: {note}")
    if len(holders) > NOTES:
        yield Text(f"and {_counted(len(holders) - NOTES, 'other note')}: saccade report tells all")


def failed_page(failed: Iterable[FailedImage], root: Path) -> Group:
    """Every image that was set aside: why, after how many attempts, when, and what to do."""
    images = tuple(failed)
    if not images:
        return Group(Text("no image is set aside"))
    table = Table("image", "attempts", "when", "reason")
    table.columns[0].overflow = "fold"
    for image in images:
        table.add_row(image.name, str(image.failures or 1), _moment(image.at), Text(image.reason))
    return Group(table, Text(_what_to_do(images, root)))


def _moment(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _what_to_do(images: tuple[FailedImage, ...], root: Path) -> str:
    return (
        f"{_counted(len(images), 'image')} set aside; mend what the reasons say, then run\n"
        f"  saccade retry {root}\n"
        f"What workers met on the way is in {root / 'logs'}: one line of JSON each, with its image"
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
