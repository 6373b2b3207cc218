"""Every shelf answers alike, and a result has the same bytes on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from saccade.pipeline import open_result
from saccade.pipeline.errors import StorageGone, StoreError
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.store import ImageStore, remove_result
from saccade.pipeline.store_object_shelf import ObjectShelf, Where, below, shelf_for
from saccade.pipeline.store_shelf import LocalShelf, Shelf

if TYPE_CHECKING:
    from object_server import Bucket


@pytest.fixture(params=["folder", "object store"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "folder":
        return LocalShelf(tmp_path / "shelf")
    return ObjectShelf(f"{request.getfixturevalue('bucket').url}/deep/shelf")


def test_what_was_put_is_there_until_it_is_removed(shelf: Shelf) -> None:
    assert shelf.get("a/b") is None
    shelf.put("a/b", b"one")
    shelf.put("a/b", b"two")
    shelf.put("a/bc", b"three")
    shelf.put("a/d/e", b"")
    assert shelf.get("a/b") == b"two"
    assert shelf.get("a/d/e") == b""
    assert list(shelf.list_keys()) == ["a/b", "a/bc", "a/d/e"]
    assert list(shelf.list_keys("a/d")) == ["a/d/e"]
    shelf.delete("a/b")
    shelf.delete("a/b")
    assert list(shelf.list_keys()) == ["a/bc", "a/d/e"], "a name is no prefix of another"
    shelf.delete("a")
    assert list(shelf.list_keys()) == []
    assert shelf.sweep_partials() == 0


def test_a_place_is_a_folder_or_a_uri(tmp_path: Path) -> None:
    assert shelf_for(tmp_path) == LocalShelf(tmp_path)
    assert shelf_for("s3://bucket/a/") == ObjectShelf("s3://bucket/a")
    assert below("s3://bucket/a", "x.ome.zarr") == "s3://bucket/a/x.ome.zarr"
    assert below(tmp_path, "x.ome.zarr") == tmp_path / "x.ome.zarr"


def objects(where: Where) -> dict[str, bytes | None]:
    shelf = shelf_for(where)
    return {key: shelf.get(key) for key in shelf.list_keys()}


def test_a_result_has_the_same_bytes_in_an_object_store(
    three_passes: ImagePlan, results: Any, bucket: Bucket, tmp_path: Path
) -> None:
    answers: Sequence[tuple[np.ndarray, np.ndarray]] = results.random_answers(three_passes, 3)
    places: tuple[Where, Where] = tmp_path / "a.ome.zarr", f"{bucket.url}/study/a.ome.zarr"
    for place in places:
        results.write_all(ImageStore.create(place, three_passes, {"recipe": {}}), answers)
    here, there = map(objects, places)
    assert here == there
    local, remote = map(open_result, places)
    np.testing.assert_array_equal(local.fused, remote.fused)
    np.testing.assert_array_equal(local.labels, remote.labels)
    assert local.summary() == remote.summary()
    ImageStore.open(places[1]).drop("passes/glance")
    assert not [key for key in objects(places[1]) if key.startswith("passes/glance")]
    remove_result(places[1])
    assert objects(places[1]) == {}


def test_shards_that_are_not_there_are_read_as_fill(
    three_passes: ImagePlan, make_store: Callable[[ImagePlan], ImageStore], bucket: Bucket
) -> None:
    empty = ImageStore.create(f"{bucket.url}/a.ome.zarr", three_passes, {})
    area = empty.spec("0").area
    np.testing.assert_array_equal(empty.read("0", area), make_store(three_passes).read("0", area))


def test_a_store_that_is_silent_is_no_damaged_result(
    three_passes: ImagePlan, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "1")
    store = ImageStore.create(f"{bucket.url}/a.ome.zarr", three_passes, {})
    area = store.spec("0").area
    store.read("0", area)
    bucket.proxy.dead = True
    with pytest.raises(StorageGone, match="run the same command"):
        store.read("0", area)
    with pytest.raises(StorageGone, match="run the same command"):
        store.finish({})


def test_what_is_no_result_is_named(bucket: Bucket) -> None:
    with pytest.raises(StoreError, match="no result here"):
        open_result(f"{bucket.url}/a.ome.zarr")
    with pytest.raises(StoreError, match="found none there"):
        open_result(f"{bucket.url}/nothing")
