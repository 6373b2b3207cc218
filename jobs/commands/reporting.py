"""The verb that tells a run to others: ``report``. Parse and print; decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.jobs.commands.words import RunPath, screen

app = typer.Typer()


@app.command("report")
def report_command(
    folder: RunPath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; RUN/report.html if left out.")
    ] = None,
    pictures: Annotated[
        int, typer.Option(help="Images that have all four pictures, at most.", min=0)
    ] = 24,
    thumbnails: Annotated[
        int, typer.Option(help="Images with a small picture, at most, beside those.", min=0)
    ] = 240,
) -> None:
    """Write one HTML page on a run, finished or not, to read and to mail."""
    from saccade.jobs.reports.pictures import Limits
    from saccade.jobs.reports.report import write_report

    path = write_report(folder, output, Limits(pictures, thumbnails))
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    screen.print(f"{path} ({size})", highlight=False, soft_wrap=True)
