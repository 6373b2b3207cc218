"""A pyramidal, tiled, compressed OME-TIFF, tile by tile. The only export that knows tifffile.

What waits for the next level lies in a folder beside the target. The same raster always gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tifffile import TiffWriter

from saccade.pipeline.exports.rasters import Raster
from saccade.pipeline.exports.tiled_pyramid import TILE_PX, level_shapes, tiled_levels
from saccade.pipeline.geometry import Shape
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store_shelf import PARTIAL

CLASSIC_NBYTES = 2**32 - 2**26
"""A file that might grow beyond this, were nothing of it compressed, is a BigTIFF."""
BUFFER_NBYTES = 2**23
"""tifffile compresses tiles of about so many bytes at once."""


def write_ome_tiff(
    path: Path, raster: Raster, description: bytes, pixel_size: PixelSize | None
) -> None:
    """Write a file.

    Args:
        path: of the file; ends in '.ome.tif' once it is in its place.
        raster: what to write.
        description: OME-XML.
        pixel_size: of the finest level, for readers that know no OME.
    """
    shapes = level_shapes(raster.shape)
    with ExitStack() as stack:
        folder = TemporaryDirectory(PARTIAL, f"{path.name}.", path.parent)
        spool = Path(stack.enter_context(folder))
        big = _is_big(raster, shapes)
        file = stack.enter_context(TiffWriter(path, bigtiff=big, ome=False))
        for level in stack.enter_context(closing(tiled_levels(raster, spool))):
            first = _first(description, len(shapes) - 1) if level.index == 0 else {"subfiletype": 1}
            said = first | _resolution(pixel_size, level.index)
            _write_level(file, raster, level.shape, level.tiles, **said)


def _write_level(
    file: TiffWriter, raster: Raster, shape: Shape, tiles: Iterator[np.ndarray], **said: object
) -> None:
    file.write(
        tiles,
        shape=(len(raster.channels), *shape),
        dtype=raster.dtype,
        tile=(TILE_PX, TILE_PX),
        photometric="minisblack",
        compression="zlib",
        metadata=None,
        software="saccade",
        buffersize=BUFFER_NBYTES,
        maxworkers=1,
        **said,
    )


def _is_big(raster: Raster, shapes: tuple[Shape, ...]) -> bool:
    pixels = sum(height * width for height, width in shapes)
    return len(raster.channels) * pixels * raster.dtype.itemsize > CLASSIC_NBYTES


def _first(description: bytes, levels: int) -> dict[str, object]:
    """What only pages of the finest level have."""
    return {"description": description, "subifds": levels, "subfiletype": 0}


def _resolution(size: PixelSize | None, level: int) -> dict[str, object]:
    """Pixels per centimetre."""
    if size is None:
        return {}
    centimetre = {"um": 1e4, "m": 1e-2}[size.unit]
    per = tuple(centimetre / (side * 2**level) for side in (size.x, size.y))
    return {"resolution": per, "resolutionunit": "CENTIMETER"}
