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
) -> None:
    """Say how far a run is, also while it runs."""
    from saccade.jobs import status

    tally = status.read_tally(folder)
    if as_json:
        print(status.as_json(tally))
    else:
        screen.print(status.as_page(tally))


@app.command("show")
def show_command(
    folder: RunPath,
    image: Annotated[str | None, typer.Argument(help="Its name; all of them if left out.")] = None,
) -> None:
    """Draw what was seen: thumbnail, saliency, which pass looked where, the result."""
    from saccade.jobs.picture import draw_pictures

    for path in draw_pictures(folder, image):
        screen.print(str(path), highlight=False, soft_wrap=True)
