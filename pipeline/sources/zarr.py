"""OME-Zarr groups (0.4 in zarr v2, 0.5 in zarr v3) and bare zarr arrays. Knows no output layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import ObjectStore

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.remote import list_below
from saccade.pipeline.remote_stores import is_remote, is_web, persistently, store_at
from saccade.pipeline.sources.base import Identity, Level, PixelSize
from saccade.pipeline.sources.identities import objects_identity
from saccade.pipeline.sources.ome import json_pixel_size, one_plane
from saccade.pipeline.sources.reader import (
    Reader,
    colour_names,
    distinct,
    level_of,
    native,
    numbered,
    opening,
)

T = TypeVar("T")

DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")

Array = zarr.Array[Any]


class ZarrSource(Reader):
    """An image in a zarr store, on disk, in an object store, or behind a URL that fsspec knows.

    A bare array of three axes that names none is taken as ``(y, x, channel)``. Chunks that are
    not stored hold the array's fill value.

    Raises:
        BrokenImage: the metadata is damaged.
        UnsupportedImage: a group that is no image, or an axis besides ``y``, ``x`` and ``c``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with opening(uri, "zarr array or OME-Zarr image"):
            self._asked(self._open)

    def _open(self) -> None:
        node = zarr.open(store=_store(self.uri), mode="r")
        if isinstance(node, zarr.Array):
            self._describe_array(node)
        else:
            self._describe_group(node)

    def _describe_array(self, array: Array) -> None:
        self.format = f"zarr v{array.metadata.zarr_format}"
        self._use([array], _array_axes(array, self.uri))
        self.channel_names = (colour_names if self.channels < 4 else numbered)(self.channels)
        self.nodata = _number(array.attrs.get("_FillValue"))

    def _describe_group(self, group: zarr.Group) -> None:
        if "bioformats2raw.layout" in _ome_attributes(group):
            group = _child(group, "0", zarr.Group, self.uri)
        document = _image_document(group, self.uri)
        image = document["multiscales"][0]
        version = image.get("version") or document.get("version") or "?"
        self.format = f"OME-Zarr {version}"
        axes = _ome_axes(image)
        paths = [str(dataset["path"]) for dataset in image["datasets"]]
        self._use(
            [_child(group, path, zarr.Array, self.uri) for path in paths],
            "".join(str(axis["name"]) for axis in axes),
        )
        self.pixel_size = _pixel_size(image, axes)
        labels = [str(c.get("label", "")) for c in document.get("omero", {}).get("channels", ())]
        self.channel_names = distinct(labels, self.channels)

    def _use(self, arrays: Sequence[Array], axes: str) -> None:
        """Take the arrays as levels, each with these axes, one letter per axis."""
        first = arrays[0]
        if sorted(axes) != sorted(set(axes)) or not {"y", "x"} <= set(axes):
            raise UnsupportedImage(f"{self.uri}: axes y, x and perhaps c expected, found '{axes}'")
        one_plane(self.uri, axes, first.shape)
        self._axes = axes
        self.dtype = native(np.dtype(first.dtype), self.uri)
        self.channels = _length(first, axes, "c")
        shapes = [(_length(a, axes, "y"), _length(a, axes, "x")) for a in arrays]
        self.levels, kept = _levels(arrays, axes, shapes)
        self._arrays = [arrays[index] for index in kept]

    def _decode(self, level: int, box: Box) -> np.ndarray:
        spans = {"y": slice(box.y0, box.y1), "x": slice(box.x0, box.x1), "c": slice(None)}
        index = tuple(spans.get(axis, 0) for axis in self._axes)
        pixels = self._asked(lambda: np.asarray(self._arrays[level][index]))
        kept = [axis for axis in self._axes if axis in "yxc"]
        order = [kept.index(axis) for axis in "yxc" if axis in kept]
        ordered = pixels.transpose(order).reshape(*box.shape, self.channels)
        return ordered.astype(self.dtype, order="C", copy=True)

    def _asked(self, do: Callable[[], T]) -> T:
        """What an object store says goes by this package's names, and never for damage."""
        return persistently(self.uri, do) if is_remote(self.uri) else do()

    def identity(self) -> Identity:
        """Hash of the metadata documents, and sizes and modification times of all files.

        In an object store, names, sizes and ETags of all objects; behind a URL that gives no list
        of them, only the metadata of the arrays.
        """
        if is_remote(self.uri) and not is_web(self.uri):
            return objects_identity(self.uri, list_below(self.uri))
        root = Path(self.uri)
        if not root.is_dir():
            texts = [json.dumps(array.metadata.to_dict(), default=str) for array in self._arrays]
            return Identity(self.uri, 0, 0, _digest([text.encode() for text in texts]))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        stats = [path.stat() for path in files]
        documents = [path.read_bytes() for path in files if path.name in DOCUMENTS]
        sizes = [
            f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}".encode()
            for path, stat in zip(files, stats, strict=True)
        ]
        newest = max(stat.st_mtime_ns for stat in stats)
        nbytes = sum(stat.st_size for stat in stats)
        return Identity(self.uri, nbytes, newest, _digest(documents + sizes))


