"""Verbs that say what a run has done: ``status`` and ``show``. Parse and print; decide nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.jobs.commands.words import RunPath, screen

app = typer.Typer()


@app.command("status")
def status_command(
    folder: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Images set aside: why, and what to do.")
    ] = False,
    watch: Annotated[
        bool | None,
        typer.Option(
            "--watch/--once",
            help="Keep showing it until the run rests; by default on a terminal, while it runs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say how far a run is, also while it runs."""
    from saccade.jobs.monitoring import status, status_page, watching

    run = status.Watch(folder)
    seen = run.look()
    if failed:
        images = tuple(seen.failed)
        if as_json:
            print(status.failed_json(images))
        else:
            screen.print(status_page.failed_page(images, folder))
    elif as_json:
        print(status.as_json(seen))
    elif watching.wanted(watch, seen, screen.is_terminal):
        watching.watch(run, screen)
    else:
        screen.print(status_page.as_page(seen))


@app.command("show")
def show_command(
    folder: RunPath,
    image: Annotated[str | None, typer.Argument(help="Its name; all of them if left out.")] = None,
) -> None:
    """Draw what was seen: thumbnail, saliency, which pass looked where, the result."""
    from saccade.jobs.pictures.picture import draw_pictures

    for path in draw_pictures(folder, image):
        screen.print(str(path), highlight=False, soft_wrap=True)
