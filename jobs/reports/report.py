"""``saccade report``: what a run did, as one page to read and to mail. Reads; writes one file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from saccade.jobs.journals.journal import read_records
from saccade.jobs.manifests.manifest import entry_from_json
from saccade.jobs.reports.digest import Digest
from saccade.jobs.reports.model import make_report
from saccade.jobs.reports.page import page
from saccade.jobs.reports.pictures import Limits, choose, draw
from saccade.pipeline.errors import SaccadeError, UsageError
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.store_object_shelf import shelf_for
from saccade.workers.folder import RunFolder, write_whole


def write_report(
    root: Path,
    output: Path | None = None,
    limits: Limits | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> Path:
    """Write the report of a run, finished or not; returns where.

    Args:
        root: the run's folder.
        output: the file; ``report.html`` in the run's folder if left out.
        limits: how many images have pictures.
        now: Unix seconds.

    Raises:
        UsageError: the folder is not a run.
        StoreError: the journal can't be read, or the file not be written.
    """
    run = RunFolder(root.absolute())
    if not run.images.exists():
        raise UsageError(f"{root}: not a run folder (no {run.images.name} in it)")
    with run.images.open(encoding="utf-8") as lines:
        names = [entry_from_json(line).name for line in lines]
    digest = Digest.of(names, read_records(run.journal))
    report = make_report(run.root.name, digest, now(), _passes(run))
    choice = choose(report.cards, lambda name: _has_result(run, name), limits or Limits())
    path = output or run.report
    write_whole(path, "".join(page(report, choice, draw(run, report.cards, choice))))
    return path


def _passes(run: RunFolder) -> tuple[str, ...]:
    """Of the recipe, also those that no image has come to; none where it can't be read."""
    try:
        return tuple(one.name for one in load_recipe(run.recipe).passes)
    except (SaccadeError, OSError):
        return ()


def _has_result(run: RunFolder, name: str) -> bool:
    return shelf_for(run.result(name)).get("zarr.json") is not None
