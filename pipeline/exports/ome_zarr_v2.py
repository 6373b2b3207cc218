"""OME-Zarr 0.4 (Zarr v2) for programs that do not read 0.5: the same arrays, chunk by chunk.

A chunk is a file of its own, compressed by zlib, which every reader of Zarr has. Each level of the
pyramid is made from the chunks of the one above, read back. Chunks that are all fill are left out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline import store_metadata
from saccade.pipeline.exports.rasters import Raster
from saccade.pipeline.geometry import Box, Grid, Shape
from saccade.pipeline.image_plan import LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.store_shards import all_fill

VERSION = "0.4"
CHUNK_PX = 512
"""Side of a chunk."""
ZLIB_LEVEL = 1


def write_ome_zarr(
    root: Path, plan: ImagePlan, scores: Raster, labels: Raster, facts: Mapping[str, Any]
) -> None:
    """Write a group with scores and, under 'labels', labels.

    Args:
        root: a folder that is not there yet.
        plan: of the image.
        scores: all classes of the result.
        labels: of the result.
        facts: kept under 'saccade' in the root's attributes.
    """
    _group(root, _image_attributes(plan) | {"saccade": dict(facts)})
    _levels(root, plan.pyramid_shapes, scores, fill=0.0 if plan.scores == "uint8" else np.nan)
    _group(root / "labels", {"labels": ["classes"]})
    _group(root / "labels" / "classes", _label_attributes(plan))
    _levels(root / "labels" / "classes", plan.pyramid_shapes, labels, fill=LABEL_UNKNOWN, flat=True)


# ---------------------------------------------------------------------------------------- metadata


def _image_attributes(plan: ImagePlan) -> dict[str, Any]:
    """What version 0.5 says, in the words of 0.4: no 'ome' around it, a version in each part."""
    tree = store_metadata.ome_image(plan)
    return {"multiscales": _versioned(tree), "omero": tree["omero"] | {"version": VERSION}}


def _label_attributes(plan: ImagePlan) -> dict[str, Any]:
    tree = store_metadata.ome_label_image(plan)
    return {
        "multiscales": _versioned(tree),
        "image-label": tree["image-label"] | {"version": VERSION},
    }


def _versioned(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one | {"version": VERSION} for one in tree["multiscales"]]


def _group(folder: Path, attributes: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    _json(folder / ".zgroup", {"zarr_format": 2})
    _json(folder / ".zattrs", attributes)


def _json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------ arrays


@dataclass(frozen=True, slots=True, eq=False)
class _Array:
    """One array of Zarr v2, in chunks of one plane each."""

    folder: Path
    shape: Shape
    dtype: np.dtype[np.generic]
    fill: float
    flat: bool
    """Whether it has no axis of channels."""

    def create(self, channels: int) -> None:
        """Write its metadata."""
        self.folder.mkdir(parents=True)
        planes = [] if self.flat else [channels]
        tree = {
            "zarr_format": 2,
            "shape": [*planes, *self.shape],
            "chunks": [*(1 for _ in planes), CHUNK_PX, CHUNK_PX],
            "dtype": self.dtype.newbyteorder("<").str,
            "fill_value": "NaN" if np.isnan(self.fill) else int(self.fill),
            "order": "C",
            "compressor": {"id": "zlib", "level": ZLIB_LEVEL},
            "filters": None,
            "dimension_separator": "/",
        }
        _json(self.folder / ".zarray", tree)

    def write(self, channel: int, box: Box, values: np.ndarray) -> None:
        """Store one chunk, cut off at the array's edge."""
        if all_fill(values, self.fill):
            return
        whole = np.full((CHUNK_PX, CHUNK_PX), self.fill, self.dtype.newbyteorder("<"))
        whole[: box.height, : box.width] = values
        path = self._path(channel, box)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.compress(whole.tobytes(), ZLIB_LEVEL))

    def read(self, channel: int, box: Box) -> np.ndarray:
        """A box of chunks."""
        values = np.full(box.shape, self.fill, self.dtype)
        for place in Grid(box.shape, CHUNK_PX):
            path = self._path(channel, place.shift(box.y0, box.x0))
            if path.is_file():
                flat = np.frombuffer(zlib.decompress(path.read_bytes()), self.dtype)
                chunk = flat.reshape(CHUNK_PX, CHUNK_PX)
                values[place.slices] = chunk[: place.height, : place.width]
        return values

    def _path(self, channel: int, box: Box) -> Path:
        key = [] if self.flat else [channel]
        return self.folder.joinpath(*map(str, [*key, box.y0 // CHUNK_PX, box.x0 // CHUNK_PX]))


def _levels(
    folder: Path, shapes: tuple[Shape, ...], raster: Raster, *, fill: float, flat: bool = False
) -> None:
    """The pyramid of one raster."""
    above: _Array | None = None
    for level, shape in enumerate(shapes):
        array = _Array(folder / str(level), shape, raster.dtype, fill, flat)
        array.create(len(raster.channels))
        for channel in range(len(raster.channels)):
            for box in Grid(shape, CHUNK_PX):
                if above is None:
                    values = raster.read(channel, box)
                else:
                    values = raster.halve(above.read(channel, box.scale(2).clip(above.shape)))
                array.write(channel, box, values)
        above = array
