"""Pyramids read back by the libraries that others read them with: the same values everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr

from saccade.pipeline.exports.labelling import Labelling
from saccade.pipeline.exports.ome_tiff import write_ome_tiff
from saccade.pipeline.exports.ome_xml import NAMESPACE, ome_xml
from saccade.pipeline.exports.ome_zarr_v2 import write_ome_zarr
from saccade.pipeline.exports.rasters import Raster, labels_raster, scores_raster
from saccade.pipeline.exports.tiled_pyramid import level_shapes
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.resampling import halve_mean, halve_mode
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store import ImageStore

Make = Callable[[ImagePlan], ImageStore]
OME = {"ome": NAMESPACE}
HEIGHT, WIDTH = 1301, 1103


@pytest.fixture(params=["uint8", "float16"])
def result(
    request: pytest.FixtureRequest, results: Any, make_store: Make, tmp_path: Path
) -> Result:
    """Several tiles of 512 along each axis, cut off at both edges; a part was not answered."""
    only = results.layout("only", 0, (HEIGHT, WIDTH), 1, tile=256, chunk=512, shard=1024)
    plan = results.plan_of((only,), scores=request.param, pixel_size=PixelSize(0.5, 0.25, "um"))
    answers = results.random_answers(plan, 11, (1, 1, 1, 0))
    results.write_all(make_store(plan), answers)
    return open_result(tmp_path / "slide.ome.zarr")


def rasters(result: Result) -> dict[str, Raster]:
    labelling = Labelling(result, result.classes)
    return {"labels": labels_raster(labelling), "scores": scores_raster(labelling)}


def levels(result: Result, content: str) -> list[np.ndarray]:
    """The pyramid as it should be, computed on the whole image at once."""
    if content == "labels":
        first = np.asarray(result.labels)[None]
    else:
        stored = np.asarray(result.fused)
        first = stored if stored.dtype == np.uint8 else stored.astype(np.float32)
    found = [first]
    while max(found[-1].shape[1:]) > 512:
        halve = halve_mean if content == "scores" else lambda one: halve_mode(one[0])[None]
        found.append(halve(found[-1]))
    return found


def written(result: Result, content: str, path: Path) -> Path:
    raster = rasters(result)[content]
    channels = list(zip(raster.channels, raster.colours, strict=True))
    size = result.pixel_size
    described = ome_xml("a µ", raster.shape, raster.dtype, channels, size, {"state": "complete"})
    write_ome_tiff(path, raster, described, size)
    return path


@pytest.mark.parametrize("content", ["labels", "scores"])
def test_tifffile_reads_every_level_of_every_plane(
    result: Result, content: str, tmp_path: Path
) -> None:
    path = written(result, content, tmp_path / "x.ome.tif")
    expected = levels(result, content)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        series = file.series[0]
        assert len(series.levels) == len(expected) == len(level_shapes((HEIGHT, WIDTH)))
        for level, values in zip(series.levels, expected, strict=True):
            found = level.asarray().reshape(values.shape)
            np.testing.assert_array_equal(found, values)
        pages = [file.pages.get(index, validate=False).aspage() for index in range(len(values))]
        assert all(page.is_tiled for page in pages)
        assert all(len(page.subifds) == len(expected) - 1 for page in pages)


def test_our_own_reader_finds_levels_and_pixel_size(result: Result, tmp_path: Path) -> None:
    source = open_source(str(written(result, "labels", tmp_path / "x.ome.tif")))
    assert [level.shape for level in source.levels] == list(level_shapes((HEIGHT, WIDTH)))
    assert source.pixel_size == PixelSize(0.5, 0.25, "um")
    source.close()


def test_the_same_raster_gives_the_same_bytes_and_leaves_nothing_else(
    result: Result, tmp_path: Path
) -> None:
    one = written(result, "labels", tmp_path / "one.tif").read_bytes()
    assert one == written(result, "labels", tmp_path / "two.tif").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"one.tif", "two.tif", "slide.ome.zarr"}


def test_the_description_says_planes_sizes_and_what_it_was_made_from() -> None:
    size = PixelSize(0.5, 0.25, "um")
    channels = [("<tumour>", (255, 0, 1)), ("µ", (0, 0, 0))]
    text = ome_xml("slide & co", (13, 17), np.dtype(np.float32), channels, size, {"state": "x"})
    root = ElementTree.fromstring(text)
    (pixels,) = root.findall(".//ome:Pixels", OME)
    assert {key: pixels.get(f"Size{key}") for key in "XYZCT"} == {
        **{"X": "17", "Y": "13"},
        **{"Z": "1", "C": "2", "T": "1"},
    }
    assert pixels.get("Type") == "float"
    assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeYUnit")) == ("0.25", "µm")
    names = [one.get("Name") for one in pixels.findall("ome:Channel", OME)]
    assert names == ["<tumour>", "µ"]
    planes = [(one.get("FirstC"), one.get("IFD")) for one in pixels.findall("ome:TiffData", OME)]
    assert planes == [("0", "0"), ("1", "1")]
    colours = [int(one.get("Color") or 0) for one in pixels.findall("ome:Channel", OME)]
    assert [colour.to_bytes(4, "big", signed=True) for colour in colours] == [
        bytes((255, 0, 1, 255)),
        bytes((0, 0, 0, 255)),
    ]
    assert [(m.get("K"), m.text) for m in root.findall(".//ome:M", OME)] == [("state", "x")]
    order = [child.tag.rpartition("}")[2] for child in root]
    assert order == ["Image", "StructuredAnnotations"]  # as the schema has it


def zarr_04(result: Result, path: Path) -> Path:
    both = rasters(result)
    write_ome_zarr(path, result.plan, both["scores"], both["labels"], {"state": "complete"})
    return path


def test_zarr_reads_the_arrays_of_version_2(result: Result, tmp_path: Path) -> None:
    group = zarr.open_group(zarr_04(result, tmp_path / "x.ome.zarr"), mode="r", zarr_format=2)
    scores, labels = np.asarray(result.fused), np.asarray(result.labels)
    np.testing.assert_array_equal(group["0"][:], scores.astype(group["0"].dtype))
    np.testing.assert_array_equal(group["labels/classes/0"][:], labels)
    for level in range(1, len(result.plan.pyramid_shapes)):
        above = group[str(level - 1)][:], group[f"labels/classes/{level - 1}"][:]
        np.testing.assert_array_equal(group[str(level)][:], halve_mean(above[0]))
        np.testing.assert_array_equal(group[f"labels/classes/{level}"][:], halve_mode(above[1]))
    assert group["0"].shape[1:] == result.plan.shape


def test_the_metadata_is_valid_ome_zarr_0_4(result: Result, tmp_path: Path) -> None:
    v04 = pytest.importorskip("ome_zarr_models.v04")
    path = zarr_04(result, tmp_path / "x.ome.zarr")
    group = zarr.open_group(path, mode="r", zarr_format=2)
    image = v04.Image.from_zarr(group)
    assert image.attributes.multiscales[0].version == "0.4"
    assert [axis.name for axis in image.attributes.multiscales[0].axes] == ["c", "y", "x"]
    assert image.labels.attributes.labels == ["classes"]
    classes = v04.ImageLabel.from_zarr(group["labels/classes"])
    assert classes.attributes.image_label.version == "0.4"
    first = image.attributes.multiscales[0].datasets[0].coordinateTransformations[0]
    assert first.scale == [1.0, 0.5, 0.25]


def test_our_own_reader_opens_version_0_4(result: Result, tmp_path: Path) -> None:
    source = open_source(str(zarr_04(result, tmp_path / "x.ome.zarr")))
    assert source.levels[0].shape == (HEIGHT, WIDTH)
    assert source.pixel_size == PixelSize(0.5, 0.25, "um")
    source.close()


def test_an_unfinished_result_has_the_same_pyramid_as_its_composed_labels(
    three_passes: ImagePlan, results: Any, make_store: Make, tmp_path: Path
) -> None:
    results.write_pass(make_store(three_passes), 0, results.random_answers(three_passes, 5)[0])
    result = open_result(tmp_path / "slide.ome.zarr")
    path = written(result, "labels", tmp_path / "x.ome.tif")
    np.testing.assert_array_equal(tifffile.imread(path).squeeze(), np.asarray(result.labels))
