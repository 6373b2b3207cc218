"""The generated slide: always the same, readable by others, and true to what it says of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.jobs.sample import SampleTruth, block_mean, truth_path, write_sample_slide
from saccade.jobs.sample_anatomy import sample_truth, spline, tissue_outline
from saccade.jobs.sample_stain import EOSIN, GLASS, HEMATOXYLIN, gland_places, stained
from saccade.pipeline.errors import StorageFull, UsageError
from saccade.pipeline.geometry import Box

SIDE_PX = 1536
SEED = 3
WHOLE = Box(0, 0, SIDE_PX, SIDE_PX)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.tiff"
    write_sample_slide(path, SIDE_PX, SEED)
    return path


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return stained(sample_truth(SIDE_PX, SEED), WHOLE)


def hematoxylin(pixels: np.ndarray) -> np.ndarray:
    """Amount of the stain per pixel: optical density, least squares over both stains."""
    light = -np.log10(np.maximum(pixels.astype(float), 1) / GLASS)
    return light @ np.linalg.pinv(np.array([HEMATOXYLIN, EOSIN]))[:, 0]


def test_the_same_seed_gives_the_same_bytes(slide: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tiff"
    write_sample_slide(again, SIDE_PX, SEED)
    assert again.read_bytes() == slide.read_bytes()
    assert truth_path(again).read_bytes() == truth_path(slide).read_bytes()


def test_another_seed_gives_another_slide(drawn: np.ndarray) -> None:
    other = stained(sample_truth(SIDE_PX, SEED + 1), WHOLE)
    assert (drawn != other).mean() > 0.5


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(-37, SIDE_PX - 41),
    st.integers(-37, SIDE_PX - 41),
    st.integers(41, 331),
    st.integers(41, 331),
)
def test_a_region_drawn_alone_is_the_same_region_of_the_whole(
    drawn: np.ndarray, y0: int, x0: int, height: int, width: int
) -> None:
    truth = sample_truth(SIDE_PX, SEED)
    box = Box(y0, x0, y0 + height, x0 + width)
    inside = box.clip(truth.shape)
    alone = stained(truth, box)[inside.relative_to(box).slices]
    assert np.array_equal(alone, drawn[inside.slices])


def test_a_gland_cut_by_a_border_is_the_same_on_both_sides() -> None:
    truth = sample_truth(16384, 0)
    y, x, _ = next(gland_places(Box(2048, 0, 6144, 16384), truth))
    whole = Box(int(y), int(x), int(y) + 1, int(x) + 1).grow(131)
    drawn = stained(truth, whole)
    assert hematoxylin(drawn).max() > 0.5
    for part in (Box(y0, x0, y0 + 131, x0 + 131) for y0 in (0, 127) for x0 in (0, 127)):
        alone = stained(truth, part.shift(whole.y0, whole.x0))
        assert np.array_equal(alone, drawn[part.slices])


def test_a_full_device_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1023))
    with pytest.raises(StorageFull, match=r"a\.tiff: expected 524,288 bytes free, found 1,023"):
        write_sample_slide(tmp_path / "a.tiff", 1024)
    assert not list(tmp_path.iterdir())


def test_openslide_and_tifffile_read_what_was_drawn(slide: Path, drawn: np.ndarray) -> None:
    with openslide.OpenSlide(slide) as opened:
        seen = np.asarray(opened.read_region((0, 0), 0, (SIDE_PX, SIDE_PX)).convert("RGB"))
    stored = tifffile.imread(slide, key=0)
    assert np.array_equal(seen, stored)
    error = np.abs(stored.astype(int) - drawn)
    assert error.mean() < 3
    assert np.abs(stored.mean(axis=(0, 1)) - drawn.mean(axis=(0, 1))).max() < 0.5


def test_both_readers_find_the_levels_and_half_a_micrometre(slide: Path) -> None:
    sides = [SIDE_PX, SIDE_PX // 4]
    with openslide.OpenSlide(slide) as opened:
        assert opened.level_dimensions == tuple((side, side) for side in sides)
        properties = opened.properties
        assert float(properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.5)
        assert float(properties[openslide.PROPERTY_NAME_MPP_Y]) == pytest.approx(0.5)
    with tifffile.TiffFile(slide) as opened:
        assert [level.shape for level in opened.series[0].levels] == [(s, s, 3) for s in sides]
        assert [page.is_reduced for page in opened.pages] == [False, True]
        coarse = opened.pages[1].tags["XResolution"].value
        assert 1e4 * coarse[1] / coarse[0] == pytest.approx(2.0)


def test_a_coarser_level_is_the_block_means_of_the_one_below(
    slide: Path, drawn: np.ndarray
) -> None:
    stored = tifffile.imread(slide, key=1).astype(int)
    error = np.abs(stored - block_mean(drawn))
    assert error.mean() < 3
    assert np.abs(stored.mean(axis=(0, 1)) - drawn.mean(axis=(0, 1))).max() < 0.5


def test_block_means_are_rounded_means_of_whole_blocks() -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    blocks = pixels[:20, :28].reshape(5, 4, 7, 4, 3).mean(axis=(1, 3))
    assert np.array_equal(block_mean(pixels), np.floor(blocks + 0.5).astype(np.uint8))


def test_the_truth_survives_its_file(slide: Path) -> None:
    assert SampleTruth.read(truth_path(slide)) == sample_truth(SIDE_PX, SEED)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shape": 5}', '{"shape": [1, 2]}'])
def test_a_file_that_is_no_truth_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"other\.json: expected the truth"):
        SampleTruth.read(path)


@pytest.mark.parametrize("side_px", [0, -512, 512, 1000, 1025])
def test_a_side_that_cannot_be_drawn_is_refused_before_anything_is_written(
    tmp_path: Path, side_px: int
) -> None:
    with pytest.raises(UsageError, match=f"multiple of 512, at least 1024; found {side_px}"):
        write_sample_slide(tmp_path / "a.tiff", side_px)
    assert not list(tmp_path.iterdir())


def test_nothing_but_slide_and_truth_is_left(slide: Path) -> None:
    assert {path.name for path in slide.parent.iterdir()} == {"sample.tiff", "sample.truth.json"}


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("side_px", [1024, SIDE_PX, 16384])
def test_nests_exist_and_lie_inside_tissue(side_px: int, seed: int) -> None:
    truth = sample_truth(side_px, seed)
    factor = side_px // 256
    every = Box(0, 0, 256, 256)
    nests, tissue = truth.nest_mask(every, factor), truth.tissue_mask(every, factor)
    assert len(truth.nests) >= 2
    assert nests.any()
    assert not (nests & ~tissue).any()
    assert 0.19 < truth.tissue_share < 0.25
    assert abs(tissue.mean() - truth.tissue_share) < 0.01
    assert nests.mean() < 0.3 * tissue.mean()


def test_nests_are_denser_in_hematoxylin_than_other_tissue(drawn: np.ndarray) -> None:
    truth = sample_truth(SIDE_PX, SEED)
    nests, tissue = truth.nest_mask(WHOLE), truth.tissue_mask(WHOLE)
    stain = hematoxylin(drawn)
    assert stain[nests].mean() > 2 * stain[tissue & ~nests].mean()
    assert stain[tissue].mean() > 5 * stain[~tissue].mean()


@pytest.mark.parametrize("downsample", [3, 16])
def test_a_coarse_mask_is_the_fine_one_at_its_pixel_centres(downsample: int) -> None:
    truth = sample_truth(SIDE_PX, SEED)
    box = Box(5, 7, SIDE_PX // downsample - 11, SIDE_PX // downsample - 13)
    for mask in (truth.tissue_mask, truth.nest_mask):
        fine, centre = mask(WHOLE), (downsample - 1) // 2
        rows = slice(box.y0 * downsample + centre, box.y1 * downsample + centre, downsample)
        columns = slice(box.x0 * downsample + centre, box.x1 * downsample + centre, downsample)
        assert (mask(box, downsample) != fine[rows, columns]).mean() < 0.004


def test_tissue_is_coloured_and_glass_is_not(drawn: np.ndarray) -> None:
    tissue = sample_truth(SIDE_PX, SEED).tissue_mask(WHOLE)
    red, green, blue = (drawn[:, :, channel][tissue].mean() for channel in range(3))
    assert red > blue > green
    glass = drawn[~tissue]
    assert glass.min() >= 241
    assert glass.max() <= 245


@given(st.integers(0, 5), st.integers(0, 1000))
def test_a_bound_of_the_outline_is_never_below_it(seed: int, corner: int) -> None:
    outline = tissue_outline(SIDE_PX, seed)
    box = Box(corner, corner // 3, corner + 97, corner // 3 + 61)
    ys = np.arange(box.y0, box.y1, dtype=np.float32)
    xs = np.arange(box.x0, box.x1, dtype=np.float32)
    assert outline.at(ys, xs).max() <= outline.highest(box) + 1e-5


def test_a_spline_over_equal_values_is_that_value() -> None:
    lattice = np.full((11, 13), 0.7, np.float32)
    rows, columns = np.linspace(1, 8, 29), np.linspace(2, 9, 31)
    out = spline(lattice, (0, 0), rows.astype(np.float32), columns.astype(np.float32))
    assert np.allclose(out, 0.7, atol=1e-6)


def test_a_spline_over_a_ramp_is_that_ramp() -> None:
    lattice = np.arange(11, dtype=np.float32)[:, None] * 3 + np.arange(13, dtype=np.float32) * 5
    rows, columns = np.linspace(1, 8, 29), np.linspace(2, 9, 31)
    out = spline(lattice, (0, 0), rows.astype(np.float32), columns.astype(np.float32))
    assert np.allclose(out, rows[:, None] * 3 + columns * 5, atol=1e-4)
