"""A result as a STAC 1.1 Item: where it lies, what its files hold, what it was made from. Pure.

Extensions: projection 2.0, raster 2.0, classification 2.0, processing 1.2. Knows no file; which
assets there are is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from saccade.pipeline.exports.frame_ground import Ground
from saccade.pipeline.exports.gdal_xml import Legend
from saccade.pipeline.exports.longitudes import bounding_box, cut
from saccade.pipeline.exports.rasters import NODATA
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan

VERSION = "1.1.0"
SCHEMA = "https://stac-extensions.github.io"
EXTENSIONS = (
    f"{SCHEMA}/projection/v2.0.0/schema.json",
    f"{SCHEMA}/raster/v2.0.0/schema.json",
    f"{SCHEMA}/classification/v2.0.0/schema.json",
    f"{SCHEMA}/processing/v1.2.0/schema.json",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
Kind = Literal["labels", "scores", "geojson", "geoparquet", "zarr-0.4", "result"]
ASSETS: Mapping[Kind, tuple[str, str]] = {
    "labels": (COG, "class of every pixel"),
    "scores": (COG, "probability of every class"),
    "geojson": ("application/geo+json", "regions in longitude and latitude"),
    "geoparquet": ("application/vnd.apache.parquet", "regions in the CRS of the image"),
    "zarr-0.4": ("application/vnd+zarr; version=2", "scores and labels as OME-Zarr 0.4"),
    "result": ("application/vnd+zarr; version=3", "the result itself, OME-Zarr 0.5"),
}
"""Media type and title."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of an image besides its plan."""

    taken: datetime | None
    """When; None where nobody said."""
    software: str
    """Version of saccade."""
    lineage: str
    """How it was made, in words."""


def stac_item(
    plan: ImagePlan,
    ground: Ground,
    legend: Legend,
    assets: Mapping[Kind, str],
    origin: Origin,
    window: Box | None = None,
) -> dict[str, Any]:
    """An Item.

    Args:
        plan: of the image.
        ground: where its result's pixels are.
        legend: name, colour and opacity of every label.
        assets: where the files are that there are.
        origin: what else is known.
        window: what the files hold of the result; all of it by default.
    """
    window = window or Box(0, 0, *plan.shape)
    (border,) = ground.rings([_border(window)])
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": plan.name,
        "geometry": _geometry(border, ground.decimals),
        "bbox": [round(edge, ground.decimals) for edge in bounding_box(border)],
        "properties": _when(plan, origin) | _projection(window, ground) | _processing(origin),
        "links": [{"rel": "derived_from", "href": plan.uri, "title": "the image"}],
        "assets": {kind: _asset(plan, kind, href, legend) for kind, href in assets.items()},
    }


def _border(window: Box) -> np.ndarray:
    y0, x0, y1, x1 = window.y0, window.x0, window.y1, window.x1
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _geometry(border: np.ndarray, decimals: int) -> dict[str, Any]:
    polygons = [[_closed(ring, decimals) for ring in part] for part in cut([border], decimals)]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: np.ndarray, decimals: int) -> list[list[float]]:
    found: list[list[float]] = np.round(np.concatenate([ring, ring[:1]]), decimals).tolist()
    return found


def _when(plan: ImagePlan, origin: Origin) -> dict[str, Any]:
    """When the image was taken; else that it was no later than its file was written."""
    if origin.taken is not None:
        return {"datetime": _text(origin.taken)}
    written = datetime.fromtimestamp(plan.identity.modified_ns / 1e9, UTC)
    times = {"start_datetime": _text(EPOCH), "end_datetime": _text(max(EPOCH, written))}
    return {"datetime": None, **times}


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _projection(window: Box, ground: Ground) -> dict[str, Any]:
    """Of the result, whose rasters all have one grid."""
    crs, affine = ground.crs, ground.place.affine
    said: dict[str, Any] = {
        "proj:code": None if crs.epsg is None else str(crs),
        "proj:shape": list(window.shape),
    }
    if crs.epsg is None:
        said["proj:wkt2"] = crs.wkt
    if affine is not None:
        corners = ground.native(_border(window))
        said["proj:bbox"] = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
        scaled = affine.scaled(ground.downsample, ground.downsample)
        said["proj:transform"] = list(scaled.moved(window.y0, window.x0).to_tuple())
    return said


def _processing(origin: Origin) -> dict[str, Any]:
    return {
        "processing:software": {"saccade": origin.software},
        "processing:lineage": origin.lineage,
    }


def _asset(plan: ImagePlan, kind: Kind, href: str, legend: Legend) -> dict[str, Any]:
    media, title = ASSETS[kind]
    asset: dict[str, Any] = {"href": href, "type": media, "title": title, "roles": ["data"]}
    size = plan.pixel_size_of(plan.last.score_downsample)
    metres = {} if size is None or size.unit != "m" else {"raster:spatial_resolution": size.y}
    if kind == "labels":
        band = {"name": "labels", "data_type": "uint8", "nodata": NODATA, **metres}
        asset["bands"] = [band | {"classification:classes": _classes(legend)}]
    if kind == "scores":
        known = {"data_type": "float32", "nodata": "nan", **metres}
        asset["bands"] = [{"name": name, **known} for name in plan.classes]
    return asset


def _classes(legend: Legend) -> Sequence[dict[str, Any]]:
    """The extension takes letters, digits, hyphens and underscores for a name."""
    classes = []
    for value, (title, colour, _) in legend.items():
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in title)
        said: dict[str, Any] = {"value": value, "name": name, "title": title}
        nodata = {"nodata": True} if value == NODATA else {}
        classes.append(said | {"color_hint": bytes(colour).hex().upper()} | nodata)
    return classes
