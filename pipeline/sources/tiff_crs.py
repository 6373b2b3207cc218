"""A GeoTIFF's own coordinate system, where it defines one instead of naming one of EPSG's."""

from __future__ import annotations

import io

import numpy as np
from tifffile import TiffPage, TiffWriter

from saccade.pipeline.georeference import Crs
from saccade.pipeline.geotiff import (
    GEO_DOUBLES,
    GEO_KEYS,
    GEO_TEXTS,
    PIXEL_SCALE,
    TIE_POINTS,
    TRANSFORMATION,
)

COPIED = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, GEO_KEYS, GEO_DOUBLES, GEO_TEXTS)


def own_crs(page: TiffPage, uri: str) -> Crs | None:
    """What the keys of a directory define, as PROJ understands them.

    Raises:
        UnsupportedImage: rasterio is not installed.
    """
    from saccade.pipeline.sources.rasterio_crs import crs_in

    return crs_in(_with_its_keys(page), uri)


def _with_its_keys(page: TiffPage) -> bytes:
    """A file of one pixel that lies where the page lies: the image itself may be far away."""
    tags = [page.tags[code] for code in COPIED if code in page.tags]
    extra = [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in tags]
    memory = io.BytesIO()
    with TiffWriter(memory) as writer:
        writer.write(np.zeros((1, 1), np.uint8), extratags=extra, metadata=None, software=False)
    return memory.getvalue()
