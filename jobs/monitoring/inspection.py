"""What `saccade inspect` prints: an image's own facts, and what a recipe would read of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from saccade.pipeline.errors import SaccadeError
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.resolve import resolve_image
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.averaged import leaves_pixels_out, note_on
from saccade.pipeline.sources.bands import Band
from saccade.pipeline.sources.base import PixelSize, Source
from saccade.workers.tasks import ImageEntry


def inspect_image(
    uri: str, recipe_path: Path | None = None, *, mpp: float | None = None, gsd: float | None = None
) -> Iterator[Table | str]:
    """An image's levels, pixel size, tiles, codec and channels; then what a recipe would read.

    Raises:
        SaccadeError: the image does not open, or the recipe does not fit it.
    """
    entry = ImageEntry("image", uri, mpp=mpp, gsd=gsd)
    source = open_source(uri)
    try:
        yield facts(source, entry.pixel_size)
        yield levels(source)
        if recipe_path is not None:
            yield reads(source, load_recipe(recipe_path), recipe_path.parent, entry.pixel_size)
    finally:
        source.close()


def facts(source: Source, override: PixelSize | None) -> Table:
    """What holds for the whole image."""
    table = Table.grid(padding=(0, 2))
    size = override or source.pixel_size
    names = _first(source.channel_names)
    rows = {
        "image": source.uri,
        "format": source.format,
        "pixel size": pixel_size_text(size) + (" (stated by you)" if override else ""),
        "channels": f"{source.channels} ({names}), {source.dtype}",
        **place(source.georeference),
        **scales(source.bands),
        "nodata": nodata_text(source),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    overviews = (note_on(source),) if leaves_pixels_out(source) else ()
    for note in (*source.notes, *overviews):
        table.add_row("note", note)
    return table


def pixel_size_text(size: PixelSize | None) -> str:
    """For people."""
    if size is None:
        return "not stated: give --mpp or --gsd, or an 'mpp' column in a manifest"
    unit = {"um": "um", "m": "m"}[size.unit]
    return f"{size.y:.4g} x {size.x:.4g} {unit}"


def place(lies: Georeference | None) -> dict[str, str]:
    """Where an image lies on Earth, as rows; none where it lies nowhere."""
    if lies is None:
        return {}
    rows = {"CRS": str(lies.crs or "none stated")}
    if lies.affine is None:
        return rows | {"lies": f"by {len(lies.control_points)} control points"}
    a, b, c, d, e, f = lies.affine.to_tuple()
    turned = "" if b == d == 0 else f", turned (b {b:g}, d {d:g})"
    upside = "" if lies.affine.north_up or turned else ", not north up"
    corner = f"from x {c:.10g}, y {f:.10g}"
    return rows | {"lies": f"{corner}; pixels {a:.10g}, {e:.10g}{turned}{upside}"}


def scales(bands: Sequence[Band]) -> dict[str, str]:
    """How samples become what was measured, as a row; none where they are that."""
    told = [
        f"{band.name}: sample * {band.scale:g} + {band.offset:g} {band.unit or ''}".rstrip()
        for band in bands
        if (band.scale, band.offset) != (1, 0)
    ]
    return {"scaled": _first(told)} if told else {}


def nodata_text(source: Source) -> str:
    """The value that means no data, per band where bands differ; or what else tells it."""
    values = [(band.name, band.nodata) for band in source.bands if band.nodata is not None]
    if len(values) == source.channels and len({repr(value) for _, value in values}) == 1:
        return f"{values[0][1]:g}"
    if values:
        return _first([f"{name}: {value:g}" for name, value in values])
    if source.dtype.kind == "f":
        return "NaN"
    return "by a mask or an alpha band" if source.lacks_data else "none stated"


def _first(texts: Sequence[str], most: int = 8) -> str:
    return ", ".join(texts[:most]) + (" ..." if len(texts) > most else "")


def levels(source: Source) -> Table:
    """A row per level; of rasters also how the file says it was made."""
    table = Table("level", "height", "width", "downsample", "tile", "codec")
    if source.is_raster:
        table.add_column("resampling")
    for index, level in enumerate(source.levels):
        tile = f"{level.tile[0]} x {level.tile[1]}" if level.tile else ""
        height, width = level.shape
        downsample = f"{level.downsample:g}"
        row = [str(index), str(height), str(width), downsample, tile, level.codec or ""]
        if source.is_raster:
            row.append((level.resampling or "not stated") if index else "")
        table.add_row(*row)
    return table


def reads(
    source: Source, recipe: Recipe, model_folder: Path, override: PixelSize | None
) -> Table | str:
    """A row per pass: what it would read of this image."""
    try:
        specs = [load_model(one.model, base_folder=model_folder).spec for one in recipe.passes]
        plan = resolve_image("image", source, source.identity(), recipe, specs, override)
    except SaccadeError as error:
        return f"this recipe can't run on this image: {error}"
    table = Table("pass", "reads level", "reduced by", "height", "width", "tiles", "halo", "window")
    for layout in plan.passes:
        plane = layout.plane
        whole = layout.window_tiles == 0
        table.add_row(
            layout.name,
            str(plane.level),
            f"{plane.factor:g}",
            *map(str, plane.shape),
            f"{len(layout.tiles)} of {layout.tile_px} px",
            str(layout.halo_px),
            "whole image" if whole else f"{layout.window_tiles * layout.tile_px} px",
        )
    return table
