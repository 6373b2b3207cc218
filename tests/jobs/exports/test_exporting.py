"""Exporting runs: which images, which files, what is refused; every format over one real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from exported import RECIPE, square_of_texture
from PIL import Image
from typer.testing import CliRunner

from saccade.jobs.cli import app
from saccade.jobs.driver import run
from saccade.jobs.exports.exporting import export
from saccade.jobs.exports.options import ExportOptions
from saccade.jobs.exports.overlay import draw_overlays
from saccade.jobs.options import RunOptions
from saccade.jobs.pictures.colours import heat_table
from saccade.pipeline.errors import StorageFull, StoreError, UsageError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result
from saccade.pipeline.store import ImageStore

FILES = {
    "geojson": ("{}.geojson",),
    "ome-tiff": ("{}.labels.ome.tif",),
    "ome-zarr-0.4": ("{}.ome.zarr",),
    "csv": ("{}.tiles.csv",),
    "parquet": ("{}.tiles.parquet",),
    "png": ("{}.tissue.png",),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with a square of texture."""
    folder = tmp_path_factory.mktemp("exports")
    for name in ("one", "two"):
        tifffile.imwrite(folder / f"{name}.tif", square_of_texture(len(name)), tile=(64, 64))
    images = [folder / "one.tif", folder / "two.tif"]
    run(Recipe.model_validate(RECIPE), images, folder / "run", RunOptions("local:1", device="cpu"))
    return folder / "run"


def files(run: Path, to: str, folder: Path, *images: str, **options: Any) -> list[Path]:
    return list(export(run, ExportOptions(to, **options), images, folder))  # type: ignore[arg-type]


@pytest.mark.parametrize("to", FILES)
def test_every_image_is_exported_in_every_format_and_nothing_else_is_left(
    finished: Path, tmp_path: Path, to: str
) -> None:
    found = files(finished, to, tmp_path)
    expected = [tmp_path / name.format(image) for image in ("one", "two") for name in FILES[to]]
    assert found == expected
    assert sorted(tmp_path.iterdir()) == sorted(expected)


@pytest.mark.parametrize("to", FILES)
def test_exporting_again_replaces_by_the_same(finished: Path, tmp_path: Path, to: str) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    files(finished, to, tmp_path, "one")
    first = contents()
    files(finished, to, tmp_path, "one")
    assert contents() == first


def test_what_a_killed_export_left_is_removed_by_the_next(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "one.geojson.0123.partial").write_text("{")
    (tmp_path / "one.geojson.0123.partial.4567.partial").mkdir()
    (tmp_path / "another.geojson.0123.partial").write_text("{")
    (path,) = files(finished, "geojson", tmp_path, "one")
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "another.geojson.0123.partial"}


def test_files_go_into_the_run_unless_told_otherwise(finished: Path) -> None:
    (path,) = export(finished, ExportOptions("csv"), ["two"])
    assert path == finished / "exports" / "two.tiles.csv"


def test_a_result_alone_is_exported_beside_itself(finished: Path, tmp_path: Path) -> None:
    result = finished / "results" / "one.ome.zarr"
    (path,) = export(result, ExportOptions("geojson"), folder=tmp_path)
    assert json.loads(path.read_text())["saccade"]["image"] == "one"


def test_an_image_that_can_t_be_read_does_not_keep_the_others(
    finished: Path, tmp_path: Path
) -> None:
    import shutil

    copy = shutil.copytree(finished, tmp_path / "run")
    for shard in (copy / "results" / "one.ome.zarr" / "labels").rglob("c/*/*"):
        if shard.is_file():
            shard.write_bytes(b"torn")
    exported = []
    with pytest.raises(StoreError, match="1 of 2 images could not be exported"):
        exported.extend(
            path.name for path in export(copy, ExportOptions("ome-tiff"), folder=tmp_path / "out")
        )
    assert exported == ["two.labels.ome.tif"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == exported


def test_a_full_disk_ends_it_and_keeps_what_was_there(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = files(finished, "geojson", tmp_path, "one")
    before = path.read_bytes()

    def full(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saccade.jobs.exports.one_image.feature_collection", full)
    with pytest.raises(StorageFull, match="No space left on device"):
        files(finished, "geojson", tmp_path, "one")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "geo-json"}, "no format 'geo-json'; did you mean 'geojson'"),
        (
            {"to": "png", "threshold": 0.5},
            "threshold: heeded by geojson, geoparquet, cog, ome-tiff; png",
        ),
        ({"to": "ome-zarr-0.4", "classes": ("a",)}, "ome-zarr-0.4 does not take it"),
        ({"to": "geojson", "threshold": 1.5}, "a score from 0 to 1 expected; found 1.5"),
        ({"to": "geojson", "object_type": "cell"}, "one of annotation, detection expected"),
        ({"to": "ome-tiff", "content": "maps"}, "one of labels, scores expected; found 'maps'"),
    ],
)
def test_what_can_t_be_asked_for_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options)


def test_an_image_that_is_not_there_is_named(finished: Path) -> None:
    with pytest.raises(UsageError, match="no image 'onee' has a result; did you mean 'one'"):
        export(finished, ExportOptions("csv"), ["onee"])


def test_nothing_to_export_yet_is_said(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="nothing to export yet"):
        export(tmp_path, ExportOptions("csv"))


def test_the_overlay_glows_where_the_score_is_and_has_the_size_asked_for(finished: Path) -> None:
    path = finished / "results" / "one.ome.zarr"
    result = open_result(path)
    page = draw_overlays(result, ImageStore.open(path), ("tissue",), 384)["tissue"]
    scores = np.asarray(result.scores)[0]
    scale = page.width / 830
    left, top = round(18 * scale), round((50 + 9 + 23) * scale)
    pixels = np.asarray(page)[top : top + 384, left : left + 384].astype(int)
    hot, cold = pixels[128 : 192 - 8, 128 : 256 - 8], pixels[300:330, 10:60]
    assert scores.max() > 0.5
    assert np.ptp(hot.mean(axis=(0, 1))) > 20 > np.ptp(cold.mean(axis=(0, 1)))
    assert heat_table()[255].astype(int).sum() > 600


def test_the_picture_says_what_it_was_made_from(finished: Path, tmp_path: Path) -> None:
    (path,) = files(finished, "png", tmp_path, "one", longest_px=128)
    with Image.open(path) as picture:
        assert json.loads(picture.info["saccade"])["state"] == "complete"


# --------------------------------------------------------------------------------------- the verb


def test_the_verb_prints_each_file(finished: Path, tmp_path: Path) -> None:
    command = ["export", str(finished), "one", "--to", "csv", "-o", str(tmp_path)]
    said = CliRunner().invoke(app, command, catch_exceptions=False)
    assert said.exit_code == 0
    assert said.stdout.split() == [str(tmp_path / "one.tiles.csv")]


def test_classes_may_be_given_with_commas(finished: Path, tmp_path: Path) -> None:
    command = ["export", str(finished), "--to", "geojson", "--classes", "tissue, bone"]
    with pytest.raises(UsageError, match="no class 'bone' in the result; there are: tissue"):
        CliRunner().invoke(
            app, [*command, "-o", str(tmp_path)], catch_exceptions=False, standalone_mode=False
        )
