"""Georeferenced TIFFs for tests, written without rasterio; a raster cut up into many of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

RESOLUTION = 10.0
"""Metres per pixel."""
COLUMN, ROW = 500_000.0, 5_000_000.0
"""East and north of the first corner, in UTM zone 32 N."""
EPSG = 32632


def write_tif(
    path: Path,
    levels: Sequence[np.ndarray],
    *,
    nodata: float | None = None,
    east: float = 0.0,
    south: float = 0.0,
    resolution: float = RESOLUTION,
    crs: str | None = f"EPSG:{EPSG}",
) -> Path:
    """A GeoTIFF of levels ``(h, w, c)``, finest first, so many metres off the first corner."""
    tags: list[Any] = []
    if crs is not None:
        epsg = int(crs.partition(":")[2])
        key, model = (2048, 2) if epsg == 4326 else (3072, 1)
        keys = (1, 1, 0, 3, 1024, 0, 1, model, 1025, 0, 1, 1, key, 0, 1, epsg)
        tie = (0.0, 0.0, 0.0, COLUMN + east, ROW - south, 0.0)
        tags += [(33550, 12, 3, (resolution, resolution, 0.0), True)]
        tags += [(33922, 12, 6, tie, True), (34735, 3, len(keys), keys, True)]
    if nodata is not None:
        tags.append((42113, 2, 0, f"{nodata:g}", True))
    details: dict[str, Any] = {"tile": (64, 64), "photometric": "minisblack"}
    details |= {"metadata": None} | ({"planarconfig": "contig"} if levels[0].shape[2] > 1 else {})
    with tifffile.TiffWriter(path) as file:
        for number, pixels in enumerate(levels):
            own = {"extratags": tags} if number == 0 else {"subfiletype": 1}
            plain = pixels if pixels.shape[2] > 1 else pixels[..., 0]
            file.write(plain, **details, **own)
    return path


def pyramid(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    """Levels by taking every second pixel: any cut along them is a cut of each level."""
    return [pixels[:: 2**level, :: 2**level] for level in range(count)]


def cut_up(
    folder: Path,
    *,
    rows: int,
    columns: int,
    overlap_px: int,
    holes: Collection[tuple[int, int]] = (),
    nodata: bool = True,
    shape: tuple[int, int] = (397, 331),
) -> list[np.ndarray]:
    """A raster in files that overlap; returns what they are together, by level.

    Samples are never 0 but where no file is. Files begin at multiples of 16 pixels.
    """
    generator = np.random.default_rng(11)
    pixels = generator.integers(1, 255, (*shape, 3), np.uint8)
    covered = np.zeros(shape, bool)
    side = [-(-length // n // 16) * 16 for length, n in zip(shape, (rows, columns), strict=True)]
    for row in range(rows):
        for column in range(columns):
            y0, x0 = row * side[0], column * side[1]
            y1 = shape[0] if row == rows - 1 else min(y0 + side[0] + overlap_px, shape[0])
            x1 = shape[1] if column == columns - 1 else min(x0 + side[1] + overlap_px, shape[1])
            if (row, column) in holes or y0 >= y1 or x0 >= x1:
                continue
            covered[y0:y1, x0:x1] = True
            east, south = x0 * RESOLUTION, y0 * RESOLUTION
            name = folder / f"tile-{row}-{column}.tif"
            part = np.ascontiguousarray(pixels[y0:y1, x0:x1])
            write_tif(name, pyramid(part, 3), nodata=0 if nodata else None, east=east, south=south)
    return pyramid(np.where(covered[..., None], pixels, 0), 3)
