"""Regions of a result as GeoParquet 1.1, in the CRS of the image, row group by row group.

Columns: *id*, *class*, *score*, *area_m2*, *pixels*, *bbox*, *geometry* (WKB, polygons with holes,
outer rings counterclockwise). Needs pyarrow, and rasterio for the CRS: the extra ``geo``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import UsageError
from saccade.pipeline.exports.frame_ground import Ground, placed_by_proj
from saccade.pipeline.exports.labelled_regions import Region, Shapes, regions
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.longitudes import area_m2, counterclockwise
from saccade.pipeline.georeference import Crs
from saccade.pipeline.projecting import known_to_proj

VERSION = "1.1.0"
GROUP_ROWS = 16_384
GROUP_NBYTES = 2**22
"""A group of rows ends when its geometries are so large."""
EDGES = ("xmin", "ymin", "xmax", "ymax")
WKB_POLYGON = 3


def check_geoparquet() -> None:
    """Whether GeoParquet can be written here.

    Raises:
        UsageError: pyarrow or rasterio is not installed.
    """
    try:
        import pyarrow.parquet
        import rasterio.crs
    except ImportError as error:
        raise UsageError(
            f"GeoParquet needs pyarrow and rasterio; {error.name} is not installed; pip install "
            "'saccade[geo]', or export geojson"
        ) from error
    del pyarrow, rasterio


def write_geoparquet(
    path: Path,
    labelling: Labelling,
    ground: Ground,
    facts: Mapping[str, str],
    shapes: Shapes | None = None,
) -> None:
    """Write a file.

    Args:
        path: of the file.
        labelling: what is of which class.
        ground: where pixels are.
        facts: of the result, kept in the schema's metadata.
        shapes: which regions are told, and how exactly.
    """
    import pyarrow
    import pyarrow.parquet

    schema = _schema(pyarrow, {**facts, "geo": json.dumps(geo_metadata(ground.crs))})
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(labelling, ground, shapes):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _schema(pyarrow: Any, facts: Mapping[str, str]) -> Any:
    number = pyarrow.float64()
    fields = [
        ("id", pyarrow.string()),
        ("class", pyarrow.string()),
        ("score", number),
        ("area_m2", number),
        ("pixels", pyarrow.int64()),
        ("bbox", pyarrow.struct([(edge, number) for edge in EDGES])),
        ("geometry", pyarrow.binary()),
    ]
    return pyarrow.schema(fields, metadata=dict(facts))


def geo_metadata(crs: Crs) -> dict[str, Any]:
    """The metadata 'geo' of a file; extents are those of the column *bbox*, group by group.

    Args:
        crs: of the coordinates.
    """
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": _projjson(crs),
        "orientation": "counterclockwise",
        "covering": {"bbox": {edge: ["bbox", edge] for edge in EDGES}},
    }
    return {"version": VERSION, "primary_column": "geometry", "columns": {"geometry": column}}


def _projjson(crs: Crs) -> Any:
    from rasterio.crs import CRS

    with placed_by_proj(), known_to_proj(crs):
        return CRS.from_user_input(crs.user_input).to_dict(projjson=True)


def _groups(
    labelling: Labelling, ground: Ground, shapes: Shapes | None
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    nbytes = 0
    for region in regions(labelling, shapes):
        group.append(_row(region, ground))
        nbytes += len(group[-1]["geometry"])
        if len(group) >= GROUP_ROWS or nbytes >= GROUP_NBYTES:
            yield group
            group, nbytes = [], 0
    if group:
        yield group


def _row(region: Region, ground: Ground) -> dict[str, Any]:
    rings = counterclockwise([ground.native(ring) for ring in region.rings])
    edges = (*rings[0].min(axis=0).tolist(), *rings[0].max(axis=0).tolist())
    return {
        "id": str(region.identity),
        "class": region.name,
        "score": region.score,
        "area_m2": area_m2(ground.rings(region.outline.rings)),
        "pixels": region.outline.pixels,
        "bbox": dict(zip(EDGES, edges, strict=True)),
        "geometry": well_known_binary(rings),
    }


def well_known_binary(rings: Sequence[np.ndarray]) -> bytes:
    """A polygon as ISO WKB, little-endian; rings are closed here."""
    parts = [struct.pack("<BII", 1, WKB_POLYGON, len(rings))]
    for ring in rings:
        parts.append(struct.pack("<I", len(ring) + 1))
        parts.append(np.concatenate([ring, ring[:1]]).astype("<f8").tobytes())
    return b"".join(parts)
