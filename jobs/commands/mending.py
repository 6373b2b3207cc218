"""The verb that begins images again that were set aside: ``retry``. Parses; decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.jobs.commands.driving import drive
from saccade.jobs.commands.words import (
    Address,
    Fsync,
    GpuMemory,
    Grace,
    HostMemory,
    MaxFailures,
    MaxQuarantined,
    RunPath,
    Workers,
    amount,
    screen,
    share,
)

app = typer.Typer()


@app.command("retry")
def retry_command(
    folder: RunPath,
    images: Annotated[
        list[str] | None, typer.Argument(help="Their names; all that were set aside if left out.")
    ] = None,
    workers: Workers = "ray",
    address: Address = None,
    device: Annotated[
        str | None, typer.Option(help="As for 'run'; if left out, of the kind that the run is.")
    ] = None,
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    max_failures: MaxFailures = 3,
    max_quarantined: MaxQuarantined = None,
    grace: Grace = 30.0,
    fsync: Fsync = False,
    models: Annotated[
        Path | None, typer.Option(help="Where the recipe lay, if it is elsewhere by now.")
    ] = None,
) -> None:
    """Begin images again that were set aside, with the run's own recipe and list of images."""
    from saccade.jobs.options import RunOptions
    from saccade.jobs.retrying import what_to_retry

    again = what_to_retry(folder, images or ())
    if not len(again.images):
        screen.print(f"no image of {folder} is set aside", highlight=False)
        return
    options = RunOptions(
        workers=workers,
        address=address,
        device=device or again.device,
        memory=amount(memory),
        gpu_memory=amount(gpu_memory),
        max_failures=max_failures,
        max_quarantined=share(max_quarantined),
        grace_seconds=grace,
        fsync=fsync,
        retry=True,
    )
    drive(again.recipe, again.images, folder, options, models or again.model_folder)
