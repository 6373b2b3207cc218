"""The verb that says which images there are: ``manifest``. Parses and prints; decides nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.jobs.commands.words import (
    EXIT_QUARANTINED,
    Asset,
    Formats,
    Images,
    complaints,
    screen,
)

if TYPE_CHECKING:
    from saccade.jobs.manifests.manifest import ListOptions

app = typer.Typer()


@app.command("manifest")
def manifest_command(
    images: Images,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .csv, .jsonl or .parquet file; else the screen."),
    ] = None,
    mosaic: Annotated[
        Path | None,
        typer.Option(help="Write a .mosaic.yaml of the files on one grid, one image for 'run'."),
    ] = None,
    formats: Formats = None,
    asset: Asset = None,
) -> None:
    """List images with format, size, levels and pixel size, as a manifest; reads headers only."""
    from saccade.jobs.manifests.making import make_manifest
    from saccade.jobs.manifests.manifest import ListOptions
    from saccade.jobs.manifests.writing import csv_lines, write_manifest, writer_for

    if mosaic is not None:
        _describe_mosaic(mosaic, images, ListOptions(formats, asset))
        return
    if output is not None:
        writer_for(output)
    made = make_manifest(images, ListOptions(formats, asset))
    if output is None:
        sys.stdout.writelines(csv_lines(made.rows))
    else:
        write_manifest(made.rows, output)
        screen.print(f"{len(made.rows)} images in {output}", highlight=False, soft_wrap=True)
    if made.listing.problems:
        complaints.print(made.listing.told(output), markup=False, highlight=False)
        raise typer.Exit(EXIT_QUARANTINED)


def _describe_mosaic(path: Path, images: list[str], options: ListOptions) -> None:
    """Write a mosaic, and tell what is not in it."""
    from saccade.jobs.manifests.mosaicking import write_mosaic

    made = write_mosaic(path, images, options)
    screen.print(f"{len(made.files)} files in {path}", highlight=False, soft_wrap=True)
    if made.listing.problems:
        complaints.print(made.listing.told(path), markup=False, highlight=False)
        raise typer.Exit(EXIT_QUARANTINED)
