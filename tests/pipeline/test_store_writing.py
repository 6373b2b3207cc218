"""A region given row by row is stored as if it had been given whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.pipeline.errors import StoreError
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.store_shelf import LocalShelf
from saccade.pipeline.store_writing import RegionWriter, Written

Make = Callable[[ImagePlan], ImageStore]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def written(folder: Path, spec: ArraySpec, data: np.ndarray, heights: list[int]) -> list[Written]:
    """What becomes of an array that comes so many rows at a time, and then the rest."""
    writer = RegionWriter(LocalShelf(folder), spec, spec.area, lambda: False)
    start = 0
    for height in [*heights, data.shape[-2]]:
        rows = data[..., start : start + height, :]
        if rows.shape[-2]:
            writer.add(rows)
        start += height
    return list(writer.put())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 41), st.integers(1, 23)),
    chunk=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    times=st.integers(1, 3),
    sharded=st.booleans(),
    heights=st.lists(st.integers(1, 17), max_size=6),
    share=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_how_many_rows_come_at_a_time_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    chunk: tuple[int, int],
    times: int,
    sharded: bool,
    heights: list[int],
    share: float,
) -> None:
    shard = (chunk[0] * times, chunk[1] * times) if sharded else chunk
    whole = shape if sharded else shape[1:]
    spec = ArraySpec("a", whole, np.dtype(np.uint8), 0, chunk, shard, sharded=sharded)
    rng = np.random.default_rng(1)
    data = rng.integers(1, 200, whole).astype(np.uint8) * (rng.random(whole) < share)
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    at_once = written(one, spec, data.astype(np.uint8), [])
    assert written(other, spec, data.astype(np.uint8), heights) == at_once
    assert files(one) == files(other)
    assert {w.key for w in at_once if w.nbytes} == set(files(one))


def test_nothing_is_in_place_before_all_of_it_is(make_store: Make, three_passes: ImagePlan) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    writer = store.writing("0", spec.area)
    writer.add(np.full(spec.shape, 7, np.uint8))
    assert not store.read("0", spec.area).any()
    list(writer.put())
    assert (store.read("0", spec.area) == 7).all()


def test_what_is_abandoned_leaves_no_file_and_the_old_bytes(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    store.write("0", spec.area, np.full(spec.shape, 3, np.uint8))
    before = files(tmp_path)
    writer = store.writing("0", spec.area)
    writer.add(np.full((*spec.shape[:-2], spec.chunk[0], spec.shape[-1]), 7, np.uint8))
    assert files(tmp_path) != before
    writer.abandon()
    writer.abandon()
    assert files(tmp_path) == before


def test_rows_that_are_missing_or_do_not_fit_are_refused(
    make_store: Make, three_passes: ImagePlan
) -> None:
    store = make_store(three_passes)
    spec = store.spec("0")
    writer = store.writing("0", spec.area)
    with pytest.raises(StoreError, match="expected"):
        writer.add(np.zeros((*spec.shape[:-1], spec.shape[-1] + 1), np.uint8))
    with pytest.raises(StoreError, match=r"rows up to .* expected; found 0"):
        list(writer.put())


def test_a_box_that_cuts_a_shard_has_no_writer(make_store: Make, three_passes: ImagePlan) -> None:
    store = make_store(three_passes)
    with pytest.raises(StoreError, match="whole shards"):
        store.writing("0", Box(1, 0, 2, 2))
