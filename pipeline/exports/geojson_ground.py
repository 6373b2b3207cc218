"""Regions of a result on Earth as GeoJSON (RFC 7946): longitude and latitude on WGS 84.

One Feature per region of one class, with its holes; cut at the antimeridian, outer rings
counterclockwise. Properties: *class*, *score* (mean), *area_m2* (on the ellipsoid), *pixels* (of
the result). Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from saccade.pipeline.exports.closed_rings import PART_POINTS
from saccade.pipeline.exports.frame_ground import Ground
from saccade.pipeline.exports.geojson import collection, text
from saccade.pipeline.exports.labelled_regions import Region, Shapes, regions
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.longitudes import area_m2, cut


def ground_collection(
    labelling: Labelling, ground: Ground, facts: Mapping[str, Any], shapes: Shapes | None = None
) -> Iterator[str]:
    """The text of a FeatureCollection, piece by piece.

    Args:
        labelling: what is of which class.
        ground: where pixels are.
        facts: of the result, plain JSON; kept under 'saccade'.
        shapes: which regions are told, and how exactly.
    """
    decimals = ground.decimals
    found = regions(labelling, shapes)
    yield from collection(facts, (_feature(region, ground, decimals) for region in found))


def _feature(region: Region, ground: Ground, decimals: int) -> Iterator[str]:
    whole = ground.rings(region.outline.rings)
    rings = whole if region.rings is region.outline.rings else ground.rings(region.rings)
    properties = {
        "class": region.name,
        "score": region.score,
        "area_m2": float(f"{area_m2(whole):.9g}"),
        "pixels": region.outline.pixels,
    }
    told = {"type": "Feature", "id": str(region.identity), "properties": properties}
    polygons = cut(rings, decimals)
    kind = "Polygon" if len(polygons) == 1 else "MultiPolygon"
    yield text(told)[:-1] + f',"geometry":{{"type":"{kind}","coordinates":'
    yield "" if len(polygons) == 1 else "["
    for number, polygon in enumerate(polygons):
        yield "," if number else ""
        yield from _polygon(polygon, decimals)
    yield "}}" if len(polygons) == 1 else "]}}"


def _polygon(rings: list[np.ndarray], decimals: int) -> Iterator[str]:
    """Positions, a part at a time: there may be millions."""
    yield "["
    for number, ring in enumerate(rings):
        rounded = np.round(ring, decimals)
        yield ",[" if number else "["
        for at in range(0, len(rounded), PART_POINTS):
            yield text(rounded[at : at + PART_POINTS].tolist())[1:-1] + ","
        yield text(rounded[:1].tolist())[1:-1] + "]"
    yield "]"
