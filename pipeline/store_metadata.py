"""The ``zarr.json`` files of a result: arrays and groups of Zarr v3, and OME-Zarr 0.5. Pure dicts.

Physical places are those of pixel centres, with the centre of the image's first pixel at the
origin: a pixel that is ``s`` times larger begins its level at ``(s - 1) / 2``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.pipeline.image_plan import SCHEMA_VERSION, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.palette import class_colours, label_legend
from saccade.pipeline.scores import UINT8_SCALE
from saccade.pipeline.signals import BACKGROUND
from saccade.pipeline.store_geo import array_place
from saccade.pipeline.store_layout import LABELS, ArraySpec, arrays_of, pass_path
from saccade.pipeline.store_shards import ZSTD_LEVEL

OME_VERSION = "0.5"
UNITS = {"um": "micrometer", "m": "meter"}


def as_json(tree: Mapping[str, Any]) -> bytes:
    """A ``zarr.json``; the same tree always gives the same bytes."""
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()


def group(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A group with these attributes."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def groups_of(plan: ImagePlan) -> dict[str, dict[str, Any]]:
    """Every group below the root while the result is not complete, by path."""
    passes = {pass_path(p.name): group({"saccade": _pass(plan, p)}) for p in plan.passes}
    return {"labels": group(), LABELS: group(), "passes": group(), **passes}


def root(plan: ImagePlan, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The root group while the result is not complete: no viewer takes it for an image."""
    facts = {"schema": SCHEMA_VERSION, "state": "running", "plan": json.loads(plan.to_json())}
    return group({"saccade": {**facts, **provenance}})


def _pass(plan: ImagePlan, layout: PassLayout) -> dict[str, Any]:
    size = plan.pixel_size_of(layout.score_downsample)
    return {
        "classes": list(layout.classes),
        "downsample": layout.score_downsample,
        "tile_px": layout.tile_px,
        "stride": layout.stride,
        "pixel_size": None if size is None else {"y": size.y, "x": size.x, "unit": size.unit},
    }


# ------------------------------------------------------------------------------------------ arrays


def array(spec: ArraySpec, place: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An array; ``place`` says where it lies on the ground."""
    inner = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}},
    ]
    three = len(spec.shape) == 3
    depth = [spec.channels if spec.deep else 1] * three
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype.name,
        "chunk_grid": _regular([*spec.shape[:-2], *spec.shard]),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if math.isnan(spec.fill) else int(spec.fill),
        "codecs": [_sharding([*depth, *spec.chunk], inner)] if spec.sharded else inner,
        "dimension_names": ["c", "y", "x"] if three else ["y", "x"],
        "attributes": {**_meaning(spec), **(place or {})},
    }


def _regular(shape: Sequence[int]) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


def _sharding(chunk: Sequence[int], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    configuration = {
        "chunk_shape": list(chunk),
        "codecs": codecs,
        "index_codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}


def _meaning(spec: ArraySpec) -> dict[str, Any]:
    """What a stored value stands for: a probability is the value divided by ``scale``."""
    if spec.facts:
        return {"saccade": dict(spec.facts)}
    if len(spec.shape) == 3 or spec.path.endswith(("/saliency", "/confidence")):
        scale = int(UINT8_SCALE) if spec.dtype.name == "uint8" else 1
        return {"saccade": {"quantity": "probability", "scale": scale}}
    return {}


# --------------------------------------------------------------------------------------------- OME


def ome_image(plan: ImagePlan) -> dict[str, Any]:
    """The ``ome`` attribute of the fused scores."""
    multiscale = _multiscale(plan, plan.name, 1, "mean", "each pixel is the mean of 2 x 2")
    return {"version": OME_VERSION, "multiscales": [multiscale], "omero": _omero(plan)}


def ome_labels() -> dict[str, Any]:
    """The ``ome`` attribute of the group of all labels."""
    return {"version": OME_VERSION, "labels": [LABELS.rpartition("/")[2]]}


def ome_label_image(plan: ImagePlan) -> dict[str, Any]:
    """The ``ome`` attribute of the labels: names and colours of their values, and their image."""
    multiscale = _multiscale(
        plan, "classes", 0, "mode", "each pixel is the commonest of 2 x 2 that were answered"
    )
    return {
        "version": OME_VERSION,
        "multiscales": [multiscale],
        "image-label": {
            "version": OME_VERSION,
            "colors": [
                {"label-value": value, "rgba": [*colour, alpha]}
                for value, (_, colour, alpha) in label_legend(plan.classes).items()
            ],
            "properties": [
                {"label-value": value, "class": name}
                for value, (name, _, _) in label_legend(plan.classes).items()
            ],
            "source": {"image": "../../"},
        },
    }


def _multiscale(
    plan: ImagePlan, name: str, channel_axes: int, kind: str, method: str
) -> dict[str, Any]:
    size = plan.pixel_size
    unit = {} if size is None else {"unit": UNITS[size.unit]}
    axes = [{"name": "c", "type": "channel"}] * channel_axes
    axes += [{"name": axis, "type": "space", **unit} for axis in "yx"]
    levels = range(len(plan.pyramid_shapes))
    return {
        "name": name,
        "axes": axes,
        "datasets": [
            {"path": str(level), "coordinateTransformations": _place(plan, level, channel_axes)}
            for level in levels
        ],
        "type": kind,
        "metadata": {"description": method},
    }


def _place(plan: ImagePlan, level: int, channel_axes: int) -> list[dict[str, Any]]:
    """Scale and half-pixel shift of one level, in the pixel size's unit or pixels of level 0."""
    downsample = plan.last.score_downsample * 2**level
    sides = (1.0, 1.0) if plan.pixel_size is None else (plan.pixel_size.y, plan.pixel_size.x)
    scale = [1.0] * channel_axes + [side * downsample for side in sides]
    shift = [0.0] * channel_axes + [side * (downsample - 1) / 2 for side in sides]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]


def _omero(plan: ImagePlan) -> dict[str, Any]:
    top = int(UINT8_SCALE) if plan.scores == "uint8" else 1
    channels = [
        {
            "label": name,
            "color": "".join(f"{value:02X}" for value in colour),
            "window": {"start": 0, "end": top, "min": 0, "max": top},
            "active": name != BACKGROUND,
        }
        for name, colour in class_colours(plan.classes).items()
    ]
    return {"channels": channels, "rdefs": {"model": "color"}}


def all_metadata(plan: ImagePlan) -> dict[str, bytes]:
    """Every ``zarr.json`` below the root, by key."""
    arrays = {p: array(spec, array_place(plan, spec)) for p, spec in arrays_of(plan).items()}
    return {f"{path}/zarr.json": as_json(tree) for path, tree in (groups_of(plan) | arrays).items()}
