"""A georeference as the tags of a GeoTIFF (OGC GeoTIFF 1.1, 19-008r4). The inverse of a reader's.

A CRS with an EPSG number needs two keys and no library. One that has a text alone is told by GDAL,
which comes with the extra ``geo``, and its keys are taken from what GDAL writes.
"""

from __future__ import annotations

import io

from tifffile import TiffFile

from saccade.pipeline.exports.frame_ground import placed_by_proj
from saccade.pipeline.exports.tiff_directory import Tag
from saccade.pipeline.georeference import Affine, Crs, Georeference
from saccade.pipeline.geotiff import (
    GEO_DOUBLES,
    GEO_KEYS,
    GEO_TEXTS,
    GEODETIC_CRS,
    GEOGRAPHIC,
    MODEL_TYPE,
    PIXEL_IS_AREA,
    PIXEL_SCALE,
    PROJECTED,
    PROJECTED_CRS,
    RASTER_TYPE,
    TIE_POINTS,
    TRANSFORMATION,
)
from saccade.pipeline.projecting import known_to_proj, taking_rasterio

LARGEST_NUMBER = 32766
"""Numbers above it are not the registry's own in a GeoTIFF."""


def geo_tags(place: Georeference) -> list[Tag]:
    """Where the pixels of a file lie, and in which CRS.

    Raises:
        UsageError: a CRS without a number, and no GDAL to describe it.
    """
    return _places(place) + _crs_tags(place.crs)


def _places(place: Georeference) -> list[Tag]:
    affine = place.affine
    if affine is None:
        ties = [(p.column, p.row, 0.0, p.x, p.y, p.z) for p in place.control_points]
        return [Tag(TIE_POINTS, "double", ties)]
    if not affine.north_up:
        return [Tag(TRANSFORMATION, "double", _matrix(affine))]
    return [
        Tag(PIXEL_SCALE, "double", (affine.a, -affine.e, 0.0)),
        Tag(TIE_POINTS, "double", (0.0, 0.0, 0.0, affine.c, affine.f, 0.0)),
    ]


def _matrix(affine: Affine) -> tuple[float, ...]:
    """Four rows of four; z stays as it is."""
    a, b, c, d, e, f = affine.to_tuple()
    return (a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1)


def _crs_tags(crs: Crs | None) -> list[Tag]:
    if crs is None:
        return [_keys({RASTER_TYPE: PIXEL_IS_AREA})]
    if crs.epsg is None or crs.epsg > LARGEST_NUMBER:
        return _described(crs)
    model, key = (GEOGRAPHIC, GEODETIC_CRS) if crs.geographic else (PROJECTED, PROJECTED_CRS)
    return [_keys({MODEL_TYPE: model, RASTER_TYPE: PIXEL_IS_AREA, key: crs.epsg})]


def _keys(keys: dict[int, int]) -> Tag:
    entries = [number for key, value in sorted(keys.items()) for number in (key, 0, 1, value)]
    return Tag(GEO_KEYS, "short", (1, 1, 1, len(keys), *entries))


def _described(crs: Crs) -> list[Tag]:
    """The keys that GDAL writes for a CRS."""
    with taking_rasterio(f"a CRS without an EPSG number, as {crs}, to be described in a TIFF,"):
        from rasterio import Affine as Transform
        from rasterio import MemoryFile
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with placed_by_proj(), known_to_proj(crs), MemoryFile() as memory:
        with memory.open(**profile, crs=crs.user_input, transform=Transform(1, 0, 0, 0, -1, 1)):
            pass
        with TiffFile(io.BytesIO(memory.read())) as file:
            tags = file.pages.first.tags
            kinds = {GEO_KEYS: "short", GEO_DOUBLES: "double", GEO_TEXTS: "ascii"}
            return [Tag(c, k, tags[c].value) for c, k in kinds.items() if c in tags]  # type: ignore[arg-type]
