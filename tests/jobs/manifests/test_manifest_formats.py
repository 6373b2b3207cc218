"""Every format of manifest says the same; what can't be read costs a row, never the memory."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.manifests.files import rows_of
from saccade.jobs.manifests.json_stream import JsonDamage, items_of
from saccade.jobs.manifests.manifest import ListOptions, Problem, find_images, read_manifest
from saccade.pipeline.errors import ManifestError
from saccade.workers.tasks import ImageEntry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=8,
)


def items(*items: dict[str, Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": items, "links": []}).encode()


def item(name: str, **assets: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "id": name, "geometry": None, "properties": {}, "assets": assets}


def asset(href: str, *roles: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": "image/tiff; application=geotiff", "roles": list(roles), **more}


def only_problem(path: Path, **options: Any) -> str:
    (found,) = read_manifest(path, ListOptions(**options))
    assert isinstance(found, Problem), found
    return str(found)


def only_entry(path: Path, **options: Any) -> ImageEntry:
    (found,) = read_manifest(path, ListOptions(**options))
    assert isinstance(found, ImageEntry), found
    return found


# ----------------------------------------------------------------------------------------- columns


def test_what_is_different_for_an_image_has_a_column(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    row = {"image": "x.tif", "mask": "masks/x.png", "passes": "glance; refine", "classes": "a,b"}
    path.write_text(json.dumps(row | {"passes.refine.tile": 64, "width": 7, "height": 11}))
    found = only_entry(path)
    assert found.pixels == 77
    assert found.overrides == {
        "mask": str(tmp_path / "masks" / "x.png"),
        "only": ["glance", "refine"],
        "output": {"classes": ["a", "b"]},
        "passes": {"refine": {"tile": 64}},
    }


def test_changes_by_pass_and_a_list_of_passes_are_told_apart_by_what_they_are(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"image": "x.tif", "passes": {"v1.5": {"tile": 64}}}))
    assert only_entry(path).overrides == {"passes": {"v1.5": {"tile": 64}}}
    path.write_text(json.dumps({"image": "x.tif", "passes": ["v1.5"]}))
    assert only_entry(path).overrides == {"only": ["v1.5"]}


@pytest.mark.parametrize("side", [0, -3, 2.5, 1 << 31, 1e300, 10**400, "NaN", "many", [3], None])
def test_a_size_that_no_image_has_is_refused_or_read_past_and_never_made(
    side: object, tmp_path: Path
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"image": "x.tif", "width": side, "height": 5}))
    tracemalloc.start()
    try:
        (found,) = read_manifest(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(found, Problem) or (side is None and found.pixels is None)


def test_a_header_with_a_wrong_column_is_one_problem_not_one_per_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image,mmp\n" + "x.tif,3\n" * 50)
    assert "did you mean 'mpp'" in only_problem(path)
    path.write_text("image,mpp,mpp\nx.tif,3,4\n")
    assert "twice" in only_problem(path)


# ------------------------------------------------------------------------------------ damaged rows


def test_an_unreadable_row_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [b"image", b"a.tif", b"\xff.tif", b"b.tif", b"c.tif,1", b'"' + b"x" * 200_000 + b'"']
    path.write_bytes(b"\n".join([*rows, b"d.tif", b""]))
    found = list(read_manifest(path))
    assert [one.name for one in found if isinstance(one, ImageEntry)] == ["a", "b", "d"]
    assert [str(one).split(":")[1] for one in found if isinstance(one, Problem)] == ["3", "5", "6"]


def test_a_line_without_an_end_is_refused_before_it_is_held(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    for suffix in (".csv", ".jsonl", ".json"):
        with pytest.raises(ManifestError):
            list(rows_of(io.BufferedReader(Endless()), suffix))


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_problems(data: bytes) -> None:
    for suffix in (".csv", ".jsonl", ".json"):
        with contextlib.suppress(ManifestError):
            list(rows_of(io.BytesIO(data), suffix))


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_a_damaged_manifest_is_explained(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"PAR1" + b"\0" * 30 + b"PAR1")
    assert "expected" in only_problem(path) or "not Parquet" in only_problem(path)


# -------------------------------------------------------------------------------- items of an array


@given(st.lists(JSON, max_size=5), st.dictionaries(st.text(), JSON, max_size=3), st.integers(1, 7))
def test_items_are_cut_out_of_a_document_wherever_its_blocks_end(
    features: list[Any], around: dict[str, Any], size: int
) -> None:
    class Slow(io.BytesIO):
        def read(self, nbytes: int | None = -1) -> bytes:
            return super().read(min(size, nbytes or size))

    tree = {"before": 12} | around | {"features": features, "after": [1, {}]}
    assert list(items_of(Slow(json.dumps(tree).encode()), "features")) == features


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"a" 1}',
        '{"features": 3}',
        '{"features": [1',
        '{"features": [1,]}',
        '{"features": [1] "b": 2}',
        '{"features": ' + "[" * 100_000,
    ],
)
def test_a_document_that_is_none_is_damage(text: str) -> None:
    with pytest.raises(JsonDamage):
        list(items_of(io.BytesIO(text.encode()), "features"))


def test_a_long_collection_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_bytes(items(*(item(f"i{n}", data=asset(f"{n}.tif")) for n in range(10_000))))
    tracemalloc.start()
    try:
        assert sum(isinstance(one, ImageEntry) for one in read_manifest(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20 < path.stat().st_size
    finally:
        tracemalloc.stop()


# -------------------------------------------------------------------------------------- STAC items


def test_a_collection_and_lines_of_items_say_the_same(tmp_path: Path) -> None:
    one = item("S2A/T32 x", data=asset("../x.tif", "data", gsd=10, **{"proj:shape": [3, 5]}))
    (tmp_path / "c.json").write_bytes(items(one))
    (tmp_path / "c.geojsonl").write_text(json.dumps(one) + "\n")
    found = only_entry(tmp_path / "c.json")
    assert found == only_entry(tmp_path / "c.geojsonl")
    assert found == ImageEntry("S2A_T32_x", str(tmp_path.parent / "x.tif"), gsd=10.0, pixels=15)


@pytest.mark.parametrize(
    ("assets", "chosen"),
    [
        ({"a": asset("a.tif", "data"), "b": asset("b.tif", "visual")}, "a"),
        ({"a": asset("a.tif", "overview"), "b": asset("b.tif", "visual")}, "b"),
        ({"m": {"href": "m.json", "roles": ["data"]}, "b": asset("b.tif", "data")}, "b"),
        ({"t": asset("t.png", "thumbnail"), "b": asset("b.tif")}, "b"),
    ],
)
def test_roles_say_which_asset_is_the_image(
    assets: dict[str, Any], chosen: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_bytes(items(item("x", **assets)))
    assert Path(only_entry(tmp_path / "c.json").uri).stem == chosen


def test_an_asset_that_may_be_several_must_be_chosen(tmp_path: Path) -> None:
    bands = {name: asset(f"{name}.tif", "data") for name in ("B02", "B03")}
    (tmp_path / "c.json").write_bytes(items(item("x", **bands)))
    said = only_problem(tmp_path / "c.json")
    assert all(word in said for word in ("B02", "B03", "--asset"))
    assert Path(only_entry(tmp_path / "c.json", asset="B03").uri).stem == "B03"
    assert "B02" in only_problem(tmp_path / "c.json", asset="B09")


@pytest.mark.parametrize(
    "assets", [{}, {"a": 3}, {"a": {}}, {"a": {"href": 3}}, {"a": {"href": "a.xml"}}]
)
def test_an_item_without_an_image_is_a_problem(assets: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(items({**item("x"), "assets": assets}))
    assert "expected" in only_problem(tmp_path / "c.json") or "href" in only_problem(
        tmp_path / "c.json", asset="a"
    )


# ----------------------------------------------------------------------------------------- parquet


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "x.tif").touch()
    rows = [{"image": "x.tif", "name": f"n{i}", "mpp": i + 0.5, "fuse": "max"} for i in range(2500)]
    rows[7]["mpp"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet", row_group_size=999)
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    (tmp_path / "m.csv").write_text("\n".join(["image,name,mpp,fuse", *lines]))
    assert find_images([str(tmp_path / "m.parquet")]) == find_images([str(tmp_path / "m.csv")])


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    assert "saccade[parquet]" in only_problem(tmp_path / "m.parquet")
