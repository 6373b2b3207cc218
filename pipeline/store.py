"""The result of one image on storage: an OME-Zarr 0.5 group that is written shard by shard.

A shard is encoded whole and put into place at once, so that one torn by a power cut can't stand in
the way of its own rewrite, a late second writer can only replace a file by the same bytes, and a
receipt's checksum is of what is stored. Everything but the last write of ``finish`` leaves the root
without OME metadata: a half-finished result can't be mistaken for a finished one.

Knows shapes and bytes; not what the values mean nor who computes them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from saccade.pipeline import store_metadata as metadata
from saccade.pipeline.errors import StoreError
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import SCHEMA_VERSION, ImagePlan
from saccade.pipeline.store_geo import labels_place, scores_place
from saccade.pipeline.store_layout import LABELS, ArraySpec, arrays_of
from saccade.pipeline.store_object_shelf import Where, shelf_for
from saccade.pipeline.store_shards import ChunkMemo
from saccade.pipeline.store_shelf import Shelf
from saccade.pipeline.store_writing import RegionWriter, Written

ROOT = "zarr.json"


class ImageStore:
    """The arrays of one image's result. Safe to share between threads.

    Several processes may write to one result as long as no two own the same shard.
    """

    def __init__(self, shelf: Shelf, plan: ImagePlan, name: str) -> None:
        self.plan = plan
        self._shelf = shelf
        self._name = name
        self._specs = arrays_of(plan)
        self._opened: dict[str, Any] = {}

    @classmethod
    def create(
        cls, path: Where, plan: ImagePlan, provenance: Mapping[str, Any], *, fsync: bool = False
    ) -> ImageStore:
        """Write all groups and arrays, without values; doing so again gives the same bytes.

        Args:
            path: the result's folder, or a URI in an object store.
            plan: of the image.
            provenance: what the result is made of, plain JSON; kept in the root's attributes.
            fsync: whether files are forced to the disk.

        Raises:
            StoreError: a complete result of another plan lies there, or something else does.
        """
        shelf = shelf_for(path, fsync=fsync)
        _make_room(shelf, str(path), plan)
        for key, data in metadata.all_metadata(plan).items():
            shelf.put(key, data)
        shelf.put(ROOT, metadata.as_json(metadata.root(plan, provenance)))
        return cls(shelf, plan, str(path))

    @classmethod
    def open(cls, path: Where, *, fsync: bool = False) -> ImageStore:
        """A result that was created; complete or not.

        Raises:
            StoreError: no result of this package lies there.
        """
        shelf, name = shelf_for(path, fsync=fsync), str(path)
        return cls(shelf, _plan_of(_facts(shelf, name), name), name)

    # ------------------------------------------------------------------------------------ arrays

    @property
    def array_paths(self) -> tuple[str, ...]:
        """The arrays that the result has; those of dropped passes are missing."""
        return tuple(path for path in self._specs if self.has(path))

    def has(self, array: str) -> bool:
        """Whether the result has this array: it is planned, and was not dropped."""
        return array in self._specs and self._shelf.get(f"{array}/{ROOT}") is not None

    def spec(self, array: str) -> ArraySpec:
        """Shape, type, chunks and shards of an array.

        Raises:
            StoreError: the plan has no such array.
        """
        if array not in self._specs:
            raise StoreError(f"{self._name}: no array {array!r}; it has {sorted(self._specs)}")
        return self._specs[array]

    def attributes(self, array: str) -> dict[str, Any]:
        """What is said of an array, under this package's own key; nothing of one that is gone."""
        data = self._shelf.get(f"{array}/{ROOT}")
        said: dict[str, Any] = json.loads(data)["attributes"].get("saccade", {}) if data else {}
        return said

    def write(
        self, array: str, box: Box, data: np.ndarray, memo: ChunkMemo | None = None
    ) -> tuple[Written, ...]:
        """Store a box of whole shards; each is replaced at once. Nothing stays of a dropped array.

        Args:
            array: path of the array.
            box: whole shards, cut off at the array's edge.
            data: ``(C, h, w)`` or ``(h, w)`` of the array's dtype.
            memo: shared by writes of arrays that may have chunks in common.

        Raises:
            StoreError: the box cuts a shard, or the data does not fit it; or the disk fails.
            StorageFull: no space is left. Shards not yet written keep their old bytes.
        """
        spec = self.spec(array)
        spec.check_data(box, data)
        writer = self.writing(array, box)
        try:
            writer.add(data, memo)
            return tuple(writer.put())
        finally:
            writer.abandon()

    def writing(self, array: str, box: Box) -> RegionWriter:
        """What stores a box of whole shards that comes from top to bottom; see ``write``."""
        spec = self.spec(array)
        return RegionWriter(self._shelf, spec, box, lambda: not self.has(array))

    def read(self, array: str, box: Box) -> np.ndarray:
        """A box of an array, of any alignment; fill where nothing was written.

        Returns:
            ``(C, h, w)`` or ``(h, w)`` of the array's dtype.

        Raises:
            StoreError: no such array, a box outside of it, or a damaged file.
        """
        return self._read(array, box, ())

    def read_channel(self, array: str, channel: int, box: Box) -> np.ndarray:
        """One channel of a box, ``(h, w)``, without reading the others; else as ``read``."""
        return self._read(array, box, (channel,))

    def _read(self, array: str, box: Box, channel: tuple[int, ...]) -> np.ndarray:
        spec = self.spec(array)
        if not spec.area.contains(box):
            raise StoreError(f"{self._name}/{array}: {box} is not inside {spec.area}")
        index = (*channel, *box.slices) if channel else (..., *box.slices)
        try:
            values = self._shelf.asked(lambda: self._open_array(array)[index])
        except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
            raise StoreError(
                f"{self._name}/{array}: {box} can't be read ({error}); a file of it is missing or "
                "damaged: resume the run with --force to make this image again"
            ) from error
        return np.asarray(values, spec.dtype)

    def _open_array(self, array: str) -> Any:
        opened = self._opened.get(array)
        if opened is None:
            if not self.has(array):
                raise StoreError(
                    f"{self._name}: {array} was dropped when the image was complete; the recipe's "
                    "output.keep says which passes stay"
                )
            opened = zarr.open_array(self._shelf.as_zarr(), path=array, mode="r")
            self._opened[array] = opened
        return opened

    def drop(self, path: str) -> None:
        """Remove an array, or a group with all its arrays; gone at once, and gladly twice."""
        self._shelf.delete(path)
        for array in [one for one in list(self._opened) if f"{one}/".startswith(f"{path}/")]:
            self._opened.pop(array, None)

    # --------------------------------------------------------------------------------- completion

    @property
    def facts(self) -> dict[str, Any]:
        """The root's attributes: state, plan, provenance."""
        return _facts(self._shelf, self._name)

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was reached."""
        return bool(self.facts["state"] == "complete")

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the metadata of OME and GeoZarr, the root's last: one replace makes it complete.

        Args:
            provenance: added to what ``create`` was given; what differs between runs of the same
                recipe (seconds, dates) stands under the one key 'timing'.
        """
        self._shelf.sweep_partials()
        label_image = metadata.group(
            {"ome": metadata.ome_label_image(self.plan), **labels_place(self.plan)}
        )
        self._shelf.put(f"{LABELS}/{ROOT}", metadata.as_json(label_image))
        labels = metadata.group({"ome": metadata.ome_labels()})
        self._shelf.put(f"{LABELS.partition('/')[0]}/{ROOT}", metadata.as_json(labels))
        facts = {**self.facts, "state": "complete", **provenance}
        ome, place = metadata.ome_image(self.plan), scores_place(self.plan)
        root = metadata.group({"ome": ome, **place, "saccade": facts})
        self._shelf.put(ROOT, metadata.as_json(root))


