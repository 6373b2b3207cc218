"""Verbs that run a recipe: ``run`` and ``demo``. Parse and print; decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.jobs.commands.words import (
    EXIT_QUARANTINED,
    Asset,
    Device,
    Formats,
    GpuMemory,
    HostMemory,
    Images,
    RecipePath,
    Workers,
    amount,
    complaints,
    screen,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saccade.jobs.driver import RunSummary
    from saccade.jobs.options import RunOptions
    from saccade.pipeline.recipe import Recipe
    from saccade.workers.tasks import ImageEntry

app = typer.Typer()


@app.command("run")
def run_command(
    recipe: RecipePath,
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")],
    workers: Workers = "ray",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; RAY_ADDRESS works too.")
    ] = None,
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of all images given here.")
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of all images given here.")
    ] = None,
    max_failures: Annotated[
        int, typer.Option(help="Failures of one unit until its image is set aside.", min=1)
    ] = 3,
    grace: Annotated[float, typer.Option(help="Seconds to finish units on SIGTERM.")] = 30.0,
    fsync: Annotated[bool, typer.Option(help="Force every shard to disk.")] = False,
    force: Annotated[
        bool, typer.Option(help="Start over what was made with other recipe, weights or image.")
    ] = False,
    retry: Annotated[bool, typer.Option(help="Begin images again that were set aside.")] = False,
    formats: Formats = None,
    asset: Asset = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Go on without what can't be used of the list.")
    ] = False,
) -> None:
    """Run a recipe over images. The same command again goes on where it stopped."""
    from saccade.jobs.manifest import ListOptions, list_images
    from saccade.jobs.options import RunOptions
    from saccade.pipeline.recipe_file import load_recipe

    options = RunOptions(
        workers=workers,
        address=address,
        device=device,
        memory=amount(memory),
        gpu_memory=amount(gpu_memory),
        max_failures=max_failures,
        grace_seconds=grace,
        fsync=fsync,
        force=force,
        retry=retry,
    )
    tree = load_recipe(recipe)
    listed = list_images(
        images,
        output=output,
        recipe=tree,
        options=ListOptions(formats, asset, mpp=mpp, gsd=gsd, skip=skip_missing),
    )
    if listed.problems:
        complaints.print(listed.told(output), markup=False, highlight=False)
    summary = _drive(tree, recipe.parent, listed, output, options)
    _tell_end(summary, output)
    if listed.problems:
        skipped = f"{listed.problems} skipped, listed in {output / 'skipped.jsonl'}"
        complaints.print(skipped, markup=False, highlight=False)
    if summary.quarantined:
        raise typer.Exit(EXIT_QUARANTINED)


def _drive(
    recipe: Recipe, base: Path, entries: Sequence[ImageEntry], output: Path, options: RunOptions
) -> RunSummary:
    """Run with progress on the screen, heeding signals."""
    from saccade.jobs.starting import ray_begun, seems_ended
    from saccade.jobs.stopping import StopSignal, heeding_signals
    from saccade.workers.folder import RunFolder

    ended = seems_ended(RunFolder(output).journal, (entry.name for entry in entries), options)
    with heeding_signals(StopSignal()) as stop, ray_begun(options, needed=not ended):
        from saccade.jobs.driver import run
        from saccade.jobs.progress import Progress

        progress = Progress(screen)
        try:
            return run(
                recipe, entries, output, options, model_folder=base, observe=progress, stop=stop
            )
        finally:
            progress.close()


def _tell_end(summary: RunSummary, output: Path) -> None:
    for name, reason in summary.quarantined.items():
        complaints.print(f"set aside: {name}: {reason}", markup=False, highlight=False)
    if summary.quarantined:
        complaints.print("mend what is wrong with them and run again with --retry", markup=False)
    screen.print(f"{len(summary.complete)} results in {output / 'results'}", highlight=False)


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where it goes.")] = Path("demo"),
    slide: Annotated[
        Path | None, typer.Option(help="A slide of your own; else a generated one.")
    ] = None,
    workers: Workers = "ray",
) -> None:
    """Run the main job on a slide and draw what it did."""
    from saccade.jobs.demo import run_demo

    for line in run_demo(output, slide, workers, screen):
        screen.print(line, highlight=False, soft_wrap=True)
