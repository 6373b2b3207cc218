"""What verbs that drive a run share: the driver with progress on the screen, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from saccade.jobs.commands.words import EXIT_QUARANTINED, complaints, screen

if TYPE_CHECKING:
    from saccade.jobs.driver import RunSummary
    from saccade.jobs.options import RunOptions
    from saccade.pipeline.recipe import Recipe
    from saccade.workers.tasks import ImageEntry

LISTED = 20
"""Images set aside whose reasons are told at the end of a run."""


def drive(
    recipe: Recipe,
    entries: Iterable[ImageEntry],
    output: Path,
    options: RunOptions,
    model_folder: Path,
) -> None:
    """Run with progress on the screen, heeding signals; say how it ended.

    Raises:
        typer.Exit: images were set aside.
    """
    from saccade.jobs.manifests.catalogue import gather
    from saccade.jobs.starting import ray_begun, seems_ended
    from saccade.jobs.stopping import StopSignal, heeding_signals
    from saccade.workers.folder import RunFolder

    asked = gather(entries, recipe, output, skip=options.skip_missing)
    part = asked.shard(options.shard).names
    ended = seems_ended(RunFolder(output).journal, part, options)
    with heeding_signals(StopSignal()) as stop, ray_begun(options, needed=not ended):
        from saccade.jobs.driver import run
        from saccade.jobs.monitoring.progress import Progress

        progress = Progress(screen)
        try:
            summary = run(
                recipe,
                asked,
                output,
                options,
                model_folder=model_folder,
                observe=progress,
                stop=stop,
            )
        finally:
            progress.close()
    if asked.listing is not None and asked.listing.problems:
        skipped = f"{asked.listing.problems} skipped, listed in {output / 'skipped.jsonl'}"
        complaints.print(skipped, markup=False, highlight=False)
    _tell_end(summary, output)
    if summary.quarantined:
        raise typer.Exit(EXIT_QUARANTINED)


def _tell_end(summary: RunSummary, output: Path) -> None:
    from saccade.pipeline.results_place import results_elsewhere

    for name, reason in list(summary.quarantined.items())[:LISTED]:
        complaints.print(f"set aside: {name}: {reason}", markup=False, highlight=False)
    if (more := len(summary.quarantined) - LISTED) > 0:
        complaints.print(f"... and {more} more: saccade status {output}", markup=False)
    if summary.quarantined:
        complaints.print(
            f"mend what is wrong with them, then: saccade retry {output}", markup=False
        )
    place = results_elsewhere(output) or output / "results"
    screen.print(f"{summary.tally.count('complete')} results in {place}", highlight=False)
