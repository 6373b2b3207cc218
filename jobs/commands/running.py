"""Verbs that run a recipe: ``run`` and ``demo``. Parse and print; decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.jobs.commands.words import (
    EXIT_QUARANTINED,
    Device,
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
    metrics_file: Annotated[
        Path | None, typer.Option(help="Keep what is counted here, for node exporter (.prom).")
    ] = None,
) -> None:
    """Run a recipe over images. The same command again goes on where it stopped."""
    from saccade.jobs.manifest import find_images, with_pixel_size
    from saccade.jobs.options import RunOptions

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
        metrics_file=metrics_file,
    )
    entries = with_pixel_size(find_images(images), mpp=mpp, gsd=gsd)
    summary = _drive(recipe, entries, output, options)
    _tell_end(summary, output)
    if summary.quarantined:
        raise typer.Exit(EXIT_QUARANTINED)


def _drive(
    recipe: Path, entries: Sequence[ImageEntry], output: Path, options: RunOptions
) -> RunSummary:
    """Run with progress on the screen, heeding signals."""
    from saccade.jobs.starting import ray_begun, seems_ended
    from saccade.jobs.stopping import StopSignal, heeding_signals
    from saccade.pipeline.recipe_file import load_recipe
    from saccade.workers.folder import RunFolder

    tree = load_recipe(recipe)
    ended = seems_ended(RunFolder(output).journal, (entry.name for entry in entries), options)
    with heeding_signals(StopSignal()) as stop, ray_begun(options, needed=not ended):
        from saccade.jobs.driver import run
        from saccade.jobs.progress import Progress

        progress = Progress(screen)
        try:
            base = recipe.parent
            return run(
                tree, entries, output, options, model_folder=base, observe=progress, stop=stop
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
