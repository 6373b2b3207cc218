"""Regions of a result as GeoJSON that QuPath opens, written feature by feature. Knows no file.

One Feature per region of one class: a Polygon with its holes, along the edges of the result's
pixels, in the coordinates of a frame. Pixels belong together where they touch along a side. As
QuPath has it (``PathObject`` in its GeoJSON): *objectType*, *classification* with name and colour,
*measurements* as numbers by name, *isLocked*; an *id* that is a UUID, the same whenever the same
region is exported again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from saccade.pipeline.exports.closed_rings import doubled_area, parts
from saccade.pipeline.exports.frame import Frame
from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.outlines import Outline, Outliner
from saccade.pipeline.scores import UINT8_SCALE

ObjectType = Literal["annotation", "detection"]


@dataclass(frozen=True, slots=True)
class FeatureStyle:
    """How regions are told to QuPath."""

    object_type: ObjectType = "annotation"
    """Annotations can be edited; thousands of regions are handled better as detections."""
    least_px: int = 1
    """Regions of fewer pixels of the result are left out."""


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
    head = {"type": "FeatureCollection", "saccade": facts}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n'
    before = ""
    for name, outline in _regions(labelling):
        if outline.pixels >= (style or FeatureStyle()).least_px:
            yield before
            yield from _feature(name, outline, labelling, frame, style or FeatureStyle())
            before = ",\n"
    yield "\n]}\n"


def _regions(labelling: Labelling) -> Iterator[tuple[str, Outline]]:
    """Every region with its class, as soon as it is complete."""
    width = labelling.result.plan.shape[1]
    outliners = {name: Outliner(width) for name in labelling.classes}
    for strip in labelling.strips():
        for name in labelling.classes:
            found = outliners[name].add(*labelling.part(strip, name))
            yield from ((name, outline) for outline in found)
    for name, outliner in outliners.items():
        yield from ((name, outline) for outline in outliner.finish())


def _feature(
    name: str, outline: Outline, labelling: Labelling, frame: Frame, style: FeatureStyle
) -> Iterator[str]:
    """One Feature; its positions last, and a part at a time: there may be millions."""
    properties = {
        "objectType": style.object_type,
        "classification": {"name": name, "color": list(labelling.colours[name])},
        "isLocked": False,
        "measurements": _measurements(outline, labelling, frame),
    }
    identity = str(_identity(labelling.result.plan.name, name, outline))
    told = {"type": "Feature", "id": identity, "properties": properties}
    yield _text(told)[:-1] + ',"geometry":{"type":"Polygon","coordinates":'
    for number, ring in enumerate(outline.rings):
        yield ",[" if number else "[["
        for part in parts(ring):
            yield _text(frame.place(part[:-1]).tolist())[1:-1] + ","
        # as GeoJSON has it: the first position again at the end
        yield _text(frame.place(ring[:1]).tolist())[1:-1] + "]"
    yield "]}}"


def _text(tree: object) -> str:
    return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _measurements(outline: Outline, labelling: Labelling, frame: Frame) -> dict[str, float]:
    scale = float(UINT8_SCALE) if labelling.result.plan.scores == "uint8" else 1.0
    areas = frame.areas(sum(doubled_area(ring, frame.place) for ring in outline.rings))
    return {**areas, "Mean score": round(outline.score / (outline.pixels * scale), 6)}


def _identity(image: str, name: str, outline: Outline) -> UUID:
    """No other region of this class has the same outer ring's first corner."""
    outer = outline.rings[0]
    y = int(outer[:, 1].min())
    x = int(outer[outer[:, 1] == y, 0].min())
    return uuid5(NAMESPACE_URL, f"saccade:{image}/{name}/{y}/{x}")
