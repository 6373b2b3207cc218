"""What a run's folder says of its state, also while a driver works on it. Never writes."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from saccade.jobs.catalogue import Catalogue
from saccade.jobs.journal import read_records
from saccade.jobs.names import TOLD
from saccade.jobs.tally import ImageTally, Tally
from saccade.pipeline.errors import UsageError
from saccade.workers.folder import RunFolder
from saccade.workers.memory_size import format_nbytes

MEMORY = ("allowed_nbytes", "reserved_nbytes", "projected_nbytes", "measured_nbytes")
"""What is told of a pass's memory: the most that a worker may hold, what it holds before it
computes, what computing is expected to add, and the most that it did add."""


def read_tally(root: Path, told: int = TOLD) -> Tally:
    """Everything that the journal of a run says.

    Args:
        root: the run's folder.
        told: how many images to tell one by one, from the first of the list.

    Raises:
        UsageError: the folder is not a run.
    """
    folder = RunFolder(root)
    if not folder.images.exists():
        raise UsageError(f"{root}: not a run folder (no {folder.images.name} in it)")
    tally = Tally.of(Catalogue.opened(folder.images, told).names)
    for record in read_records(folder.journal):
        tally.add(record)
    return tally


def as_json(tally: Tally) -> str:
    """For programs."""
    states = ("waiting", "running", "complete", "quarantined")
    tree: dict[str, Any] = {
        "images": {state: tally.count(state) for state in states},
        "tiles_done": tally.tiles_done,
        "pixels": tally.pixels,
        "share_refined": tally.share_refined,
        "by_image": {name: asdict(image) for name, image in tally.images.items()},
    }
    return json.dumps(tree, indent=1)


def as_page(tally: Tally) -> Group:
    """For a person: why images were set aside; an image a row, those first that need care.

    Then the memory of each pass. Of a large archive the images that are only counted have a row
    together.
    """
    reasons = (
        Text(f"set aside: {image.name}: {image.reason}")
        for image in tally.images.values()
        if image.state == "quarantined"
    )
    return Group(*reasons, _table(tally), *_memory(tally))


def _table(tally: Tally) -> Table:
    table = Table("image", "state", "stage", "units", "tiles", "refined", "unreadable")
    order = {"quarantined": 0, "running": 1, "waiting": 2, "complete": 3}
    for image in sorted(tally.images.values(), key=lambda i: order[i.state]):
        table.add_row(*_cells(image))
    if untold := tally.total - len(tally.images):
        states = {state: tally.count(state) for state in ("waiting", "complete")}
        told = collections.Counter(image.state for image in tally.images.values())
        words = [f"{n - told[state]} {state}" for state, n in states.items() if n > told[state]]
        table.add_row(f"{untold} more", ", ".join(words))
    return table


def _cells(image: ImageTally) -> list[str]:
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


def _memory(tally: Tally) -> Iterator[Table]:
    """A row per pass: the most of any image; nothing where nothing is known."""
    if most := tally.most_memory():
        table = Table("memory of a pass", *(word.removesuffix("_nbytes") for word in MEMORY))
        for name, account in most.items():
            table.add_row(
                name, *(format_nbytes(n) if (n := account.get(w)) else "" for w in MEMORY)
            )
        yield table
