"""A run with an area of interest: nothing is read or computed outside, nothing differs inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes
from mosaics import RESOLUTION, write_tif

from saccade.jobs.driver import run
from saccade.jobs.manifests.manifest import ListOptions, list_images
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import ManifestError, ResumeRefused
from saccade.pipeline.georeference import Affine, Crs, Georeference
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result
from saccade.pipeline.sources.base import Level
from saccade.workers import measuring

SIDE_PX = 256
TILE_PX = 32
EAST, NORTH = 500_000.0, 5_000_000.0
PLACE = Georeference(Crs(32632), Affine(RESOLUTION, 0, EAST, 0, -RESOLUTION, NORTH))
LOCAL = RunOptions(workers="local:1", device="cpu")
EVERYWHERE: dict[str, Any] = {"by": "all"}


def area_over(folder: Path, *boxes: tuple[int, int, int, int], name: str = "area") -> Path:
    """Rectangles ``(y0, x0, y1, x1)`` of pixels, as GeoJSON in the image's CRS."""
    rings = []
    for y0, x0, y1, x1 in boxes:
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        rings.append([[[EAST + x * RESOLUTION, NORTH - y * RESOLUTION] for x, y in corners]])
    tree = {"type": "MultiPolygon", "coordinates": rings}
    tree["crs"] = {"type": "name", "properties": {"name": "EPSG:32632"}}  # type: ignore[assignment]
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps(tree))
    return path


def image() -> FakeSource:
    source = FakeSource(noise(SIDE_PX, SIDE_PX))
    source.georeference = PLACE
    return source


def two_passes(**details: Any) -> dict[str, Any]:
    halo = details.pop("halo", 0)
    passes = [
        pass_of("glance", "echo", 2, tile=16),
        pass_of("look", "echo", 1, tile=TILE_PX, select=EVERYWHERE, halo=halo, **details),
    ]
    return several_passes(passes, "uint8")


def read_px(source: FakeSource) -> np.ndarray:
    """Which pixels were read."""
    seen = np.zeros((SIDE_PX, SIDE_PX), bool)
    for box in source.reads:
        seen[box.slices] = True
    return seen


def test_a_dense_run_reads_and_answers_nothing_outside(lab: Lab, tmp_path: Path) -> None:
    area = area_over(tmp_path, (40, 70, 90, 130))
    source, whole = image(), image()
    recipe = one_pass("echo", "uint8", tile=TILE_PX)
    result = lab.run(recipe | {"area": str(area)}, source)
    dense = lab.run(recipe, whole)
    inside = np.zeros((8, 8), bool)
    inside[1:3, 2:5] = True
    px = np.kron(inside, np.ones((TILE_PX, TILE_PX), bool))
    assert (read_px(source) == px).all()
    assert ((np.asarray(result.coverage) == 1) == inside).all()
    assert (np.asarray(result.labels) == 255)[~px].all()
    fused, full = np.asarray(result.fused), np.asarray(dense.fused)
    assert (fused[:, px] == full[:, px]).all()
    assert not fused[:, ~px].any()


def test_every_pass_stays_inside_and_answers_as_without_an_area(lab: Lab, tmp_path: Path) -> None:
    area = area_over(tmp_path, (64, 64, 128, 192), (200, 8, 201, 9))
    source = image()
    result = lab.run(two_passes() | {"area": str(area)}, source)
    dense = lab.run(two_passes(), image())
    inside = np.zeros((8, 8), bool)
    inside[2:4, 2:6] = True
    inside[6, 0] = True
    for name in ("glance", "look"):
        assert ((result.passes[name].status > 0) == inside).all()
    px = np.kron(inside, np.ones((TILE_PX, TILE_PX), bool))
    assert (read_px(source) == px).all()
    assert (np.asarray(result.fused)[:, px] == np.asarray(dense.fused)[:, px]).all()
    assert (np.asarray(result.labels)[px] == np.asarray(dense.labels)[px]).all()
    assert (np.asarray(result.labels)[~px] == 255).all()
    assert (np.asarray(result.coverage) == np.where(inside, 2, 0)).all()


