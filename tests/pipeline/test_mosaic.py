"""Many files on one grid as one image: every box of every level is what one file would give."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaics import RESOLUTION, ROW, cut_up, pyramid, write_tif

from saccade.pipeline.errors import SourceError, UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.identities import moved_on
from saccade.pipeline.sources.mosaic import MosaicSource
from saccade.pipeline.sources.mosaic_members import OpenFiles

NODATA = 0
OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def all_closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def rasters(data: Path) -> Path:
    return data / "rasters"


def opened(path: Path) -> Any:
    """A source that is closed when the test is over."""
    OPENED.append(open_source(path))
    return OPENED[-1]


def described(folder: Path, **members: Any) -> Path:
    path = folder / "all.mosaic.yaml"
    path.write_text(json.dumps({"mosaic": members}))
    return path


def whole(source: Any, level: int = 0) -> np.ndarray:
    pixels: np.ndarray = source.read(level, Box.of(source.levels[level].shape))
    return pixels


# ------------------------------------------------------------------------------- cut up, put back


@pytest.fixture(scope="module")
def cut(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[MosaicSource, list[np.ndarray]]]:
    """A raster in 5 x 4 files that overlap, some of them left out; and what it was, by level."""
    folder = tmp_path_factory.mktemp("cut")
    levels = cut_up(folder, rows=5, columns=4, overlap_px=16, holes={(1, 2), (4, 0)})
    with closing(open_source(described(folder, files="tile-*.tif"))) as source:
        assert isinstance(source, MosaicSource)
        yield source, levels


def test_a_mosaic_has_the_levels_that_all_files_have(
    cut: tuple[MosaicSource, list[np.ndarray]],
) -> None:
    source, levels = cut
    assert [level.downsample for level in source.levels] == [1, 2, 4]
    assert [level.shape for level in source.levels] == [one.shape[:2] for one in levels]
    assert source.nodata == NODATA
    assert source.georeference is not None
    assert source.georeference.affine is not None
    assert source.georeference.affine.to_tuple() == (RESOLUTION, 0, 500_000, 0, -RESOLUTION, ROW)


@settings(deadline=None)
@given(st.data())
def test_any_box_of_any_level_is_that_of_the_whole(
    cut: tuple[MosaicSource, list[np.ndarray]], data: st.DataObject
) -> None:
    source, levels = cut
    level = data.draw(st.integers(0, len(levels) - 1))
    height, width = levels[level].shape[:2]
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, x0, data.draw(st.integers(y0, height)), data.draw(st.integers(x0, width)))
    assert (source.read(level, box) == levels[level][box.slices]).all()


def test_only_files_that_a_box_touches_are_opened(
    cut: tuple[MosaicSource, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = cut
    used: list[int] = []
    use = OpenFiles.use

    def noted(files: OpenFiles, index: int) -> Any:
        used.append(index)
        return use(files, index)

    monkeypatch.setattr(OpenFiles, "use", noted)
    source.read(0, Box(0, 0, 5, 5))
    assert used == [0]


def test_files_that_nobody_reads_are_closed_beyond_a_number(
    cut: tuple[MosaicSource, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, levels = cut
    monkeypatch.setattr("saccade.pipeline.sources.mosaic_members.MOST_OPEN", 3)
    assert (whole(source) == levels[0]).all()
    held = source._open._held
    assert len(held) <= 3
    monkeypatch.setattr("saccade.pipeline.sources.mosaic_members.MOST_HELD_NBYTES", 0)
    source.read(0, Box(0, 0, 5, 5))
    assert not held


# ----------------------------------------------------------------------------------------- overlap


def overlapping(folder: Path, dtype: str = "uint16") -> list[np.ndarray]:
    """Three files of 8 x 8 over each other, each with a hole of its own."""
    made = []
    for index in range(3):
        pixels = np.full((8, 8, 2), 10 * (index + 1), dtype)
        pixels[index, index:] = NODATA
        write_tif(folder / f"{index}.tif", [pixels], nodata=NODATA)
        made.append(pixels)
    return made


@pytest.mark.parametrize(
    ("rule", "order"), [("first", (0, 1, 2)), ("last", (2, 1, 0)), ("newest", (1, 0, 2))]
)
def test_the_rule_says_who_wins_where_files_overlap(
    tmp_path: Path, rule: str, order: Sequence[int]
) -> None:
    made = overlapping(tmp_path)
    dates = ("2020-05-05", "2021-01-01", "2019-12-31")
    files = [{"file": f"{i}.tif", "date": date} for i, date in enumerate(dates)]
    expected = np.zeros_like(made[0])
    for index in reversed(order):
        expected = np.where(made[index] != NODATA, made[index], expected)
    with_rule = opened(described(tmp_path, files=files, overlap=rule))
    assert (whole(with_rule) == expected).all()


def test_the_mean_counts_files_that_have_data_and_rounds_half_to_even(tmp_path: Path) -> None:
    made = np.stack(overlapping(tmp_path)).astype(float)
    known = made != NODATA
    expected = np.rint(np.where(known, made, 0).sum(0) / np.maximum(known.sum(0), 1))
    source = opened(described(tmp_path, files="*.tif", overlap="mean"))
    assert (whole(source) == expected).all()


def test_what_a_mask_hides_is_seen_in_the_next_file_and_is_no_data_in_the_last(
    tmp_path: Path,
) -> None:
    rasterio = pytest.importorskip("rasterio")
    values, masks = (7, 9), np.full((2, 64, 64), 255, np.uint8)
    masks[0, :32], masks[1, 16:, 48:] = 0, 0
    for value, mask in zip(values, masks, strict=True):
        path = write_tif(tmp_path / f"{value}.tif", [np.full((64, 64, 1), value, np.uint8)])
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    seen, valid = opened(described(tmp_path, files=["7.tif", "9.tif"])).read_valid(
        0, Box(0, 0, 64, 64)
    )
    shown = masks > 0
    assert (valid[..., 0] == shown.any(axis=0)).all()
    assert (seen[..., 0][shown[0]] == 7).all()
    assert (seen[..., 0][shown[1] & ~shown[0]] == 9).all()


def test_newest_needs_dates(tmp_path: Path) -> None:
    overlapping(tmp_path)
    with pytest.raises(UnsupportedImage, match=r"newest needs the date of every file; 3 have none"):
        opened(described(tmp_path, files="*.tif", overlap="newest"))


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("rule", ["first", "last"])
def test_the_real_pair_is_what_rasterio_merges(rasters: Path, tmp_path: Path, rule: str) -> None:
    merge = pytest.importorskip("rasterio.merge").merge
    files = [str(rasters / f"mosaic_cog{n}.tif") for n in (1, 2)]
    source = opened(described(tmp_path, files=files, overlap=rule, tolerance=0.1))
    expected, affine = merge(files, method=rule)
    assert (whole(source) == np.moveaxis(expected, 0, -1)).all()
    assert source.georeference is not None
    assert source.georeference.affine is not None
    # the second file lies a part of a pixel off the first one's grid
    ours = np.array(source.georeference.affine.to_tuple())
    assert np.abs(ours - np.array(affine[:6])).max() < 0.1 * affine.a


# ----------------------------------------------------------------------------------------- refused


def test_a_file_off_the_grid_is_refused_with_its_name_and_by_how_much(
    rasters: Path, tmp_path: Path
) -> None:
    files = [str(rasters / f"mosaic_cog{n}.tif") for n in (1, 2)]
    with pytest.raises(UnsupportedImage, match=r"mosaic_cog2.*off by 0.0519 px") as caught:
        opened(described(tmp_path, files=files))
    assert "gdalwarp" in str(caught.value)
    assert "'tolerance: 0.06'" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"crs": "EPSG:32633"}, "EPSG:32632 as .*a.tif has; found EPSG:32633"),
        ({"resolution": 10.5}, "pixels of 10.5 x 10.5 instead of 10 x 10"),
        ({"east": 505.0}, "off by 0.5 px: "),
        ({"dtype": "uint8"}, "uint16 samples expected, as .*; found uint8"),
        ({"channels": 2}, "3 bands expected, as .*; found 2"),
        ({"crs": None}, "found no georeference"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    write_tif(tmp_path / "a.tif", [np.ones((8, 8, 3), np.uint16)], nodata=0)
    pixels = np.ones((8, 8, other.pop("channels", 3)), other.pop("dtype", "uint16"))
    write_tif(tmp_path / "b.tif", [pixels], nodata=0, **other)
    with pytest.raises(UnsupportedImage, match=said):
        opened(described(tmp_path, files=["a.tif", "b.tif"]))


def test_gaps_need_a_value_that_stands_for_no_data(tmp_path: Path) -> None:
    for name, east in (("a", 0.0), ("b", 100.0)):
        write_tif(tmp_path / f"{name}.tif", [np.ones((8, 8, 1), np.uint8)], east=east)
    with pytest.raises(UnsupportedImage, match="as in 'nodata: 0'"):
        opened(described(tmp_path, files="*.tif"))
    source = opened(described(tmp_path, files="*.tif", nodata=7))
    assert whole(source)[0, :, 0].tolist() == [1] * 8 + [7] * 2 + [1] * 8


def test_files_that_leave_nothing_out_need_none(tmp_path: Path) -> None:
    for name, east in (("a", 0.0), ("b", 80.0)):
        write_tif(tmp_path / f"{name}.tif", [np.zeros((8, 8, 1), np.uint8)], east=east)
    assert opened(described(tmp_path, files="*.tif")).nodata is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mosaic: {files: [gone-*.tif]}", "found none that match"),
        ("mosaic: {files: [gone.tif]}", "gone.tif: no such file"),
        ("mosaic: {fils: [a.tif]}", "files"),
        ("mosaic: {}", "either files or items"),
        ("[1]", "'mosaic' or 'stack'"),
        ("mosaic: {files: a, overlap: best}", "first"),
        ("mosaic: [", "not valid YAML"),
        ("mosaic: {files: [x.mosaic.yaml]}", "none in itself, expected"),
        ("mosaic: {items: deep.json}", "STAC items as JSON expected; maximum recursion"),
    ],
)
def test_a_wrong_description_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.mosaic.yaml").write_text(text)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(SourceError, match=said):
        opened(tmp_path / "x.mosaic.yaml")


def test_a_ring_of_descriptions_is_told_whatever_its_files_are_called(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.mosaic.yaml").write_text("mosaic: {files: [folder/../b.vrt]}")
    write_tif(tmp_path / "one.tif", [np.ones((8, 8, 1), np.uint8)])
    vrt = vrt_of([tmp_path / "one.tif"], tmp_path / "b.vrt", nodata=False)
    vrt.write_text(re.sub(">[^>]*one.tif<", ">folder/../a.mosaic.yaml<", vrt.read_text()))
    with pytest.raises(SourceError, match=r"b\.vrt > .*a\.mosaic\.yaml > .*b\.vrt"):
        opened(tmp_path / "a.mosaic.yaml")


def test_mosaics_of_mosaics_are_read_a_few_deep(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    write_tif(tmp_path / "0.tif", [pixels])
    below = "0.tif"
    for depth in range(1, 10):
        (tmp_path / f"{depth}.mosaic.yaml").write_text(f"mosaic: {{files: [{below}]}}")
        below = f"{depth}.mosaic.yaml"
    assert np.array_equal(whole(opened(tmp_path / "8.mosaic.yaml")), pixels)
    with pytest.raises(SourceError, match="8 deep at most"):
        opened(tmp_path / "9.mosaic.yaml")


def test_a_nodata_value_that_no_sample_can_have_is_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", [np.ones((8, 8, 1), np.uint8)])
    with pytest.raises(UnsupportedImage, match=r"that uint8 samples can have expected; found 300"):
        opened(described(tmp_path, files="a.tif", nodata=300))


# ---------------------------------------------------------------------------------------- identity


def test_a_file_that_changes_changes_the_mosaic(tmp_path: Path) -> None:
    overlapping(tmp_path)
    path = described(tmp_path, files="*.tif")
    then = opened(path).identity()
    assert opened(path).identity() == then
    assert not moved_on(then, str(path))
    write_tif(tmp_path / "1.tif", [np.full((8, 8, 2), 77, np.uint16)], nodata=NODATA)
    assert moved_on(then, str(path))
    assert opened(path).identity().quick_hash != then.quick_hash


# ------------------------------------------------------------------------------- stacks, STAC, VRT


def test_a_stack_has_the_bands_of_every_date_and_nodata_only_in_those_that_lack(
    tmp_path: Path,
) -> None:
    early, late = (np.full((8, 8, 2), value, np.uint16) for value in (3, 5))
    write_tif(tmp_path / "early.tif", [early], nodata=NODATA)
    write_tif(tmp_path / "late.tif", [late], nodata=NODATA, east=40.0)
    files = [
        {"file": "late.tif", "date": "2024-06-01"},
        {"file": "early.tif", "date": "2024-05-01"},
    ]
    (tmp_path / "s.mosaic.yaml").write_text(json.dumps({"stack": {"files": files}}))
    source = opened(tmp_path / "s.mosaic.yaml")
    names = [f"2024-0{month}-01:{band}" for month in (5, 6) for band in "01"]
    assert source.channel_names == tuple(names)
    pixels = whole(source)
    assert pixels[0, :, 0].tolist() == [3] * 8 + [NODATA] * 4
    assert pixels[0, :, 2].tolist() == [NODATA] * 4 + [5] * 8


def items(folder: Path) -> list[dict[str, Any]]:
    overlapping(folder)
    dates = ("2020-05-05T00:00:00Z", "2021-01-01T00:00:00Z", "2019-12-31T00:00:00Z")
    return [
        {
            "type": "Feature",
            "id": f"item-{i}",
            "properties": {"datetime": date},
            "assets": {"visual": {"href": f"{i}.tif"}, "meta": {"href": "x.xml"}},
        }
        for i, date in enumerate(dates)
    ]


@pytest.mark.parametrize("as_folder", [False, True])
def test_stac_items_make_a_mosaic_by_their_dates(tmp_path: Path, as_folder: bool) -> None:
    found = items(tmp_path)
    if as_folder:
        for item in found:
            (tmp_path / f"{item['id']}.json").write_text(json.dumps(item))
        (tmp_path / "collection.json").write_text('{"type": "Collection", "assets": {}}')
        place = "."
    else:
        place = "items.json"
        (tmp_path / place).write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    path = described(tmp_path, items=place, asset="visual", overlap="newest")
    expected = np.full((8, 8, 2), 20)
    expected[1, 1:] = 10
    assert (whole(opened(path)) == expected).all()
    with pytest.raises(SourceError, match=r"asset 'red' expected; found visual, meta"):
        opened(described(tmp_path, items=place, asset="red"))


@pytest.mark.parametrize("nodata", [True, False])
def test_a_vrt_that_places_files_is_read_as_gdal_reads_it(tmp_path: Path, nodata: bool) -> None:
    rasterio = pytest.importorskip("rasterio")
    cut_up(tmp_path, rows=3, columns=2, overlap_px=16, holes={(2, 1)}, nodata=nodata)
    path = vrt_of(sorted(tmp_path.glob("*.tif")), tmp_path / "all.vrt", nodata=nodata)
    source = opened(path)
    assert isinstance(source, MosaicSource)
    with rasterio.open(path) as other:
        assert (whole(source) == np.moveaxis(other.read(), 0, -1)).all()
        assert source.nodata == other.nodata
        assert source.georeference is not None
        assert source.georeference.affine is not None
        assert source.georeference.affine.to_tuple() == tuple(other.transform)[:6]
        assert str(source.georeference.crs) == str(other.crs)
    then = source.identity()
    assert not moved_on(then, str(path))
    (tmp_path / "tile-0-0.tif").touch()
    assert moved_on(then, str(path))


def vrt_of(files: Sequence[Path], path: Path, *, nodata: bool) -> Path:
    """As gdalbuildvrt writes it."""
    rasterio = pytest.importorskip("rasterio")
    opened = [rasterio.open(file) for file in files]
    west, north = min(d.bounds.left for d in opened), max(d.bounds.top for d in opened)
    east, south = max(d.bounds.right for d in opened), min(d.bounds.bottom for d in opened)
    bands = ""
    for band in opened[0].indexes:
        bands += f'<VRTRasterBand dataType="Byte" band="{band}">'
        bands += "<NoDataValue>0</NoDataValue>" if nodata else ""
        for file, d in zip(files, opened, strict=True):
            kind = "ComplexSource" if nodata else "SimpleSource"
            at = (d.bounds.left - west) / RESOLUTION, (north - d.bounds.top) / RESOLUTION
            size = f'xSize="{d.width}" ySize="{d.height}"'
            bands += (
                f'<{kind}><SourceFilename relativeToVRT="1">{file.name}</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>"
                f'<SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{at[0]:g}" yOff="{at[1]:g}" {size}/>'
                f"{'<NODATA>0</NODATA>' if nodata else ''}</{kind}>"
            )
        bands += "</VRTRasterBand>"
    width, height = (east - west) / RESOLUTION, (north - south) / RESOLUTION
    path.write_text(
        f'<VRTDataset rasterXSize="{width:g}" rasterYSize="{height:g}">'
        f"<SRS>{opened[0].crs.to_wkt()}</SRS>"
        f"<GeoTransform>{west}, {RESOLUTION}, 0.0, {north}, 0.0, {-RESOLUTION}</GeoTransform>"
        f"{bands}</VRTDataset>"
    )
    return path


def test_a_vrt_that_does_more_is_left_to_others(tmp_path: Path) -> None:
    from saccade.pipeline.sources.mosaic_vrt import open_plain_vrt

    write_tif(tmp_path / "a.tif", [np.ones((8, 8, 1), np.uint8)])
    path = vrt_of([tmp_path / "a.tif"], tmp_path / "a.vrt", nodata=False)
    plain = path.read_text()
    for more in ("<Scale>2</Scale>", "<MaskBand/>", "<PixelFunctionType>sum</PixelFunctionType>"):
        path.write_text(plain.replace("</VRTRasterBand>", f"{more}</VRTRasterBand>"))
        assert open_plain_vrt(path, open_source) is None
    path.write_text(plain.replace('<SrcRect xOff="0"', '<SrcRect xOff="0.5"'))
    assert open_plain_vrt(path, open_source) is None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (r'rasterXSize="\d+"', 'rasterXSize="wide"'),
        (r'rasterYSize="\d+"', 'rasterYSize="-7"'),
        (r"<GeoTransform>[^<]*<", "<GeoTransform>1, 2<"),
        (r"<GeoTransform>[^<]*<", "<GeoTransform>0,0,0,0,0,0<"),
        (r"<SourceBand>1<", "<SourceBand>0<"),
        (r"<SourceBand>1<", "<SourceBand>²<"),
        (r'<SrcRect xOff="0"', '<SrcRect xOff="left"'),
        (r"(<VRTRasterBand[^>]*>)", r"\1<NoDataValue>300</NoDataValue>"),
        (r"(<VRTRasterBand[^>]*>)", r"\1<NoDataValue>none</NoDataValue>"),
    ],
)
def test_a_vrt_whose_numbers_are_none_is_left_to_others(
    tmp_path: Path, good: str, bad: str
) -> None:
    from saccade.pipeline.sources.mosaic_vrt import open_plain_vrt

    write_tif(tmp_path / "a.tif", [np.ones((8, 8, 1), np.uint8)])
    path = vrt_of([tmp_path / "a.tif"], tmp_path / "a.vrt", nodata=False)
    text = path.read_text()
    assert open_plain_vrt(path, open_source) is not None
    path.write_text(re.sub(good, bad, text))
    assert path.read_text() != text
    assert open_plain_vrt(path, open_source) is None


def test_levels_that_do_not_fit_the_grid_are_left_out(tmp_path: Path) -> None:
    """A level whose pixels would be of two files' ground is not offered; level 0 always is."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    write_tif(tmp_path / "a.tif", pyramid(pixels, 2), nodata=0)
    write_tif(tmp_path / "b.tif", pyramid(pixels, 2), nodata=0, east=70.0)
    assert len(opened(described(tmp_path, files="*.tif")).levels) == 1
    write_tif(tmp_path / "b.tif", pyramid(pixels, 2), nodata=0, east=80.0)
    assert len(opened(described(tmp_path, files="*.tif")).levels) == 2
