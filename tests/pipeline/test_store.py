from __future__ import annotations

import errno
import json
import math
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.pipeline.errors import StorageFull, StoreError
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.store import ImageStore, sweep_partials
from saccade.pipeline.store_layout import ArraySpec, arrays_of
from saccade.pipeline.store_metadata import array as array_json
from saccade.pipeline.store_metadata import as_json
from saccade.pipeline.store_shards import encode_shard

Make = Callable[[ImagePlan], ImageStore]


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def random_like(spec: ArraySpec, box: Box, seed: int, share: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (*spec.shape[:-2], *box.shape)
    values = rng.integers(0, 200, shape).astype(spec.dtype)
    values[rng.random(shape) > share] = spec.fill
    return values


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 41), st.integers(1, 41)),
    chunk=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    times=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
    flat=st.booleans(),
    share=st.sampled_from([0.0, 0.01, 1.0]),
    seed=st.integers(0, 99),
)
def test_zarr_reads_what_was_encoded(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    chunk: tuple[int, int],
    times: int,
    dtype: str,
    flat: bool,
    share: float,
    seed: int,
) -> None:
    fill = 0.0 if dtype == "uint8" else math.nan
    shard = (chunk[0] * times, chunk[1] * times)
    whole = shape[1:] if flat else shape
    spec = ArraySpec("array", whole, np.dtype(dtype), fill, chunk, shard)
    data = random_like(spec, spec.area, seed, share)
    root = tmp_path_factory.mktemp("array")
    (root / "zarr.json").write_bytes(as_json(array_json(spec)))
    for key, place in spec.shards(spec.area):
        encoded = encode_shard(spec, data[(..., *place.slices)])
        if encoded is not None:
            path = root / key.removeprefix("array/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
    np.testing.assert_array_equal(zarr.open_array(root, mode="r")[...], data)


def test_our_array_metadata_means_to_zarr_what_the_layout_says(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    make_store(three_passes)
    group = zarr.open_group(tmp_path / "slide.ome.zarr", mode="r")
    for path, spec in arrays_of(three_passes).items():
        array = group[path]
        assert isinstance(array, zarr.Array)
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype)
        assert array.chunks[-2:] == spec.chunk
        assert (array.shards or array.chunks)[-2:] == spec.shard
        np.testing.assert_array_equal(np.asarray(array.fill_value, float), spec.fill)


def test_every_array_gives_back_what_was_written_and_fill_elsewhere(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    for seed, (path, spec) in enumerate(arrays_of(three_passes).items()):
        assert (store.read(path, spec.area) == spec.fill).all()
        _, first = next(spec.shards(spec.area))
        data = random_like(spec, first, seed)
        store.write(path, first, data)
        expected = np.full(spec.shape, spec.fill, spec.dtype)
        expected[(..., *first.slices)] = data
        np.testing.assert_array_equal(store.read(path, spec.area), expected)


def test_any_box_is_read_as_the_same_part_of_the_whole(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    data = random_like(spec, spec.area, 3)
    store.write("0", spec.area, data)
    for box in (Box(0, 0, 1, 1), Box(5, 7, 53, 97), Box(31, 31, 33, 33), spec.area):
        np.testing.assert_array_equal(store.read("0", box), data[(slice(None), *box.slices)])


def test_the_same_data_gives_the_same_bytes_in_any_order_of_writes(
    tmp_path: Path, three_passes: ImagePlan
) -> None:
    found = []
    for name, order in (("one", 1), ("two", -1)):
        store = ImageStore.create(tmp_path / name, three_passes, {"recipe": {"b": 1, "a": 2}})
        spec = store.spec("0")
        data = random_like(spec, spec.area, 5)
        for _, place in list(spec.shards(spec.area))[::order]:
            store.write("0", place, data[(slice(None), *place.slices)])
        store.finish({"passes": {}})
        found.append(files(tmp_path / name))
    assert found[0] == found[1]


def test_creating_twice_gives_the_same_bytes_and_keeps_what_was_written(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    store.write("0", spec.area, random_like(spec, spec.area, 5))
    before = files(tmp_path)
    make_store(three_passes)
    assert files(tmp_path) == before


def test_creating_for_another_plan_clears_an_unfinished_result_and_refuses_a_complete_one(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    store.write("0", spec.area, random_like(spec, spec.area, 5))
    other = make_store(replace(three_passes, fuse="mean"))
    assert not other.read("0", spec.area).any()
    other.finish({})
    with pytest.raises(StoreError, match="complete result of another plan"):
        make_store(three_passes)


def test_a_folder_that_is_not_ours_is_left_alone(three_passes: ImagePlan, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "mine.zarr")
    before = files(tmp_path)
    with pytest.raises(StoreError, match="not made by saccade"):
        ImageStore.create(tmp_path / "mine.zarr", three_passes, {})
    assert files(tmp_path) == before


def test_a_shard_of_fill_has_no_file_and_its_old_file_goes(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    key, place = next(spec.shards(spec.area))
    (written,) = store.write("0", place, random_like(spec, place, 1))
    path = tmp_path / "slide.ome.zarr" / key
    assert written.key == key
    assert written.nbytes == path.stat().st_size > 0
    (emptied,) = store.write("0", place, np.zeros((2, *place.shape), np.uint8))
    assert (emptied.nbytes, emptied.checksum) == (0, "")
    assert not path.exists()


@pytest.mark.parametrize(
    "box", [Box(0, 0, 31, 32), Box(1, 0, 33, 32), Box(0, 0, 32, 64 + 1), Box(0, 0, 0, 32)]
)
def test_a_box_that_cuts_a_shard_is_refused(
    make_store: Make, three_passes: ImagePlan, box: Box
) -> None:
    with pytest.raises(StoreError, match="whole shards"):
        make_store(three_passes).write("0", box, np.zeros((2, *box.shape), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((2, 32, 31), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((2, 32, 32), np.int8),
    ],
)
def test_data_of_another_shape_or_type_is_refused(
    make_store: Make, three_passes: ImagePlan, data: np.ndarray
) -> None:
    with pytest.raises(StoreError, match=r"uint8 of shape \(2, 32, 32\) expected"):
        make_store(three_passes).write("0", Box(0, 0, 32, 32), data)


def test_an_unknown_array_and_a_box_outside_are_refused_by_name(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    with pytest.raises(StoreError, match="no array 'nought'"):
        store.read("nought", Box(0, 0, 1, 1))
    with pytest.raises(StoreError, match="is not inside"):
        store.read("0", Box(0, 0, 1, 10_000))


def test_a_torn_shard_is_named_when_read_and_does_not_stop_its_rewrite(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    data = random_like(spec, spec.area, 7)
    store.write("0", spec.area, data)
    for key, place in spec.shards(spec.area):
        path = tmp_path / "slide.ome.zarr" / key
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StoreError, match="damaged"):
            store.read("0", place)
        store.write("0", place, data[(slice(None), *place.slices)])
        assert path.read_bytes() == whole


def test_a_flipped_bit_is_never_read_as_an_answer(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    key, place = next(spec.shards(spec.area))
    store.write("0", place, random_like(spec, place, 11))
    path = tmp_path / "slide.ome.zarr" / key
    whole = path.read_bytes()
    for position in range(40, len(whole), len(whole) // 13):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(StoreError):
            store.read("0", place)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_the_old_shard_stays_whole(
    make_store: Make,
    three_passes: ImagePlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    _, place = next(spec.shards(spec.area))
    store.write("0", place, random_like(spec, place, 1))
    before = files(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageFull, match="no space is left"):
        store.write("0", place, random_like(spec, place, 2))
    monkeypatch.undo()
    assert files(tmp_path) == before


def test_a_disk_that_fails_otherwise_is_a_store_error_but_not_a_full_one(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    _, place = next(spec.shards(spec.area))
    (tmp_path / "slide.ome.zarr" / "0" / "c").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match="can't be written") as caught:
        store.write("0", place, random_like(spec, place, 1))
    assert not isinstance(caught.value, StorageFull)


def test_what_killed_writers_left_is_swept_and_nothing_else(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    store.write("0", spec.area, random_like(spec, spec.area, 1))
    root = tmp_path / "slide.ome.zarr"
    before = files(tmp_path)
    (root / "0" / "c" / "0" / "0" / "1.dead.partial").write_bytes(b"half")
    (root / "passes" / "look.dead.partial" / "scores").mkdir(parents=True)
    (root / "passes" / "look.dead.partial" / "scores" / "zarr.json").write_bytes(b"{")
    assert sweep_partials(root) == 2
    assert files(tmp_path) == before
    assert sweep_partials(tmp_path / "not there yet") == 0


def test_many_threads_write_and_read_one_store(make_store: Make, three_passes: ImagePlan) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    data = random_like(spec, spec.area, 13)
    places = [place for _, place in spec.shards(spec.area)]
    failures: list[BaseException] = []

    def work(mine: list[Box]) -> None:
        try:
            for place in mine:
                part = data[(slice(None), *place.slices)]
                for _ in range(3):
                    store.write("0", place, part)
                    np.testing.assert_array_equal(store.read("0", place), part)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(places[n::5],)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    np.testing.assert_array_equal(store.read("0", spec.area), data)


def test_two_writers_of_one_shard_leave_one_whole_answer(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    _, place = next(spec.shards(spec.area))
    answers = [random_like(spec, place, seed) for seed in (1, 2)]
    threads = [
        threading.Thread(target=lambda a=answer: [store.write("0", place, a) for _ in range(20)])
        for answer in answers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read("0", place)
    assert any((found == answer).all() for answer in answers)


def test_dropping_a_pass_removes_its_arrays_and_can_be_repeated(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    gone = {path for path in store.array_paths if path.startswith("passes/look/")}
    assert gone
    before = set(store.array_paths)
    for _ in range(2):
        store.drop("passes/look")
        assert set(store.array_paths) == before - gone
    with pytest.raises(StoreError, match="dropped"):
        store.read("passes/look/status", Box(0, 0, 1, 1))


def test_a_write_that_comes_after_its_pass_was_dropped_leaves_no_file(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("passes/look/scores")
    store.drop("passes/look")
    store.write(spec.path, spec.area, random_like(spec, spec.area, 1))
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and "look" in f.parts]


def test_a_result_opens_where_it_was_moved_to_with_the_same_plan(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    data = random_like(spec, spec.area, 1)
    store.write("0", spec.area, data)
    shutil.move(tmp_path / "slide.ome.zarr", tmp_path / "elsewhere.ome.zarr")
    moved = ImageStore.open(tmp_path / "elsewhere.ome.zarr")
    assert moved.plan == three_passes
    np.testing.assert_array_equal(moved.read("0", spec.area), data)


def test_opening_says_what_is_wrong_with_a_place(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="no result here"):
        ImageStore.open(tmp_path)
    make_store(three_passes)
    root = tmp_path / "slide.ome.zarr" / "zarr.json"
    tree = json.loads(root.read_text())
    tree["attributes"]["saccade"]["schema"] = 97
    root.write_text(json.dumps(tree))
    with pytest.raises(StoreError, match="schema 1 expected, found 97"):
        ImageStore.open(tmp_path / "slide.ome.zarr")


def test_a_shard_is_forced_to_disk_only_where_asked(
    three_passes: ImagePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for fsync in (False, True):
        store = ImageStore.create(tmp_path / str(fsync), three_passes, {}, fsync=fsync)
        spec = store.spec("0")
        _, place = next(spec.shards(spec.area))
        synced.clear()
        store.write("0", place, random_like(spec, place, 1))
        assert len(synced) == (2 if fsync else 0)