def sweep_partials(path: Where) -> int:
    """Remove what killed writers left in a result; returns how many. Only while nobody writes."""
    return shelf_for(path).sweep_partials()


def remove_result(path: Where) -> None:
    """Remove a result with all it holds; gladly also one that is not there."""
    if isinstance(path, str):
        shelf_for(path).delete("")
    elif path.exists():
        shutil.rmtree(path)


def _facts(shelf: Shelf, path: str) -> dict[str, Any]:
    """The root's attributes under this package's own key."""
    data = shelf.get(ROOT)
    if data is None:
        raise StoreError(
            f"{path}: no result here (no {ROOT}); give the folder of an image, NAME.ome.zarr"
        )
    try:
        facts: dict[str, Any] = json.loads(data)["attributes"]["saccade"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: this Zarr group was not made by saccade; choose another folder"
        ) from error
    return facts


def _plan_of(facts: Mapping[str, Any], path: str) -> ImagePlan:
    if facts["schema"] != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema {SCHEMA_VERSION} expected, found {facts['schema']}; "
            "open it with the version of saccade that made it"
        )
    return ImagePlan.from_json(json.dumps(facts["plan"]))


def _make_room(shelf: Shelf, path: str, plan: ImagePlan) -> None:
    """Clear away an unfinished result of another plan; refuse to touch anything else."""
    if shelf.get(ROOT) is None:
        return
    facts = _facts(shelf, path)
    if facts["plan"] == json.loads(plan.to_json()):
        return
    if facts["state"] == "complete":
        raise StoreError(
            f"{path}: holds a complete result of another plan; move it away, use another run "
            "folder, or start the image over with --force"
        )
    # The root last: what is only half cleared away still says that it is another plan's.
    for child in sorted({key.partition("/")[0] for key in shelf.list_keys()} - {ROOT}):
        shelf.delete(child)
    shelf.delete(ROOT)