def _store(uri: str) -> str | Store:
    """What zarr takes to open an image with; an object store only reads."""
    return ObjectStore(store_at(uri), read_only=True) if is_remote(uri) else uri


def is_zarr(folder: Path) -> bool:
    """Whether a folder is the root of a zarr array or group."""
    return any((folder / name).is_file() for name in DOCUMENTS[:3])


def _child(group: zarr.Group, path: str, kind: type[Any], uri: str) -> Any:
    if not isinstance(node := group.get(path), kind):
        raise UnsupportedImage(f"{uri}: '{path}' is expected to be a zarr {kind.__name__.lower()}")
    return node


def _image_document(group: zarr.Group, uri: str) -> Mapping[str, Any]:
    document = _ome_attributes(group)
    if not document.get("multiscales"):
        raise UnsupportedImage(
            f"{uri}: an OME-Zarr image (with 'multiscales') expected, "
            f"found a group of {sorted(group.keys())[:8]}; name the image inside it"
        )
    return document


def _ome_attributes(group: zarr.Group) -> Mapping[str, Any]:
    """The OME metadata: under 'ome' in 0.5, the attributes themselves before."""
    attributes: dict[str, Any] = dict(group.attrs)
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def _ome_axes(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    axes = image.get("axes", list("tczyx"))
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _array_axes(array: Array, uri: str) -> str:
    """One letter per axis: the array's own names, else ``yx`` or ``yxc``."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(named, Sequence) and all(named):
        letters = {"channel": "c", "channels": "c", "band": "c", "bands": "c", "time": "t"}
        return "".join(letters.get(str(n).lower(), str(n).lower()[:1]) for n in named)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] < array.shape[2]):
        raise UnsupportedImage(
            f"{uri}: axes (y, x) or (y, x, channel) expected, found shape {array.shape}; "
            "name the array's dimensions"
        )
    return "yxc"[: array.ndim]


def _length(array: Array, axes: str, axis: str) -> int:
    return int(array.shape[axes.index(axis)]) if axis in axes else 1


def _levels(
    arrays: Sequence[Array], axes: str, shapes: Sequence[tuple[int, int]]
) -> tuple[tuple[Level, ...], list[int]]:
    """The arrays that are coarser than all before them, as levels."""
    levels: list[Level] = []
    kept: list[int] = []
    for index, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        tile = (array.chunks[axes.index("y")], array.chunks[axes.index("x")])
        level = level_of(shapes[0], shape, tile, _codec(array))
        if not levels or level.downsample > levels[-1].downsample:
            levels.append(level)
            kept.append(index)
    return tuple(levels), kept


def _codec(array: Array) -> str | None:
    names = [type(codec).__name__ for codec in array.compressors]
    return "+".join(names) or None


def _pixel_size(image: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> PixelSize | None:
    scale = np.ones(len(axes))
    for holder in (image, image["datasets"][0]):
        for transformation in holder.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                scale = scale * np.asarray(transformation["scale"], float)
    return json_pixel_size(axes, [float(value) for value in scale])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _digest(parts: Sequence[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
