"""The verb ``export``. Parses and prints; decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.jobs.commands.words import RunPath, screen

app = typer.Typer()
FORMATS_TOLD = "geojson, geoparquet, cog, stac, ome-tiff, ome-zarr-0.4, csv, parquet or png."


@app.command("export")
def export_command(
    folder: RunPath,
    to: Annotated[str, typer.Option(help=FORMATS_TOLD)],
    images: Annotated[
        list[str] | None, typer.Argument(help="Their names; all of them if left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder; RUN/exports by default.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(help="Only these, one by one or with commas; else all but the background."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="geojson, geoparquet, cog, ome-tiff: a pixel's least score."),
    ] = None,
    content: Annotated[
        str | None, typer.Option(help="cog, ome-tiff: labels (the default) or scores.")
    ] = None,
    objects: Annotated[
        str | None, typer.Option(help="geojson: annotation or detection, as QuPath has them.")
    ] = None,
    least_px: Annotated[
        int | None, typer.Option(help="geojson, geoparquet: leave smaller regions out.", min=1)
    ] = None,
    simplify: Annotated[
        float | None,
        typer.Option(
            help="geojson, geoparquet: outlines within so many pixels of the result's; neighbours "
            "stay neighbours.",
            min=0,
        ),
    ] = None,
    area: Annotated[
        str | None,
        typer.Option(
            help="cog, geojson, geoparquet, stac: cut along these polygons (GeoJSON, GeoPackage); "
            "by default along the run's area; 'none' for whole tiles."
        ),
    ] = None,
    taken: Annotated[
        datetime | None, typer.Option(help="stac: when the image was taken, in UTC.")
    ] = None,
    px: Annotated[
        int | None, typer.Option(help="png: longer side of the image; 2048.", min=64, max=16384)
    ] = None,
) -> None:
    """Write results as other programs read them, finished or not; replaces earlier exports."""
    from saccade.jobs.exports.exporting import export
    from saccade.jobs.exports.options import ExportOptions

    named = tuple(one.strip() for part in classes or () for one in part.split(","))
    values: dict[str, Any] = {
        "to": to,
        "classes": named,
        "threshold": threshold,
        "content": content,
        "object_type": objects,
        "least_px": least_px,
        "simplify_px": simplify,
        "longest_px": px,
        "area": area,
        "taken": None if taken is None else taken.replace(tzinfo=UTC),
    }
    for path in export(folder, ExportOptions(**values), images or (), output):
        screen.print(str(path), highlight=False, soft_wrap=True)
