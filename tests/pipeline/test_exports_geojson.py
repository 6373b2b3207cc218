"""GeoJSON against what it was made from: drawn again it gives the labels, and QuPath's fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from saccade.pipeline.errors import UsageError
from saccade.pipeline.exports.frame import ImagePixels
from saccade.pipeline.exports.geojson import FeatureStyle, feature_collection
from saccade.pipeline.exports.labelled_regions import Shapes
from saccade.pipeline.exports.labelling import Labelling, chosen_classes
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store import ImageStore

shapely = pytest.importorskip("shapely")

Make = Callable[[ImagePlan], ImageStore]


def exported(
    result: Result, classes: tuple[str, ...] = ("a", "b"), threshold: float | None = None
) -> dict[str, Any]:
    labelling = Labelling(result, classes, threshold)
    text = "".join(feature_collection(labelling, ImagePixels.of(result.plan), {"state": "x"}))
    tree: dict[str, Any] = json.loads(text)
    return tree


def drawn(tree: dict[str, Any], plan: ImagePlan, values: dict[str, int]) -> np.ndarray:
    """Labels of the result's pixels from polygons in pixels of level 0; 255 where there is none."""
    labels = np.full(plan.shape, 255, np.uint8)
    for feature in tree["features"]:
        inside = pixels_in(feature, plan)
        assert (labels[inside] == 255).all()  # no two polygons share ground
        labels[inside] = values[feature["properties"]["classification"]["name"]]
    return labels


