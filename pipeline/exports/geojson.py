"""Regions of a result as GeoJSON that QuPath opens, written feature by feature. Knows no file.

One Feature per region of one class: a Polygon with its holes, along the edges of the result's
pixels, in the coordinates of a frame. Pixels belong together where they touch along a side. As
QuPath has it (``PathObject`` in its GeoJSON): *objectType*, *classification* with name and colour,
*measurements* as numbers by name, *isLocked*; an *id* that is a UUID, the same whenever the same
region is exported again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from saccade.pipeline.exports.closed_rings import doubled_area, parts
from saccade.pipeline.exports.frame import Frame
from saccade.pipeline.exports.labelled_regions import Region, Shapes, regions
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.palette import Colour

ObjectType = Literal["annotation", "detection"]


@dataclass(frozen=True, slots=True)
class FeatureStyle:
    """How regions are told to QuPath."""

    object_type: ObjectType = "annotation"
    """Annotations can be edited; thousands of regions are handled better as detections."""
    shapes: Shapes | None = None
    """Which regions are told, and how exactly."""


def feature_collection(
    labelling: Labelling,
    frame: Frame,
    facts: Mapping[str, Any],
    style: FeatureStyle | None = None,
) -> Iterator[str]:
    """The text of a FeatureCollection, piece by piece.

    Args:
        labelling: what is of which class.
        frame: what coordinates mean.
        facts: of the result, plain JSON; kept under 'saccade'.
        style: how regions are told.
    """
    style = style or FeatureStyle()
    found = regions(labelling, style.shapes)
    features = (_feature(region, labelling.colours[region.name], frame, style) for region in found)
    yield from collection(facts, features)


def collection(facts: Mapping[str, Any], features: Iterable[Iterable[str]]) -> Iterator[str]:
    """The text of a FeatureCollection from that of its features."""
    head = {"type": "FeatureCollection", "saccade": facts}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n'
    before = ""
    for feature in features:
        yield before
        yield from feature
        before = ",\n"
    yield "\n]}\n"


def _feature(region: Region, colour: Colour, frame: Frame, style: FeatureStyle) -> Iterator[str]:
    """One Feature; its positions last, and a part at a time: there may be millions."""
    properties = {
        "objectType": style.object_type,
        "classification": {"name": region.name, "color": list(colour)},
        "isLocked": False,
        "measurements": _measurements(region, frame),
    }
    told = {"type": "Feature", "id": str(region.identity), "properties": properties}
    yield text(told)[:-1] + ',"geometry":{"type":"Polygon","coordinates":'
    for number, ring in enumerate(region.rings):
        yield ",[" if number else "[["
        for part in parts(ring):
            yield text(frame.place(part[:-1]).tolist())[1:-1] + ","
        # as GeoJSON has it: the first position again at the end
        yield text(frame.place(ring[:1]).tolist())[1:-1] + "]"
    yield "]}}"


def text(tree: object) -> str:
    """As small as JSON can be; NaN is refused."""
    return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _measurements(region: Region, frame: Frame) -> dict[str, float]:
    areas = frame.areas(sum(doubled_area(ring, frame.place) for ring in region.outline.rings))
    return {**areas, "Mean score": region.score}
