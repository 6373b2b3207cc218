"""Verbs that say what a run would do: ``inspect``, ``plan``, ``tune``, ``schema``.

Parse and print; decide nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.jobs.commands.words import (
    Device,
    GpuMemory,
    HostMemory,
    RecipePath,
    Workers,
    amount,
    screen,
)

app = typer.Typer()


@app.command("inspect")
def inspect_command(
    image: Annotated[str, typer.Argument(help="An image.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Also say what this recipe would read.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
) -> None:
    """Print an image's levels, pixel size, tiles, codec and channels."""
    from saccade.jobs.monitoring.inspection import inspect_image

    for part in inspect_image(image, recipe, mpp=mpp, gsd=gsd):
        screen.print(part)


@app.command("plan")
def plan_command(
    recipe: RecipePath,
    image: Annotated[str, typer.Argument(help="The image that it is for.")],
    workers: Workers = "ray",
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print how a recipe would run on an image: sizes, memory and seconds; run nothing."""
    from saccade.jobs import planning
    from saccade.jobs.rehearsal import Conditions

    limits = (amount(memory), amount(gpu_memory))
    schedule = planning.plan_image(
        recipe, image, Conditions(device, workers, *limits, mpp=mpp, gsd=gsd)
    )
    if as_json:
        print(planning.as_json(schedule))
    else:
        for part in planning.as_page(schedule):
            screen.print(part, highlight=False)


@app.command("tune")
def tune_command(
    recipe: RecipePath,
    image: Annotated[str, typer.Argument(help="An image whose tiles are measured on.")],
    fresh: Annotated[bool, typer.Option(help="Measure again what is known.")] = False,
    seconds: Annotated[float, typer.Option(help="Time for measuring.", min=0.1)] = 8.0,
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
) -> None:
    """Print what 'precision: auto' chooses, of which settings; later runs here know it then."""
    from saccade.jobs.rehearsal import Conditions
    from saccade.jobs.tuning import tune

    limits = (amount(memory), amount(gpu_memory))
    conditions = Conditions(device, "ray", *limits, mpp=mpp, gsd=gsd)
    for part in tune(recipe, image, conditions, fresh=fresh, seconds=seconds):
        screen.print(part, highlight=False)


@app.command("schema")
def schema_command() -> None:
    """Print the recipe's JSON Schema, for editors."""
    from saccade.pipeline.recipe_file import recipe_schema

    print(recipe_schema())