def test_a_pass_that_is_told_of_the_one_before_it_is_told_the_same(
    lab: Lab, tmp_path: Path
) -> None:
    """The glance looks as far around the area as the guidance of its tiles reaches, no farther."""
    area = area_over(tmp_path, (64, 64, 128, 192))
    passes = [
        pass_of("glance", "echo", 2, tile=16),
        pass_of("look", "echo_guidance", 1, tile=TILE_PX, select=EVERYWHERE, guidance=True, halo=8),
    ]
    recipe = several_passes(passes, "uint8")
    result = lab.run(recipe | {"area": str(area)}, image())
    dense = lab.run(recipe, image())
    inside = np.zeros((8, 8), bool)
    inside[2:4, 2:6] = True
    around = np.zeros((8, 8), bool)
    around[1:5, 1:7] = True
    assert ((result.passes["look"].status > 0) == inside).all()
    assert ((result.passes["glance"].status > 0) == around).all()
    px = np.kron(inside, np.ones((TILE_PX, TILE_PX), bool))
    assert (np.asarray(result.fused)[:, px] == np.asarray(dense.fused)[:, px]).all()


def test_shards_outside_have_no_units(lab: Lab, tmp_path: Path) -> None:
    area = area_over(tmp_path, (70, 70, 80, 80))
    summary = lab.run_all(two_passes() | {"area": str(area)}, {"one": image()})
    (tally,) = (summary.tally.images[name] for name in summary.tally.images)
    assert tally.units["look"] == [1, 1]
    assert tally.tiles["glance"]["selected"] == 1
    assert tally.tiles["look"]["of"] == 1


def test_a_glance_of_one_window_counts_all_the_tiles_that_it_answers(
    lab: Lab, tmp_path: Path
) -> None:
    area = area_over(tmp_path, (70, 70, 80, 80))
    tree = two_passes() | {"area": str(area)}
    tree["passes"][0] |= {"tile": "auto"}
    (tally,) = lab.run_all(tree, {"one": image()}).tally.images.values()
    glance = tally.tiles["glance"]
    assert glance["selected"] == glance["done"] > 1
    assert tally.tiles["look"]["done"] == 1


def test_an_image_outside_the_area_is_complete_and_empty(lab: Lab, tmp_path: Path) -> None:
    area = area_over(tmp_path, (700, 700, 800, 800))
    source = image()
    result = lab.run(two_passes() | {"area": str(area)}, source)
    assert not source.reads
    assert (np.asarray(result.labels) == 255).all()
    assert not np.asarray(result.coverage).any()


def test_an_image_that_lies_nowhere_is_set_aside_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    area = area_over(tmp_path, (1, 1, 2, 2))
    summary = lab.run_all(two_passes() | {"area": str(area)}, {"one": noise(64, 64)})
    assert "found no georeference" in summary.quarantined["one"]


