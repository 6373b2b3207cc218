"""Which images are named, who they are, and what never becomes a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.manifests.manifest import (
    NAME_PATTERN,
    ListOptions,
    entry_from_json,
    entry_to_json,
    find_images,
    list_images,
    name_of,
)
from saccade.jobs.manifests.places import resolved
from saccade.pipeline.errors import ManifestError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources.suffixes import RASTERS, SLIDES
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

RECIPE = Recipe.model_validate(
    {"passes": [{"name": "only", "resolution": {"downsample": 2}, "model": "builtin:tissue"}]}
)


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def found(*arguments: object) -> list[str]:
    return [entry.name for entry in find_images([str(argument) for argument in arguments])]


# ------------------------------------------------------------------------------------------- names


@given(st.text(min_size=1, max_size=300))
def test_a_name_from_any_file_stays_inside_the_run_folder(text: str) -> None:
    name = name_of(Path(text.replace("\0", "")))
    assert NAME_PATTERN.fullmatch(name)
    folder = RunFolder(Path("/run"))
    for path in (folder.result(name), folder.image_plan(name), folder.picture(name)):
        assert path.resolve().is_relative_to("/run")
        assert ".." not in path.parts


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "",
        "/etc/x",
        "a/b",
        "a\\b",
        "a\0b",
        "\u202egpj",
        "é",
        "-rf",
        "a\n",
        "a" * 152,
    ],
)
def test_a_name_that_could_escape_is_refused_from_manifests_and_from_python(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="name"):
        list_images([ImageEntry(name, "x.tif")])
    touch(tmp_path, "x.tif")
    if name:
        row = json.dumps({"image": "x.tif", "name": name})
        (tmp_path / "m.jsonl").write_text(row + "\n")
        with pytest.raises(ManifestError, match="letters, digits"):
            find_images([str(tmp_path / "m.jsonl")])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a slide (1).svs", "a_slide_1"),
        ("scan.ome.tiff", "scan"),
        ("S-17.3_HE.ndpi", "S-17.3_HE"),
        ("...tif", "image"),
        ("-x.png", "x"),
    ],
)
def test_a_name_is_the_stem_in_plain_characters(file: str, name: str) -> None:
    assert name_of(Path(file)) == name


def test_two_images_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    a, b = touch(tmp_path, "a/x.tif", "b/x.svs")
    with pytest.raises(ManifestError) as refused:
        find_images([str(a), str(b)])
    assert str(a) in str(refused.value)
    assert str(b) in str(refused.value)


# ------------------------------------------------------------------------------------------ finding


def test_a_folder_is_searched_below_in_order_and_hidden_files_are_passed_over(
    tmp_path: Path,
) -> None:
    touch(
        tmp_path, "b.svs", "a/c.tif", ".hidden.tif", "notes.txt", "z.zarr/zarr.json", "z.zarr/c/0"
    )
    assert found(tmp_path) == ["c", "b", "z"]


def test_the_parts_of_a_mirax_slide_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "s.mrxs", "s/Data0001.tif")
    assert found(tmp_path) == ["s"]


def test_globs_and_files_keep_the_order_of_the_arguments(tmp_path: Path) -> None:
    touch(tmp_path, "b1.tif", "b2.tif", "a.tif")
    assert found(tmp_path / "b*.tif", tmp_path / "a.tif") == ["b1", "b2", "a"]


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,mpp\nx.tif,much\n")
    with pytest.raises(ManifestError) as refused:
        find_images([str(tmp_path / "m.csv"), str(tmp_path / "y.tif"), str(tmp_path / "z*.tif")])
    assert all(word in str(refused.value) for word in ("m.csv:2", "mpp", "y.tif", "z*.tif"))


def test_a_folder_is_searched_for_every_format_but_not_for_files_that_name_others(
    tmp_path: Path,
) -> None:
    names = {f"image{at}{ending}" for at, ending in enumerate(sorted(SLIDES | RASTERS))}
    touch(tmp_path, *names, "all.vrt", "all.mosaic.yaml")
    assert {Path(entry.uri).name for entry in find_images([str(tmp_path)])} == names


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no images"):
        find_images([str(tmp_path)])


# --------------------------------------------------------------------------------------- manifests


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "x.tif")
    (tmp_path / "m.csv").write_text(
        "\ufeffimage,name,mpp,passes.only.tile,fuse\nx.tif,X,0.25,128,max\n", encoding="utf-8"
    )
    row = {"image": "x.tif", "name": "X", "mpp": 0.25, "passes.only.tile": 128, "fuse": "max"}
    (tmp_path / "m.jsonl").write_text("\n" + json.dumps(row | {"gsd": None}) + "\n")
    (one,) = find_images([str(tmp_path / "m.csv")])
    (two,) = find_images([str(tmp_path / "m.jsonl")])
    assert one == two
    assert one.overrides == {"passes": {"only": {"tile": 128}}, "fuse": "max"}
    assert one.uri == str(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b"image\n\xff\xfe\n", "UTF-8"),
        (b"image,nam\nx.tif,X\n", "did you mean 'name'"),
        (b"image\nx.tif,surplus\n", "more fields"),
        (b"image,mpp\nx.tif,nan\n", "mpp"),
        (b"image,mpp\nx.tif,inf\n", "mpp"),
        (b"image,fuse,fuse.x\nx.tif,max,3\n", "exclude each other"),
        (b"image,output,output.chunk\nx.tif,5,64\n", "exclude each other"),
        (b'image\n"' + b"x" * 200_000 + b'"\n', "field"),
    ],
)
def test_a_csv_that_makes_no_sense_is_explained(text: bytes, hint: str, tmp_path: Path) -> None:
    touch(tmp_path, "x.tif")
    (tmp_path / "m.csv").write_bytes(text)
    with pytest.raises(ManifestError, match=hint):
        find_images([str(tmp_path / "m.csv")])


@pytest.mark.parametrize(
    "line", ["{", "[1]", "3", "{}", '{"image": null}', '{"image": ""}', '{"image": "\\u0000"}']
)
def test_a_json_line_that_makes_no_sense_is_explained(line: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(ManifestError):
        find_images([str(tmp_path / "m.jsonl")])


def test_a_name_leads_where_its_path_led_through_links_that_are_not_resolved(
    tmp_path: Path,
) -> None:
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to("../far/away")
    for folder, text in (("far", "far"), ("here", "here")):
        (tmp_path / folder / "x.svs").write_text(text)
    for stated in ("here/link/../x.svs", "here/link/../../here/x.svs", "far/away/../../far/x.svs"):
        found = Path(resolved(stated, str(tmp_path)))
        assert found.read_text() == (tmp_path / stated).read_text()
    assert resolved("far/away/../x.svs", str(tmp_path)) == str(tmp_path / "far/x.svs")
    assert resolved("here/link/x.svs", str(tmp_path)) == str(tmp_path / "here/link/x.svs")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"m\.csv"):
        find_images([str(tmp_path / "m.csv")])


@pytest.mark.parametrize(
    "overrides",
    [
        {"passes": {"nowhere": {"tile": 3}}},
        {"passes": {"only": {"tile": "many"}}},
        {"passes": {"only": {"tiles": 3}}},
        {"passes": {"only": 3}},
        {"passes": 3},
        {"output": 3},
        {"version": 2},
    ],
)
def test_overrides_that_do_not_fit_the_recipe_are_refused(overrides: dict[str, object]) -> None:
    with pytest.raises(ManifestError, match="x"):
        list_images([ImageEntry("x", "x.tif", overrides=overrides)], recipe=RECIPE)


# -------------------------------------------------------------------------------------- pixel sizes


def test_a_manifests_own_pixel_size_wins_over_that_of_the_command() -> None:
    own, none = ImageEntry("a", "a.tif", mpp=0.25), ImageEntry("b", "b.tif")
    sized = list_images([own, none], options=ListOptions(mpp=0.5))
    assert [entry.mpp for entry in sized] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("mpp", "gsd"),
    [(0.5, 0.5), (-1, None), (0, None), (1e300, None), (None, 1e-9), (None, float("inf"))],
)
def test_a_pixel_size_that_is_none_is_refused(mpp: float | None, gsd: float | None) -> None:
    with pytest.raises(ManifestError):
        list_images([ImageEntry("a", "a.tif")], options=ListOptions(mpp=mpp, gsd=gsd))


def test_entries_survive_a_round_trip() -> None:
    entry = ImageEntry("a", "/x/a.tif", mpp=0.25, overrides={"fuse": "max"})
    for one in (entry, ImageEntry("b", "b")):
        assert entry_from_json(entry_to_json(one)) == one
