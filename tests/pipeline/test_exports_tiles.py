"""The table of tiles against the arrays and plans that it is made from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.jobs.exports import tables
from saccade.pipeline.exports.tiles_table import Row, columns_of, tile_rows
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.selection import Selection
from saccade.pipeline.store import ImageStore

Make = Callable[[ImagePlan], ImageStore]
STATES = (0, 1, 1, 2, 255)


@pytest.fixture
def result(three_passes: ImagePlan, results: Any, tmp_path: Path) -> Result:
    """A complete result in a run's folder; the second pass was told which tiles to visit."""
    store = ImageStore.create(tmp_path / "results" / "slide.ome.zarr", three_passes, {})
    results.write_all(store, results.random_answers(three_passes, 3, STATES))
    plans = tmp_path / "plans" / "slide"
    plans.mkdir(parents=True)
    selection = Selection((2, 5), np.array([0, 1], np.uint8), ("top 13 %", "forced"), {}, 31)
    (plans / "1-look.json").write_text(json.dumps({"selection": selection.to_dict()}))
    return open_result(tmp_path / "results" / "slide.ome.zarr")


def rows_of(result: Result) -> dict[str, list[Row]]:
    """By pass."""
    table: dict[str, list[Row]] = {}
    for part in tile_rows(result, ImageStore.open(result._path)):
        for row in part:
            table.setdefault(row["pass"], []).append(row)
    return table


def test_every_tile_of_every_pass_has_one_row_in_order(result: Result) -> None:
    table = rows_of(result)
    assert list(table) == [layout.name for layout in result.plan.passes]
    for layout in result.plan.passes:
        assert [row["tile"] for row in table[layout.name]] == list(range(len(layout.tiles)))
        cells = [layout.tiles.cell(index) for index in range(len(layout.tiles))]
        assert [(row["row"], row["column"]) for row in table[layout.name]] == cells


def test_tiles_of_a_pass_cover_the_image_once_in_pixels_of_level_0(result: Result) -> None:
    height, width = result.plan.level_shapes[0]
    for rows in rows_of(result).values():
        assert sum(row["width"] * row["height"] for row in rows) == height * width
        assert max(row["x"] + row["width"] for row in rows) == width
        assert {row["x_physical"] for row in rows} == {row["x"] * 0.25 for row in rows}


def test_scores_of_a_tile_are_those_of_its_pixels(result: Result) -> None:
    table = rows_of(result)
    for name, found in result.passes.items():
        scores = np.asarray(found.scores).astype(np.float64) / 255
        for row in table[name]:
            box = found.layout.scores_of(found.layout.tiles.box(row["tile"]))
            tile = scores[(slice(None), *box.slices)]
            if row["status"] in ("answered", "degraded"):
                means = [row[f"mean_{one}"] for one in found.layout.classes]
                most = [row[f"max_{one}"] for one in found.layout.classes]
                assert means == pytest.approx(tile.mean(axis=(1, 2)))
                assert most == pytest.approx(tile.max(axis=(1, 2)))
                assert 0 <= row["confidence"] <= 1
                assert row["saliency"] == pytest.approx(tile.max(axis=0).mean())
            else:
                assert row.get("mean_a") is None


def test_status_is_told_in_words(result: Result) -> None:
    words = np.array([""] * 256, object)
    words[[0, 1, 2, 255]] = "not visited", "answered", "degraded", "failed"
    for name, found in result.passes.items():
        told = [row["status"] for row in rows_of(result)[name]]
        assert told == words[found.status.ravel()].tolist()


def test_chosen_tiles_have_their_reason(result: Result) -> None:
    table = rows_of(result)
    look = {row["tile"]: row["reason"] for row in table["look"] if row["selected"]}
    assert look == {2: "top 13 %", 5: "forced"}
    assert {row["reason"] for row in table["glance"]} == {"every tile"}


def test_a_pass_that_has_not_run_is_told_as_not_visited(
    three_passes: ImagePlan, results: Any, make_store: Make, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    results.write_pass(store, 0, results.random_answers(three_passes, 3)[0])
    table = rows_of(open_result(tmp_path / "slide.ome.zarr"))
    assert {row["status"] for row in table["look"]} == {"not visited"}
    assert {row["selected"] for row in table["look"]} == {None}
    assert {row["state"] for row in table["glance"]} == {"unfinished"}


def test_a_recipe_of_one_pass_is_told_from_the_result(
    results: Any, make_store: Make, tmp_path: Path
) -> None:
    only = results.layout("only", 0, (113, 71), 1, tile=16, chunk=16, shard=32)
    plan = results.plan_of((only,), pixel_size=None)
    ((scores, status),) = results.random_answers(plan, 7)
    results.write_all(make_store(plan), [(scores, status)])
    rows = rows_of(open_result(tmp_path / "slide.ome.zarr"))["only"]
    assert rows[6]["mean_a"] == pytest.approx(scores[0, 16:32, 16:32].mean() / 255)
    assert "unit" not in rows[0]


def test_classes_can_be_chosen_and_features_have_a_column_where_there_are_any(
    three_passes: ImagePlan,
) -> None:
    names = [column.name for column in columns_of(three_passes, ("b",), 0)]
    assert "mean_b" in names
    assert "mean_a" not in names
    assert columns_of(three_passes, (), 7)[-1].kind is list
    assert "features" not in names


COLUMNS = ("image", "x", "selected", "mean_a", "features")


def table_of(count: int) -> list[list[Row]]:
    row: Row = {"image": 'a "b", c', "x": 2.5, "selected": True, "mean_a": 1 / 3}
    return [[row, {"image": "z", "x": 7.0, "features": [0.5] * count} if count else {"image": "z"}]]


def test_csv_holds_what_the_table_does_and_nothing_where_it_is_not_known(
    three_passes: ImagePlan, tmp_path: Path
) -> None:
    columns = [c for c in columns_of(three_passes, (), 2) if c.name in COLUMNS]
    tables.write_csv(tmp_path / "t.csv", columns, 2, table_of(2))
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "x", "selected", "mean_a", "f0", "f1"]
    assert rows[1] == ['a "b", c', "2.5", "true", "0.3333333", "", ""]
    assert rows[2] == ["z", "7", "", "", "0.5", "0.5"]


def test_parquet_holds_types_lists_and_facts(three_passes: ImagePlan, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = [c for c in columns_of(three_passes, (), 2) if c.name in COLUMNS]
    path = tmp_path / "t.parquet"
    tables.write_parquet(path, columns, table_of(2) * 9000, {"state": "unfinished"})
    table = parquet.read_table(path)
    assert table.schema.metadata[b"state"] == b"unfinished"
    assert table.slice(0, 2).to_pylist() == [
        {**dict.fromkeys(COLUMNS), **row} for row in table_of(2)[0]
    ]
    assert parquet.ParquetFile(path).num_row_groups == 2


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(tables.UsageError, match=r"pip install 'saccade\[parquet\]'"):
        tables.check_parquet()