def pixels_in(feature: dict[str, Any], plan: ImagePlan) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the result's pixels whose upper left quarter lies in a polygon."""
    polygon = shapely.geometry.shape(feature["geometry"])
    step = plan.last.score_downsample
    left, top, right, bottom = (int(side // step) for side in polygon.bounds)
    rows, columns = np.mgrid[top : bottom + 1, left : right + 1]
    inside = shapely.contains_xy(polygon, (columns + 0.25) * step, (rows + 0.25) * step)
    return rows[inside], columns[inside]


@pytest.fixture
def noisy(three_passes: ImagePlan, results: Any, make_store: Make, tmp_path: Path) -> Result:
    """A complete result with many regions, at half of level 0's resolution and with odd edges."""
    results.write_all(make_store(three_passes), results.random_answers(three_passes, 5))
    return open_result(tmp_path / "slide.ome.zarr")


def test_polygons_drawn_again_are_the_labels(noisy: Result) -> None:
    labels = np.asarray(noisy.labels)
    np.testing.assert_array_equal(drawn(exported(noisy), noisy.plan, {"a": 0, "b": 1}), labels)


def test_every_polygon_is_valid_and_its_measured_area_is_its_own(noisy: Result) -> None:
    for feature in exported(noisy)["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        told = feature["properties"]["measurements"]
        assert told["Area px^2"] == polygon.area
        assert told["Area µm^2"] == pytest.approx(polygon.area * 0.25**2)


def test_polygons_stay_inside_the_image_and_reach_its_edges(noisy: Result) -> None:
    shapes = [shapely.geometry.shape(f["geometry"]) for f in exported(noisy)["features"]]
    assert shapely.union_all(shapes).bounds == (0, 0, 307, 211)


def test_the_mean_score_is_that_of_the_region_s_own_class(noisy: Result) -> None:
    scores = np.asarray(noisy.scores)
    for feature in exported(noisy)["features"]:
        inside = pixels_in(feature, noisy.plan)
        index = noisy.classes.index(feature["properties"]["classification"]["name"])
        told = feature["properties"]["measurements"]["Mean score"]
        assert told == pytest.approx(scores[index][inside].mean(), abs=1e-5)


def test_features_have_what_qupath_reads(noisy: Result) -> None:
    tree = exported(noisy)
    assert (tree["type"], tree["saccade"]) == ("FeatureCollection", {"state": "x"})
    for feature in tree["features"]:
        assert feature["type"] == "Feature"
        UUID(feature["id"])
        said = feature["properties"]
        assert said["objectType"] == "annotation"
        assert set(said["classification"]) == {"name", "color"}
        assert all(0 <= part <= 255 for part in said["classification"]["color"])
        assert said["isLocked"] is False
        assert all(isinstance(value, float | int) for value in said["measurements"].values())
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert len(ring) >= 5
    assert len({feature["id"] for feature in tree["features"]}) == len(tree["features"])


def test_the_same_result_gives_the_same_file(noisy: Result) -> None:
    assert exported(noisy) == exported(noisy)


def test_only_the_classes_asked_for_are_there(noisy: Result) -> None:
    names = {
        feature["properties"]["classification"]["name"]
        for feature in exported(noisy, ("b",))["features"]
    }
    assert names == {"b"}


def test_with_a_threshold_every_class_is_taken_by_itself(noisy: Result) -> None:
    scores = np.asarray(noisy.scores)
    tree = exported(noisy, threshold=0.3)
    for name, plane in zip(noisy.classes, scores, strict=True):
        mine = [f for f in tree["features"] if f["properties"]["classification"]["name"] == name]
        found = drawn({"features": mine}, noisy.plan, {name: 1}) == 1
        np.testing.assert_array_equal(found, plane >= np.float32(0.3))


def test_a_threshold_leaves_out_pixels_that_are_less_sure(noisy: Result) -> None:
    labels, scores = np.asarray(noisy.labels), np.asarray(noisy.scores)
    own = np.take_along_axis(scores, labels[None].astype(int), axis=0)[0]
    expected = np.where(own >= np.float32(0.75), labels, 255)
    found = drawn(exported(noisy, threshold=0.75), noisy.plan, {"a": 0, "b": 1})
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threshold", [None, 0.3, 0.8])
def test_a_single_class_is_where_its_score_reaches_the_threshold(
    results: Any, make_store: Make, tmp_path: Path, threshold: float | None
) -> None:
    only = results.layout("only", 0, (71, 53), 1, classes=("it",), window_tiles=0)
    plan = results.plan_of((only,), pixel_size=None)
    ((_, status),) = results.random_answers(plan, 3)
    scores = np.random.default_rng(1).integers(0, 256, (1, 71, 53)).astype(np.uint8)
    results.write_all(make_store(plan), [(scores, status)])
    tree = exported(open_result(tmp_path / "slide.ome.zarr"), ("it",), threshold)
    found = drawn(tree, plan, {"it": 1}) == 1
    np.testing.assert_array_equal(found, scores[0] / np.float32(255) >= (threshold or 0.5))
    assert {"Area px^2", "Mean score"} == set(tree["features"][0]["properties"]["measurements"])


def test_an_unfinished_result_is_exported_as_far_as_it_is(
    three_passes: ImagePlan, results: Any, make_store: Make, tmp_path: Path
) -> None:
    store = make_store(three_passes)
    results.write_pass(store, 0, results.random_answers(three_passes, 5)[0])
    result = open_result(tmp_path / "slide.ome.zarr")
    found = drawn(exported(result), result.plan, {"a": 0, "b": 1})
    np.testing.assert_array_equal(found, np.asarray(result.labels))


def test_small_regions_can_be_left_out_and_regions_be_detections(noisy: Result) -> None:
    style = FeatureStyle("detection", Shapes(least_px=20))
    frame = ImagePixels.of(noisy.plan)
    text = "".join(feature_collection(Labelling(noisy, ("a", "b")), frame, {}, style))
    features = json.loads(text)["features"]
    shapes = [shapely.geometry.shape(f["geometry"]) for f in features]
    assert features
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    assert len(features) < len(exported(noisy)["features"])
    # a pixel is 2 by 2, and one at the image's last row and column a quarter of that
    assert min(shape.area for shape in shapes) >= 20


def test_a_frame_tells_areas_in_the_unit_of_the_pixel_size() -> None:
    size = PixelSize(2.0, 3.0, "m")
    frame = ImagePixels(1.5, (100, 100), size)
    assert frame.areas(-14) == {"Area px^2": 7, "Area m^2": 42}
    assert frame.place(np.array([[3, 1], [70, 70]])).tolist() == [[4.5, 1.5], [100, 100]]


def test_a_class_that_is_not_there_is_named_with_the_nearest() -> None:
    classes = ("background", "tumour", "stroma")
    assert chosen_classes(classes, ()) == ("tumour", "stroma")
    assert chosen_classes(classes, ("stroma", "background")) == ("background", "stroma")
    with pytest.raises(UsageError, match="no class 'tumor' in the result; did you mean 'tumour'"):
        chosen_classes(classes, ("tumor",))
