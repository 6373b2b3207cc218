"""Verbs that run a recipe: ``run`` and ``demo``. Parse and print; decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.jobs.commands.driving import drive
from saccade.jobs.commands.words import (
    Address,
    Asset,
    Device,
    Formats,
    Fsync,
    GpuMemory,
    Grace,
    HostMemory,
    Images,
    MaxFailures,
    MaxQuarantined,
    RecipePath,
    WorkerCpus,
    WorkerGpus,
    WorkerMemory,
    Workers,
    amount,
    complaints,
    screen,
    share,
    worker_size,
)

app = typer.Typer()


@app.command("run")
def run_command(
    recipe: RecipePath,
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")],
    workers: Workers = "ray",
    address: Address = None,
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    worker_memory: WorkerMemory = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of all images given here.")
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of all images given here.")
    ] = None,
    max_failures: MaxFailures = 3,
    max_quarantined: MaxQuarantined = None,
    shard: Annotated[
        str, typer.Option(help="Only part i of n of the images: 'i/n'; others run the others.")
    ] = "1/1",
    grace: Grace = 30.0,
    results: Annotated[
        str | None,
        typer.Option(help="Put results below s3://BUCKET/PREFIX (gs://, az://) instead."),
    ] = None,
    fsync: Fsync = False,
    force: Annotated[
        bool, typer.Option(help="Start over what was made with other recipe, weights or image.")
    ] = False,
    retry: Annotated[bool, typer.Option(help="Begin images again that were set aside.")] = False,
    area: Annotated[
        str | None,
        typer.Option(help="Look only here: polygons in GeoJSON or GeoPackage, in any CRS."),
    ] = None,
    formats: Formats = None,
    asset: Asset = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Go on without what can't be used of the list.")
    ] = False,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Keep what is counted here, for node exporter (.prom).")
    ] = None,
) -> None:
    """Run a recipe over images. The same command again goes on where it stopped."""
    from saccade.jobs.journals.sharing import Shard
    from saccade.jobs.manifests.manifest import ListOptions, list_images
    from saccade.jobs.options import RunOptions
    from saccade.pipeline.recipe_file import load_recipe

    options = RunOptions(
        workers=workers,
        address=address,
        device=device,
        memory=amount(memory),
        gpu_memory=amount(gpu_memory),
        worker=worker_size(worker_cpus, worker_gpus, worker_memory),
        max_failures=max_failures,
        max_quarantined=share(max_quarantined),
        shard=Shard.parse(shard),
        grace_seconds=grace,
        results=results,
        fsync=fsync,
        force=force,
        retry=retry,
        metrics_file=metrics_file,
    )
    tree = load_recipe(recipe)
    listed = list_images(
        images,
        output=output,
        recipe=tree,
        options=ListOptions(formats, asset, mpp=mpp, gsd=gsd, area=area, skip=skip_missing),
    )
    if listed.problems:
        complaints.print(listed.told(output), markup=False, highlight=False)
    drive(tree, listed, output, options, recipe.parent)


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
