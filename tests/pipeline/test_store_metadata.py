from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store import ImageStore

Make = Callable[[ImagePlan], ImageStore]
PLANS: dict[str, dict[str, Any]] = {
    "micrometres": {},
    "metres": {"pixel_size": PixelSize(10.0, 10.0, "m")},
    "no pixel size": {"pixel_size": None},
    "pixels that are not square": {"pixel_size": PixelSize(0.25, 0.5, "um")},
    "floats": {"scores": "float32"},
    "many classes": {"classes": ("background", *(f"class {n}" for n in range(37)))},
    "one class": {"classes": ("b",)},
}


@pytest.fixture(params=PLANS, ids=lambda name: name.replace(" ", "-"))
def complete(
    request: pytest.FixtureRequest,
    make_store: Make,
    three_passes: ImagePlan,
    results: Any,
    tmp_path: Path,
) -> Path:
    plan = replace(three_passes, **PLANS[request.param])
    results.write_all(make_store(plan), results.random_answers(plan, 41, (0, 1, 255)))
    return tmp_path / "slide.ome.zarr"


def test_yaozarrs_finds_a_complete_result_valid(complete: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    group = yaozarrs.validate_zarr_store(str(complete))
    assert type(group.ome_metadata(version="0.5")).__name__ == "Image"


def test_ome_zarr_models_finds_image_and_labels_valid(complete: Path) -> None:
    models = pytest.importorskip("ome_zarr_models.v05")
    image = models.Image.from_zarr(zarr.open_group(complete, mode="r"))
    assert image.labels is not None
    label = models.ImageLabel.from_zarr(zarr.open_group(complete / "labels/classes", mode="r"))
    assert len(label.ome_attributes.multiscales[0].datasets) == len(
        image.ome_attributes.multiscales[0].datasets
    )


def test_plain_zarr_opens_every_array_of_a_complete_result(complete: Path) -> None:
    group = zarr.open(complete, mode="r")
    assert isinstance(group, zarr.Group)
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:  # type: ignore[index,call-overload]
        assert np.asarray(group[dataset["path"]][...]).ndim == 3  # type: ignore[index]


def test_nothing_but_finish_makes_an_image_of_the_group(
    make_store: Make, three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    for index, answer in enumerate(results.random_answers(three_passes, 43)):
        results.write_pass(store, index, answer)
    root = tmp_path / "slide.ome.zarr" / "zarr.json"
    assert "ome" not in json.loads(root.read_text())["attributes"]
    assert not store.complete
    store.finish({})
    assert "ome" in json.loads(root.read_text())["attributes"]
    assert store.complete


def test_the_root_is_written_after_everything_else(
    make_store: Make, three_passes: ImagePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.pipeline.store_shelf import LocalShelf

    store = make_store(three_passes)
    put, order = LocalShelf.put, []
    monkeypatch.setattr(
        LocalShelf, "put", lambda self, key, data: (order.append(key), put(self, key, data))
    )
    store.finish({})
    assert order == ["labels/classes/zarr.json", "labels/zarr.json", "zarr.json"]


def test_runs_differ_in_the_metadata_by_timing_only(
    three_passes: ImagePlan, results: Any, tmp_path: Path
) -> None:
    trees = []
    for seconds in (17, 19):
        store = ImageStore.create(tmp_path / str(seconds), three_passes, {"recipe": {"x": 1}})
        store.finish({"passes": {"glance": {"tiles": 3}}, "timing": {"seconds": seconds}})
        tree = json.loads((tmp_path / str(seconds) / "zarr.json").read_text())
        assert tree["attributes"]["saccade"].pop("timing") == {"seconds": seconds}
        trees.append(tree)
    assert trees[0] == trees[1]
    assert trees[0]["attributes"]["saccade"]["recipe"] == {"x": 1}


def test_pixel_centres_of_every_level_lie_where_the_image_has_them(
    make_store: Make, three_passes: ImagePlan, tmp_path: Path
) -> None:
    make_store(three_passes).finish({})
    tree = json.loads((tmp_path / "slide.ome.zarr" / "zarr.json").read_text())
    side_um = 0.25
    for level, dataset in enumerate(tree["attributes"]["ome"]["multiscales"][0]["datasets"]):
        scale, shift = dataset["coordinateTransformations"]
        pixels = 2 * 2**level  # level 0 of the result has a stride of 2
        assert scale["scale"] == [1, side_um * pixels, side_um * pixels]
        first_centre = np.mean(np.arange(pixels)) * side_um
        assert shift["translation"] == [0, first_centre, first_centre]
