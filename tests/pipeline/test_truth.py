"""Truth: samples stand for classes, at any coarser grid, in any box."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.pipeline import truth as truth_module
from saccade.pipeline.errors import RecipeError, TruthError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.array import ArraySource
from saccade.pipeline.sources.plane import PlaneSpec, locate
from saccade.pipeline.truth import (
    PARTS,
    ClassTruth,
    Truth,
    TruthRecipe,
    load_truth,
    open_truth,
    read_split,
)

SHAPE = (103, 89)
BITS = TruthRecipe(path="x", classes={"one": ClassTruth(bit=1), "two": ClassTruth(bit=6)})
DOWNSAMPLES = [1.0, 2.0, 4.0, 1.5, 2.37, math.pi, 16.0, 12.9, 103.0]


def dots(shape: tuple[int, int] = SHAPE, share: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.where(rng.random(shape) < share, rng.integers(1, 16, shape), 0).astype(np.uint8)


def truth_of(samples: np.ndarray, recipe: TruthRecipe = BITS) -> Truth:
    return Truth(ArraySource(samples), recipe)


def grid(samples: np.ndarray, downsample: float) -> PlaneSpec:
    return locate(ArraySource(samples), downsample=downsample, tolerance=0)


def pooled_by_hand(mask: np.ndarray, downsample: float, shape: tuple[int, int]) -> np.ndarray:
    """Any set pixel of level 0 whose square shares area with the pixel of the grid."""
    out = np.zeros(shape, bool)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for i in range(shape[0]):
            for j in range(shape[1]):
                high = min(y + 1, (i + 1) * downsample) - max(y, i * downsample)
                wide = min(x + 1, (j + 1) * downsample) - max(x, j * downsample)
                out[i, j] |= high > 1e-6 and wide > 1e-6
    return out


@pytest.mark.parametrize("downsample", DOWNSAMPLES)
def test_max_pooling_is_exact_at_any_downsample_and_odd_sizes(downsample: float) -> None:
    samples = dots(share=0.004)
    plane = grid(samples, downsample)
    pooled = truth_of(samples).on(plane, Box.of(plane.shape))
    assert pooled.dtype == bool
    for mask, found in zip([samples & 1, samples & 6], pooled, strict=True):
        np.testing.assert_array_equal(found, pooled_by_hand(mask != 0, downsample, plane.shape))


@pytest.mark.parametrize("downsample", [1.0, 3.0, 2.37])
def test_the_mean_is_the_share_of_the_area(downsample: float) -> None:
    samples = dots(share=0.2)
    plane = grid(samples, downsample)
    shares = truth_of(samples).on(plane, Box.of(plane.shape), "mean")
    assert shares.dtype == np.float32
    i, j = 5, 3
    height = np.clip(
        np.minimum(np.arange(1, 104), (i + 1) * downsample)
        - np.maximum(np.arange(103), i * downsample),
        0,
        1,
    )
    width = np.clip(
        np.minimum(np.arange(1, 90), (j + 1) * downsample)
        - np.maximum(np.arange(89), j * downsample),
        0,
        1,
    )
    share = height @ ((samples & 1) != 0) @ width / downsample**2
    np.testing.assert_allclose(shares[0, i, j], share, rtol=1e-5, atol=1e-7)


@settings(max_examples=60)
@given(
    downsample=st.one_of(st.sampled_from(DOWNSAMPLES), st.floats(1, 20)),
    pool=st.sampled_from(["max", "mean"]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_pixel_does_not_depend_on_the_box_it_is_read_in(
    downsample: float, pool: truth_module.Pool, corners: tuple[float, ...]
) -> None:
    samples = dots(share=0.1)
    truth, plane = truth_of(samples), grid(samples, downsample)
    (y0, y1), (x0, x1) = (
        sorted(round(c * side) for c in corners[k : k + 2])
        for k, side in ((0, plane.shape[0]), (2, plane.shape[1]))
    )
    box = Box(y0, x0, y1, x1)
    whole = truth.on(plane, Box.of(plane.shape), pool)
    np.testing.assert_array_equal(truth.on(plane, box, pool), whole[:, *box.slices])


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_reading_in_pieces_changes_nothing(
    pool: truth_module.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = dots(share=0.1)
    truth, plane = truth_of(samples), grid(samples, 2.37)
    whole = truth.on(plane, Box.of(plane.shape), pool)
    monkeypatch.setattr(truth_module, "MAX_SAMPLES", 500)
    np.testing.assert_array_equal(truth.on(plane, Box.of(plane.shape), pool), whole)


def test_never_more_of_level_0_is_held_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = dots()
    truth, plane = truth_of(samples), grid(samples, 2.37)
    held: list[int] = []
    read = truth.read
    monkeypatch.setattr(truth, "read", lambda box: held.append(2 * box.area) or read(box))
    monkeypatch.setattr(truth_module, "MAX_SAMPLES", 700)
    truth.on(plane, Box.of(plane.shape))
    assert max(held) <= 700 < 2 * samples.size


def test_a_class_is_a_value_a_bit_or_above_a_number() -> None:
    samples = np.array([[0.0, 0.4], [0.6, np.nan]], np.float32)[:, :, None]
    assert ClassTruth(above=0.5).mask(samples).tolist() == [[False, False], [True, False]]
    whole = np.array([[[0, 7]], [[3, 5]]], np.uint16)
    assert ClassTruth(value=3).mask(whole).ravel().tolist() == [False, True]
    assert ClassTruth(bit=2, channel=1).mask(whole).ravel().tolist() == [True, False]


def test_truth_of_the_archive_is_found_by_name_beside_its_file(tmp_path: Path) -> None:
    samples = dots()
    (tmp_path / "masks").mkdir()
    Image.fromarray(samples).save(tmp_path / "masks" / "eye {7}_bits.png")
    file = tmp_path / "truth.yaml"
    file.write_text("path: masks/{name}_bits.png\nclasses: {red: {bit: 1}, rest: {value: 8}}")
    with open_truth(load_truth(file), "eye {7}") as truth:
        assert truth.classes == ("red", "rest")
        assert truth.shape == SHAPE
        masks = truth.read(Box(3, 5, 50, 61))
    part = samples[3:50, 5:61]
    np.testing.assert_array_equal(masks, np.stack([(part & 1) != 0, part == 8]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: a.png\nclasses: {red: {bit: 1, value: 3}}", "exactly one of value, bit, above"),
        ("path: a.png\nclasses: {red: {}}", "found none"),
        ("path: a.png\nclasses: {red: {bits: 1}}", "did you mean 'bit'"),
        ("path: a.png\nclass: {red: {bit: 1}}", "did you mean 'classes'"),
        ("- a", "a recipe is a mapping with 'path'"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_truth(tmp_path / "truth.yaml")


def test_truth_that_can_not_be_meant_is_refused() -> None:
    with pytest.raises(TruthError, match="channel 1, found 1"):
        truth_of(dots(), TruthRecipe(path="x", classes={"a": ClassTruth(value=1, channel=1)}))
    with pytest.raises(TruthError, match="bit of integer samples, found float32"):
        truth_of(dots().astype(np.float32))
    with pytest.raises(TruthError, match="must have its shape"):
        truth_of(dots()).check_over((103, 90), "eye")


def test_a_split_names_the_images_of_each_part(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    file.write_text("name,part,note\nb,train,\na,train,x\nc,test,\n")
    assert read_split(file) == {"train": ("b", "a"), "validation": (), "test": ("c",)}
    assert tuple(read_split(file)) == PARTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,part\na,train\na,test\n", "line 3: 'a' is named twice"),
        ("name,part\na,val\n", "line 2: a name and one of the parts"),
        ("image,part\na,test\n", "line 2: a name and one of the parts"),
    ],
)
def test_a_split_that_leaks_or_is_misspelt_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(TruthError, match=message):
        read_split(tmp_path / "split.csv")


def test_the_lesions_of_a_real_photograph_survive_at_every_resolution(data: Path) -> None:
    folder = data / "idrid"
    bits = {"microaneurysm": 1, "haemorrhage": 2, "hard exudate": 4, "soft exudate": 8}
    classes = {name: ClassTruth(bit=bit) for name, bit in bits.items()}
    recipe = TruthRecipe(path=str(folder / "{name}_bits.png"), classes=classes)
    samples = np.asarray(Image.open(folder / "IDRiD_55_bits.png"))
    with open_truth(recipe, "IDRiD_55") as truth:
        for downsample in (8.0, 6.3):
            plane = grid(samples, downsample)
            pooled = truth.on(plane, Box.of(plane.shape))
            ys, xs = np.nonzero(samples & 1)
            found = pooled[0][(ys / downsample).astype(int), (xs / downsample).astype(int)]
            assert found.all()
            assert pooled.any((1, 2)).tolist() == [bool((samples & b).any()) for b in bits.values()]