def pyramid(*, nodata: float | None = None) -> FakeSource:
    """An image whose overview is averaged anew, in blocks of 64 pixels where they are small."""
    source = FakeSource(noise(SIDE_PX, SIDE_PX), nodata=nodata)
    source.georeference, source.is_raster = PLACE, True
    source.levels = (source.levels[0], Level((SIDE_PX // 2, SIDE_PX // 2), 2.0))
    return source


@pytest.mark.parametrize("workers", ["local:1", "local:2"])
@pytest.mark.parametrize("halo", [0, 4])
def test_levels_are_averaged_around_the_area_only_and_answers_are_the_same(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halo: int, workers: str
) -> None:
    monkeypatch.setattr("saccade.pipeline.sources.level_sweep.SWEEP_NBYTES", 3 * 64 * 64)
    area = area_over(tmp_path, (8, 8, 40, 40))
    glance = pass_of("glance", "echo", 2, tile=16, halo=halo)
    look = pass_of("look", "echo", 1, tile=TILE_PX, select=EVERYWHERE)
    recipe = several_passes([glance, look], "uint8")
    source = pyramid()
    result = lab.run(recipe | {"area": str(area)}, source, workers)
    dense = lab.run(recipe, pyramid(), workers)
    seen = read_px(source)
    assert seen[:64, :64].all()
    assert not seen[192:].any()
    assert not seen[:, 192:].any()
    found = result.passes["glance"].status > 0
    px = np.kron(found, np.ones((16, 16), bool))
    assert found.sum() == 4
    scores, all_scores = (np.asarray(r.passes["glance"].scores) for r in (result, dense))
    assert (scores[:, px] == all_scores[:, px]).all()


# --------------------------------------------------------------------------- manifests and resuming


def archive(folder: Path) -> list[str]:
    for name in ("a", "b"):
        write_tif(folder / f"{name}.tif", [noise(SIDE_PX, SIDE_PX)])
    small, large = (
        area_over(folder, (0, 0, 64, 64), name="small"),
        area_over(folder, (0, 0, 128, 64), name="large"),
    )
    rows = [{"image": "a.tif"}, {"image": "b.tif", "area": large.name}]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(folder / "m.jsonl"), str(small)]


def visited(folder: Path, name: str) -> int:
    result = open_result(folder / "results" / f"{name}.ome.zarr")
    return int((result.passes["look"].status > 0).sum())


def test_images_have_areas_of_their_own_and_a_change_is_noticed(tmp_path: Path, lab: Lab) -> None:
    manifest, small = archive(tmp_path)
    recipe = Recipe.model_validate(two_passes())
    folder = tmp_path / "run"

    def again(**options: Any) -> Any:
        listed = list_images([manifest], recipe=recipe, options=ListOptions(area=small))
        how = RunOptions(workers="local:1", device="cpu", **options)
        return run(recipe, listed, folder, how, model_folder=lab.models)

    assert again().complete == ("a", "b")
    assert (visited(folder, "a"), visited(folder, "b")) == (4, 8)
    again()
    area_over(tmp_path, (0, 0, 32, 32), name="large")
    with pytest.raises(ResumeRefused, match="b: overrides was"):
        again()
    again(force=True)
    assert (visited(folder, "a"), visited(folder, "b")) == (4, 1)


def test_an_area_of_the_recipe_that_changes_is_noticed(tmp_path: Path, lab: Lab) -> None:
    archive(tmp_path)
    tree = two_passes() | {"area": str(tmp_path / "small.geojson")}
    recipe, folder = Recipe.model_validate(tree), tmp_path / "run"
    run(recipe, [tmp_path / "a.tif"], folder, LOCAL, model_folder=lab.models)
    assert visited(folder, "a") == 4
    area_over(tmp_path, (0, 0, 1, 1), name="small")
    with pytest.raises(ResumeRefused, match=r"recipe\.area\.digest"):
        run(recipe, [tmp_path / "a.tif"], folder, LOCAL, model_folder=lab.models)


def test_an_area_that_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    manifest, _ = archive(tmp_path)
    (tmp_path / "large.geojson").unlink()
    with pytest.raises(ManifestError, match=r"large\.geojson: no such file"):
        list_images([manifest])
    with pytest.raises(ManifestError, match=r"gone\.gpkg: an area of interest"):
        list_images([tmp_path / "a.tif"], options=ListOptions(area=str(tmp_path / "gone.gpkg")))


def test_a_mosaic_runs_like_any_image(tmp_path: Path, lab: Lab) -> None:
    pixels = noise(SIDE_PX, SIDE_PX)
    half = SIDE_PX // 2
    write_tif(tmp_path / "whole.tif", [pixels])
    write_tif(tmp_path / "west.tif", [np.ascontiguousarray(pixels[:, :half])])
    east = half * RESOLUTION
    write_tif(tmp_path / "east.tif", [np.ascontiguousarray(pixels[:, half:])], east=east)
    (tmp_path / "both.mosaic.yaml").write_text("mosaic: {files: [west.tif, east.tif]}")
    images = [tmp_path / "whole.tif", tmp_path / "both.mosaic.yaml"]
    folder = tmp_path / "run"
    recipe = Recipe.model_validate(two_passes())
    summary = run(recipe, images, folder, LOCAL, model_folder=lab.models)
    assert summary.complete == ("whole", "both")
    one, other = (open_result(folder / "results" / f"{n}.ome.zarr") for n in summary.complete)
    assert (np.asarray(one.fused) == np.asarray(other.fused)).all()
    assert one.plan.georeference == other.plan.georeference
    with (tmp_path / "east.tif").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ResumeRefused, match=r"both: .* bytes, is"):
        run(recipe, images, folder, LOCAL, model_folder=lab.models)


# -------------------------------------------------------------------------------------- statistics


def normalised(area: Path | None, **details: Any) -> dict[str, Any]:
    passes = two_passes(**details)
    for one in passes["passes"]:
        one["model"]["normalise"] = {"by": "percentiles", "low": 3, "high": 97}
    return passes | ({} if area is None else {"area": str(area)})


def test_statistics_are_of_the_tiles_of_the_glance_that_the_area_meets(
    lab: Lab, tmp_path: Path
) -> None:
    """The glance's tile is 32 pixels of level 0 wide; two that lie apart are met."""
    area = area_over(tmp_path, (40, 70, 50, 80), (200, 8, 201, 9))
    source = image()
    result = lab.run(normalised(area), source)
    pixels = noise(SIDE_PX, SIDE_PX)
    halves = pixels.reshape(128, 2, 128, 2, -1).mean(axis=(1, 3))
    wanted = np.concatenate(
        [np.rint(halves[r : r + 16, c : c + 16]) for r, c in ((16, 32), (96, 0))]
    )
    assert result.plan.statistics is not None
    for band, one in enumerate(result.plan.statistics):
        values = wanted[..., band].ravel()
        assert one.valid_px == values.size
        assert one.mean == pytest.approx(values.mean())
        assert one.percentile(3) == pytest.approx(np.percentile(values, 3))


def test_statistics_of_an_area_that_meets_all_tiles_are_those_of_the_image(
    lab: Lab, tmp_path: Path
) -> None:
    whole = lab.run(normalised(None), image())
    known = lab.run(normalised(area_over(tmp_path, (0, 0, SIDE_PX, SIDE_PX))), image())
    assert known.plan.statistics == whole.plan.statistics


def test_statistics_read_nothing_outside_the_tiles_of_the_glance(lab: Lab, tmp_path: Path) -> None:
    source = image()
    lab.run(normalised(area_over(tmp_path, (64, 64, 128, 192))), source)
    px = np.zeros((SIDE_PX, SIDE_PX), bool)
    px[64:128, 64:192] = True
    assert (read_px(source) == px).all()


def test_statistics_that_only_fill_are_of_fewer_pixels_of_the_same_tiles(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean of much will do: here of a sixteenth of the glance's pixels, of two of its tiles."""
    monkeypatch.setattr(measuring, "ENOUGH_TO_FILL_PX", 2 * 16 * 16 // 16)
    pixels = np.maximum(noise(SIDE_PX, SIDE_PX), 1)
    source = FakeSource(pixels, nodata=0)
    source.georeference = PLACE
    area = area_over(tmp_path, (40, 70, 50, 80), (200, 8, 201, 9))
    result = lab.run(two_passes() | {"area": str(area)}, source)
    eighths = pixels.reshape(32, 8, 32, 8, -1).mean(axis=(1, 3))
    wanted = np.concatenate([eighths[4:8, 8:12], eighths[24:28, 0:4]])
    assert result.plan.statistics is not None
    for band, one in enumerate(result.plan.statistics):
        assert one.valid_px == 32
        assert one.mean == pytest.approx(np.rint(wanted[..., band]).mean())
