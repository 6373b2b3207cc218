"""Signals against their formulas, tile statistics against a loop over boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.saliency import (
    Column,
    needed_columns,
    score_tiles,
    tile_share,
    tile_spans,
    tile_statistic,
)
from saccade.pipeline.selectors import (
    AllTiles,
    Budget,
    Dilate,
    Foreground,
    Threshold,
    TopFraction,
    Uncertainty,
    Union,
)
from saccade.pipeline.signals import signal_map

COLUMNS = (
    Column("saliency", "max"),
    Column("saliency", "mean"),
    Column("saliency", "top"),
    Column("saliency", "share", 0.5),
    Column("entropy", "top"),
    Column("margin", "mean"),
    Column("tumour", "max"),
)
CLASSES = ("background", "tumour", "stroma")


def softmaxed(seed: int, classes: int, shape: tuple[int, int]) -> np.ndarray:
    raw = np.random.default_rng(seed).gamma(0.3, size=(classes, *shape)) + 1e-9
    return (raw / raw.sum(axis=0)).astype(np.float32)


# Signals


def test_saliency_is_the_models_own_where_it_gives_one() -> None:
    own = np.full((3, 5), 0.7, np.float32)
    assert (signal_map("saliency", softmaxed(1, 3, (3, 5)), CLASSES, own) == own).all()


def test_saliency_is_else_the_strongest_class_but_background() -> None:
    scores = softmaxed(2, 3, (3, 5))
    assert (signal_map("saliency", scores, CLASSES) == scores[1:].max(axis=0)).all()
    assert (signal_map("saliency", scores, ("a", "b", "c")) == scores.max(axis=0)).all()


@pytest.mark.parametrize("name", ["tumour", "background"])
def test_saliency_of_one_class_is_its_score(name: str) -> None:
    scores = softmaxed(3, 2, (3, 5))[:1]
    assert (signal_map("saliency", scores, (name,)) == scores[0]).all()


def test_a_class_is_a_signal() -> None:
    scores = softmaxed(4, 3, (3, 5))
    assert (signal_map("stroma", scores, CLASSES) == scores[2]).all()


@given(st.integers(0, 97), st.integers(1, 7))
def test_margin_and_entropy_follow_their_formulas(seed: int, classes: int) -> None:
    scores = softmaxed(seed, max(2, classes), (3, 5))[:classes]
    full = np.concatenate([scores, 1 - scores]) if classes == 1 else scores
    names = [str(i) for i in range(classes)]
    best = np.sort(full.astype(np.float64), axis=0)
    margin = 1 - (best[-1] - best[-2])
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(best > 0, -best * np.log(best), 0).sum(axis=0)
    np.testing.assert_allclose(signal_map("margin", scores, names), margin, atol=1e-6)
    entropy = surprise / math.log(len(full))
    np.testing.assert_allclose(signal_map("entropy", scores, names), entropy, atol=1e-5)


@pytest.mark.parametrize("signal", ["margin", "entropy"])
def test_uncertainty_is_0_where_sure_and_1_where_nothing_is_known(signal: str) -> None:
    one = np.array([[[0, 1, 0.5]]], np.float32)
    assert signal_map(signal, one, ("a",)).tolist() == [[0, 0, 1]]
    two = np.concatenate([one, 1 - one])
    assert signal_map(signal, two, ("a", "b")).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("signal", ["saliency", "margin", "entropy", "tumour"])
@pytest.mark.parametrize("classes", [("tumour",), ("tumour", "stroma")])
def test_what_was_not_computed_has_no_signal(signal: str, classes: tuple[str, ...]) -> None:
    found = signal_map(signal, np.full((len(classes), 1, 1), np.nan, np.float32), classes)
    assert found.dtype == np.float32
    assert np.isnan(found).all()


def test_an_unknown_signal_names_those_there_are() -> None:
    with pytest.raises(
        RecipeError, match=r"saliency, margin, entropy, doubt, tumour; found 'tumor'"
    ):
        signal_map("tumor", np.zeros((1, 1, 1), np.float32), ("tumour",))


# Spans


@st.composite
def planes(draw: st.DrawFn) -> tuple[Grid, float, tuple[int, int]]:
    """A grid, and a coarse plane of the same image, rounded either way."""
    shape = draw(st.integers(1, 211)), draw(st.integers(1, 211))
    ratio = draw(st.sampled_from([16.0, 4.0, 1.0, 0.5]) | st.floats(0.3, 37))
    rounding = draw(st.sampled_from([math.floor, math.ceil]))
    coarse = max(1, rounding(shape[0] / ratio)), max(1, rounding(shape[1] / ratio))
    return Grid(shape, draw(st.integers(1, 73))), ratio, coarse


@given(planes())
def test_every_tile_spans_coarse_pixels_inside_the_plane(
    case: tuple[Grid, float, tuple[int, int]],
) -> None:
    grid, ratio, coarse_shape = case
    for spans, length in zip(tile_spans(grid, ratio, coarse_shape), coarse_shape, strict=True):
        assert (spans[:, 0] >= 0).all()
        assert (spans[:, 1] > spans[:, 0]).all()
        assert (spans[:, 1] <= length).all()


@given(planes())
def test_tiles_together_span_the_whole_coarse_plane_they_lie_on(
    case: tuple[Grid, float, tuple[int, int]],
) -> None:
    grid, ratio, coarse_shape = case
    axes = zip(tile_spans(grid, ratio, coarse_shape), coarse_shape, grid.shape, strict=True)
    for spans, length, fine in axes:
        assert spans[0, 0] == 0
        assert spans[-1, 1] >= min(length, fine / ratio - 1e-5)
        assert (spans[1:, 0] <= spans[:-1, 1]).all()


@given(st.integers(1, 41), st.integers(1, 41), st.integers(1, 7), st.integers(1, 9))
def test_spans_of_whole_ratios_are_those_of_reduced_boxes(
    height: int, width: int, ratio: int, tile_px: int
) -> None:
    grid = Grid((height, width), tile_px)
    rows, columns = tile_spans(grid, float(ratio), (-(-height // ratio), -(-width // ratio)))
    for index, tile in enumerate(grid):
        row, column = grid.cell(index)
        expected = tile.reduce(ratio)
        assert rows[row].tolist() == [expected.y0, expected.y1]
        assert columns[column].tolist() == [expected.x0, expected.x1]


@pytest.mark.parametrize("error", [-1e-12, 1e-12])
def test_rounding_of_a_ratio_does_not_reach_into_the_next_pixel(error: float) -> None:
    rows, _ = tile_spans(Grid((2560, 2560), 256), 16 * (1 + error), (161, 161))
    assert rows[:3].tolist() == [[0, 16], [16, 32], [32, 48]]


# Statistics


def by_hand(pixels: np.ndarray, statistic: str) -> float:
    valid = np.sort(pixels[~np.isnan(pixels)].astype(np.float64))
    if not valid.size:
        return math.nan
    if statistic == "top":
        valid = valid[-math.ceil(valid.size * 2 / 100) :]
    return float(valid.max() if statistic == "max" else valid.mean())


@given(planes(), st.sampled_from(["mean", "max", "top"]), st.integers(0, 997), st.booleans())
def test_a_tile_statistic_is_that_of_its_own_pixels(
    case: tuple[Grid, float, tuple[int, int]], statistic: str, seed: int, holes: bool
) -> None:
    grid, ratio, coarse_shape = case
    generator = np.random.default_rng(seed)
    values = generator.random(coarse_shape, np.float32)
    if holes:
        values[generator.random(coarse_shape) < 0.3] = np.nan
    rows, columns = tile_spans(grid, ratio, coarse_shape)
    found = tile_statistic(values, rows, columns, statistic)  # type: ignore[arg-type]
    share = tile_share(values, rows, columns, 0.5)
    for index in range(0, len(grid), max(1, len(grid) // 23)):
        row, column = grid.cell(index)
        pixels = values[slice(*rows[row]), slice(*columns[column])]
        np.testing.assert_allclose(found[row, column], by_hand(pixels, statistic), rtol=1e-6)
        above = by_hand((pixels > 0.5) + 0 * pixels, "mean")
        np.testing.assert_allclose(share[row, column], above, rtol=1e-6)


@given(planes(), st.sampled_from(["mean", "max", "top"]))
def test_a_tile_scores_the_same_alone_and_among_others(
    case: tuple[Grid, float, tuple[int, int]], statistic: str
) -> None:
    grid, ratio, coarse_shape = case
    values = np.random.default_rng(7).random(coarse_shape, np.float32)
    rows, columns = tile_spans(grid, ratio, coarse_shape)
    together = tile_statistic(values, rows, columns, statistic)  # type: ignore[arg-type]
    for index in range(0, len(grid), max(1, len(grid) // 11)):
        row, column = grid.cell(index)
        span = rows[row : row + 1], columns[column : column + 1]
        alone = tile_statistic(values, *span, statistic)  # type: ignore[arg-type]
        assert alone[0, 0] == together[row, column]


def test_top_is_the_mean_of_the_highest_two_per_cent_rounded_up() -> None:
    values = np.arange(151, dtype=np.float32)[None] / 151
    whole = np.array([[0, 1]]), np.array([[0, 151]])
    expected = np.mean([147, 148, 149, 150]) / 151
    assert tile_statistic(values, *whole, "top")[0, 0] == pytest.approx(expected)


# Tables


def scored(case: tuple[Grid, float, tuple[int, int]], strip_px: int) -> dict[Column, np.ndarray]:
    grid, ratio, coarse_shape = case
    scores = softmaxed(5, 3, coarse_shape)

    def read_strip(box: Box) -> tuple[np.ndarray, None]:
        assert box.width == coarse_shape[1]
        return scores[(slice(None), *box.slices)], None

    table = score_tiles(COLUMNS, grid, ratio, coarse_shape, read_strip, CLASSES, strip_px=strip_px)
    return {column: table[column] for column in COLUMNS}


@given(planes(), st.integers(1, 5003))
def test_reading_in_strips_changes_no_number(
    case: tuple[Grid, float, tuple[int, int]], strip_px: int
) -> None:
    whole, strips = scored(case, 10**9), scored(case, strip_px)
    for column in COLUMNS:
        assert strips[column].shape == (len(case[0]),)
        assert strips[column].dtype == np.float32
        np.testing.assert_array_equal(strips[column], whole[column])


def test_a_strip_is_bounded_unless_one_row_of_tiles_is_larger() -> None:
    heights = []

    def read_strip(box: Box) -> tuple[np.ndarray, None]:
        heights.append(box.height)
        return np.zeros((1, *box.shape), np.float32), None

    arguments = Grid((704, 704), 64), 4.0, (176, 176), read_strip, ("a",)
    score_tiles(COLUMNS[:1], *arguments, strip_px=176 * 35)
    assert heights == [32, 32, 32, 32, 32, 16]
    heights.clear()
    score_tiles(COLUMNS[:1], *arguments, strip_px=1)
    assert heights == [16] * 11


def test_no_column_needs_no_reading() -> None:
    def read_strip(box: Box) -> tuple[np.ndarray, None]:
        raise AssertionError(f"nothing is needed, {box} was read")

    table = score_tiles((), Grid((5, 7), 3), 1.0, (5, 7), read_strip, ("a",))
    assert table.columns == {}


def test_a_tree_of_selectors_needs_each_column_once() -> None:
    fraction = TopFraction(fraction=0.3, within=Foreground(signal="tumour", above=0.7))
    unsure = Uncertainty(fraction=0.1, measure="entropy", statistic="mean")
    same = Threshold(at_least=0.5)
    tree = Union(of=(fraction, Dilate(of=unsure), AllTiles(), Budget(pixels=3, within=same)))
    assert needed_columns(tree) == (
        Column("saliency", "top"),
        Column("tumour", "share", 0.7),
        Column("entropy", "mean"),
    )
    assert needed_columns(AllTiles()) == ()


@pytest.mark.parametrize(("statistic", "above"), [("share", None), ("max", 0.5)])
def test_above_goes_with_share_and_nothing_else(statistic: str, above: float | None) -> None:
    with pytest.raises(ValueError, match="goes with the statistic 'share'"):
        Column("saliency", statistic, above)  # type: ignore[arg-type]


# Signals that are read on their own


def test_a_signal_that_is_read_on_its_own_wins_and_scores_are_read_only_where_needed() -> None:
    reads = []

    def read_strip(box: Box) -> tuple[np.ndarray, None]:
        reads.append(box)
        return np.full((1, *box.shape), 0.5, np.float32), None

    def doubt(box: Box) -> np.ndarray:
        return np.full(box.shape, 0.125, np.float32)

    arguments = Grid((64, 64), 16), 4.0, (16, 16), read_strip, ("a",)
    unsure, margin = Column("doubt", "mean"), Column("margin", "mean")
    own = score_tiles([unsure], *arguments, own={"doubt": doubt})
    assert (own[unsure] == 0.125).all()
    assert reads == []
    both = score_tiles([unsure, margin], *arguments, own={"doubt": doubt})
    assert (both[unsure] == 0.125).all()
    assert (both[margin] == 1).all()
    assert len(reads) == 1


def test_without_a_confidence_of_the_models_own_doubt_is_the_margin() -> None:
    scores = softmaxed(7, 3, (3, 5))
    margin = signal_map("margin", scores, CLASSES)
    assert (signal_map("doubt", scores, CLASSES) == margin).all()
