"""The whole way from pixels to the stored result, against references that know none of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask.array as da
import fake_models
import numpy as np
import pytest
import torch
from fakes import FakeSource, Lab, coordinates, noise, one_pass, pass_of, several_passes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from saccade.pipeline.geometry import Box, round_up
from saccade.pipeline.layout import PassLayout
from saccade.workers.device import Predictor

SEAM_TOLERANCE = 1e-6
in_one_lab = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None
)


def seeded(module: type[nn.Module], folder: Path) -> tuple[nn.Module, str]:
    """A module with weights of its own making, and the file that holds them."""
    torch.manual_seed(2027)
    made = module().eval()
    path = folder / f"{module.__name__}.safetensors"
    save_file(made.state_dict(), path)
    return made, str(path)


def forward(module: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """``(C, H, W)`` probabilities of one forward pass over all of an image ``(H, W, C)``."""
    spec = module.saccade
    height, width = pixels.shape[:2]
    rows, columns = (round_up(side, spec.multiple) - side for side in (height, width))
    padded = np.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge")
    x = torch.from_numpy(padded.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        raw = module(x)
    scores = raw.softmax(1) if spec.activation == "softmax" else raw.sigmoid()
    return scores[0, :, :height, :width].numpy()


def tiles_in(height: int, width: int, tile: int) -> int:
    return math.ceil(height / tile) * math.ceil(width / tile)


# --------------------------------------------------------------------------------- constant arrays


@in_one_lab
@given(
    height=st.sampled_from([1, 2, 17, 61, 97]),
    width=st.sampled_from([1, 3, 31, 67, 113]),
    fit=st.sampled_from([(1, 1, 0), (1, 8, 8), (4, 4, 12), (2, 6, 5), (8, 32, 3)]),
    blend=st.sampled_from(["crop", "hann"]),
    scores=st.sampled_from(["uint8", "float16", "float32"]),
    batch=st.sampled_from(["auto", 3]),
)
def test_a_constant_model_gives_a_constant_array_bit_for_bit(
    lab: Lab,
    height: int,
    width: int,
    fit: tuple[int, int, int],
    blend: str,
    scores: str,
    batch: Any,
) -> None:
    stride, multiple, halo = fit
    options = {"value": 0.7, "stride": stride, "multiple": multiple, "halo": halo}
    tile = round_up(16, math.lcm(stride, multiple))
    details = {"tile": tile, "blend": blend, "batch": batch, "options": options}
    result = lab.run(one_pass("constant", scores, **details), noise(height, width))
    expected = np.float32(0.7).astype(scores) if scores != "uint8" else np.uint8(round(0.7 * 255))
    assert result.fused.shape == (1, math.ceil(height / stride), math.ceil(width / stride))
    for level in result.levels:
        assert (np.asarray(level) == expected).all()
    for level in result.label_levels:
        assert (np.asarray(level) == 1).all()
    assert (result.coverage == 1).all()
    assert (result.status == 1).all()


@pytest.mark.parametrize("fuse", ["finest", "mean", "mean_logit", "max"])
def test_constant_models_that_agree_give_a_constant_array_whatever_is_refined(
    lab: Lab, fuse: str
) -> None:
    chosen = {"by": "top_fraction", "fraction": 0.3, "signal": "it"}
    passes = [
        pass_of("glance", "constant", 8, tile=16),
        pass_of("focus", "constant", 3, tile=16, select=chosen),
        pass_of("refine", "constant", 1, tile=32, select=chosen),
    ]
    fused = lab.fused(several_passes(passes, fuse=fuse), noise(211, 307))
    assert (fused == np.float32(0.7)).all()


# ---------------------------------------------------------------------- one forward pass over all


@pytest.mark.parametrize(
    ("name", "shape"),
    [("ConvNet", (89, 127)), ("ConvNet", (3, 131)), ("UNet", (136, 192)), ("UNet", (131, 157))],
)
@pytest.mark.parametrize("tiling", [{"tile": 24}, {"tile": 16, "window": 48, "batch": 3}])
def test_halo_crop_agrees_with_one_forward_pass_over_the_whole_image(
    lab: Lab, tmp_path: Path, name: str, shape: tuple[int, int], tiling: dict[str, int]
) -> None:
    module, weights = seeded(getattr(fake_models, name), tmp_path)
    image = noise(*shape)
    result = lab.run(one_pass(name, weights=weights, **tiling), image)
    assert result.plan.last.window_tiles > 0, "the image must not go through in one window"
    whole = forward(module, image)
    assert np.abs(np.asarray(result.fused) - whole).max() < SEAM_TOLERANCE
    assert np.ptp(whole) > 0.01


def test_a_halo_that_is_too_small_shows_at_the_seams(lab: Lab, tmp_path: Path) -> None:
    module, weights = seeded(fake_models.ConvNet, tmp_path)
    image = noise(89, 127)
    fused = lab.fused(one_pass("ConvNet", weights=weights, tile=24, window=24, halo=0), image)
    error = np.abs(fused - forward(module, image)).max(axis=0)
    assert error.max() > 1e-4
    assert error[4:20, 4:20].max() < SEAM_TOLERANCE


def test_a_glance_in_one_window_is_one_forward_pass(lab: Lab, tmp_path: Path) -> None:
    module, weights = seeded(fake_models.UNet, tmp_path)
    image = noise(101, 67)
    result = lab.run(one_pass("UNet", weights=weights), image)
    assert result.plan.last.window_tiles == 0
    # Memory order and threads of the reference differ: its last bits may.
    assert np.abs(np.asarray(result.fused) - forward(module, image)).max() < SEAM_TOLERANCE


@pytest.mark.parametrize("scores", ["uint8", "float32"])
def test_tile_window_and_batch_size_do_not_change_the_answer_of_a_local_model(
    lab: Lab, tmp_path: Path, scores: str
) -> None:
    _, weights = seeded(fake_models.ConvNet, tmp_path)
    image = noise(173, 139)
    ways: list[dict[str, int]] = [
        {"tile": 16, "window": 16, "batch": 1},
        {"tile": 16, "window": 64, "batch": 5},
        {"tile": 40, "window": 40, "batch": 7},
        {"tile": 64, "window": 128, "batch": 2},
        {"tile": 256},
    ]
    first, *others = (
        lab.fused(one_pass("ConvNet", scores, weights=weights, **way), image) for way in ways
    )
    for other in others:
        difference = np.abs(other.astype(np.float64) - first.astype(np.float64)).max()
        assert difference <= (0 if scores == "uint8" else SEAM_TOLERANCE)


# ------------------------------------------------------------------------------ dask as reference


def overlapped(module: nn.Module, image: np.ndarray, chunk: int) -> np.ndarray:
    """The same model by dask: chunks with a halo, which is trimmed."""
    halo = module.saccade.halo_px

    def block(pixels: np.ndarray) -> np.ndarray:
        return np.moveaxis(forward(module, pixels), 0, -1)

    chunked = da.from_array(image, chunks=(chunk, chunk, 3))
    scores = da.map_overlap(
        block,
        chunked,
        depth={0: halo, 1: halo, 2: 0},
        boundary="none",
        dtype=np.float32,
        chunks=(*chunked.chunks[:2], (2,)),
        meta=np.empty((0, 0, 0), np.float32),
    )
    return np.moveaxis(scores.compute(scheduler="synchronous"), -1, 0)


def test_a_dense_pass_equals_dask_map_overlap(lab: Lab, tmp_path: Path) -> None:
    module, weights = seeded(fake_models.ConvNet, tmp_path)
    image = noise(151, 109)
    fused = lab.fused(one_pass("ConvNet", weights=weights, tile=32, window=64), image)
    np.testing.assert_allclose(fused, overlapped(module, image, 50), atol=SEAM_TOLERANCE, rtol=0)


def test_two_passes_equal_coarse_upsampled_with_fine_put_where_selected(
    lab: Lab, tmp_path: Path
) -> None:
    module, weights = seeded(fake_models.ConvNet, tmp_path)
    ratio, tile, share = 4, 16, 0.3
    image = noise(23 * ratio, 29 * ratio)
    # Something to find, so that tiles differ by more than noise.
    image[:40, :60] //= 3
    glance = pass_of("glance", "ConvNet", ratio, weights=weights, tile=8)
    chosen = {"by": "top_fraction", "fraction": share, "signal": "a", "statistic": "mean"}
    refine = pass_of("refine", "ConvNet", 1, weights=weights, tile=tile, select=chosen)
    result = lab.run(several_passes([glance, refine]), image)

    means = da.coarsen(np.mean, da.from_array(image), {0: ratio, 1: ratio}).compute()
    coarse = overlapped(module, np.rint(means).astype(np.uint8), 13)
    upsampled = functional.interpolate(
        torch.from_numpy(coarse)[None], scale_factor=ratio, mode="bilinear", align_corners=False
    )[0].numpy()
    side = tile // ratio
    score = [
        coarse[0, y : y + side, x : x + side].mean()
        for y in range(0, coarse.shape[1], side)
        for x in range(0, coarse.shape[2], side)
    ]
    best = np.argsort(score)[::-1][: math.ceil(share * len(score))]
    fine = overlapped(module, image, 50)
    where = np.zeros(len(score), bool)
    where[best] = True
    rows = math.ceil(image.shape[0] / tile)
    mask = np.kron(where.reshape(rows, -1), np.ones((tile, tile), bool))
    mask = mask[: image.shape[0], : image.shape[1]]
    reference = np.where(mask, fine, upsampled)

    np.testing.assert_array_equal(result.coverage.ravel() == 2, where)
    np.testing.assert_allclose(np.asarray(result.fused), reference, atol=SEAM_TOLERANCE, rtol=0)


# ---------------------------------------------------------------------- what else a model is shown


def test_guidance_is_the_previous_scores_upsampled(lab: Lab) -> None:
    ratio = 4
    image = noise(19 * ratio, 31 * ratio, 2)
    glance = pass_of("glance", "echo", ratio, tile=8, options={"classes": 2})
    guided = pass_of("guided", "echo_guidance", 1, tile=16, guidance=True, options={"classes": 2})
    fused = lab.fused(several_passes([glance, guided]), image)
    means = image.reshape(19, ratio, 31, ratio, 2).mean(axis=(1, 3))
    coarse = torch.from_numpy(np.rint(means) / 255).permute(2, 0, 1)[None]
    expected = functional.interpolate(coarse, scale_factor=ratio, mode="bilinear")[0]
    np.testing.assert_allclose(fused, expected, atol=SEAM_TOLERANCE, rtol=0)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("way", [{"tile": 16}, {"tile": 32, "halo": 16, "batch": 3}])
def test_context_views_have_the_window_s_centre_shape_and_a_coarser_scale(
    lab: Lab, factor: int, way: dict[str, int]
) -> None:
    options = {"factors": [3.0, float(factor)], "which": 1}
    result = lab.run(one_pass("echo_context", options=options, **way), coordinates(96, 160))
    fused = np.asarray(result.fused)
    layout = result.plan.last
    for tile in layout.tiles:
        read = read_of(layout, tile)
        y = seen_through(tile.y0, tile.y1, (read.y0 + read.y1) / 2, factor, 96)
        x = seen_through(tile.x0, tile.x1, (read.x0 + read.x1) / 2, factor, 160)
        found_y, found_x = fused[(slice(None), *tile.slices)]
        np.testing.assert_allclose(found_y, np.broadcast_to(y[:, None], tile.shape), atol=1e-3)
        np.testing.assert_allclose(found_x, np.broadcast_to(x, tile.shape), atol=1e-3)


def seen_through(start: int, stop: int, centre: float, factor: int, length: int) -> np.ndarray:
    """Coordinates that a wider view shows at a tile's pixels; its edge pixels are repeated."""
    wide = centre + (np.arange(start, stop) + 0.5 - centre) * factor
    return np.clip(wide, factor / 2, length - factor / 2)


def read_of(layout: PassLayout, tile: Box) -> Box:
    """Where a window of one tile is read, by the rule in words: at the edges it moves inwards."""
    size = layout.tile_px + 2 * layout.halo_px
    spans = []
    for start, length in ((tile.y0, layout.plane.shape[0]), (tile.x0, layout.plane.shape[1])):
        first = max(0, min(start - layout.halo_px, length - size))
        spans.append((first, first + min(size, length)))
    (y0, y1), (x0, x1) = spans
    return Box(y0, x0, y1, x1)


# ---------------------------------------------------------------------------- kinds of model, pixel


@pytest.mark.parametrize("tile", [32, 96])
def test_a_tile_classifier_answers_once_per_tile_of_its_stride(lab: Lab, tile: int) -> None:
    stride = 32
    image = noise(211, 269)
    recipe = one_pass("TileClassifier", options={"stride": stride}, tile=tile, window=2 * tile)
    fused = lab.fused(recipe, image)
    padded = np.pad(image, ((0, 13), (0, 19), (0, 0)), mode="edge").astype(np.float64) / 255
    means = padded.reshape(7, stride, 9, stride, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(fused, np.moveaxis(means[..., :2], -1, 0), atol=SEAM_TOLERANCE)


def test_samples_of_many_channels_and_sixteen_bits_arrive_unchanged(lab: Lab) -> None:
    image = noise(59, 83, 5, "uint16")
    fused = lab.fused(one_pass("echo", options={"classes": 5}, tile=16), image)
    expected = image.astype(np.float32) / np.float32(65535)
    np.testing.assert_array_equal(fused, np.moveaxis(expected, -1, 0))


def test_a_grey_image_without_channel_axis_is_one_channel(lab: Lab) -> None:
    image = noise(37, 53, 1)
    fused = lab.fused(one_pass("echo", tile=16), image[:, :, 0])
    np.testing.assert_array_equal(fused[0], image[..., 0] / np.float32(255))


def test_a_model_is_told_where_the_image_has_no_data(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.maximum(noise(61, 79), 1)
    image[10:30, 20:47] = 0
    image[50, 50, 0] = 0  # one channel only: still data
    told: list[int] = []
    answer = Predictor._answer

    def listening(predictor: Predictor, views: Any) -> Any:
        told.append(0 if views.valid is None else int((~views.valid).sum()))
        return answer(predictor, views)

    monkeypatch.setattr(Predictor, "_answer", listening)
    details = {"tile": 16, "window": 16, "blend": "crop"}
    fused = lab.fused(one_pass("echo_valid", **details), FakeSource(image, nodata=0))
    expected = np.ones((61, 79), np.float32)
    expected[10:30, 20:47] = np.nan
    np.testing.assert_array_equal(fused[0], expected)
    assert sum(told) == 20 * 27 - _in_whole_tiles(np.isnan(expected), 16)


def _in_whole_tiles(absent: np.ndarray, tile: int) -> int:
    """Pixels of tiles that are absent altogether, which no model is asked about."""
    rows, columns = absent.shape[0] // tile, absent.shape[1] // tile
    cut = absent[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile)
    return int(cut.all(axis=(1, 3)).sum()) * tile * tile


@pytest.mark.parametrize("nodata", [None, float("nan"), -9999.0])
def test_not_a_number_is_no_data_and_spoils_no_score(
    lab: Lab, tmp_path: Path, nodata: float | None
) -> None:
    _, weights = seeded(fake_models.ConvNet, tmp_path)
    image = noise(61, 79, 3, "float32")
    image[10:30, 20:47] = np.nan
    source = FakeSource(image, nodata=nodata)
    known = ~np.isnan(image[..., 0])
    for recipe in (one_pass("echo_valid", tile=16), one_pass("ConvNet", weights=weights, tile=16)):
        np.testing.assert_array_equal(np.isfinite(lab.fused(recipe, source)[0]), known)


def test_a_model_s_own_saliency_is_stored_and_selected_by(lab: Lab) -> None:
    image = noise(96, 128)
    image[..., 1] = 0
    image[32:64, 64:96, 1] = 255
    glance = pass_of("glance", "with_saliency", 4, tile=8)
    chosen = {"by": "threshold", "at_least": 0.5}
    refine = pass_of("refine", "echo", 1, tile=32, select=chosen)
    result = lab.run(several_passes([glance, refine]), image)
    assert [int(i) for i in np.flatnonzero(result.coverage.ravel() == 2)] == [6]
    saliency = result.passes["glance"].saliency
    assert saliency is not None
    np.testing.assert_array_equal(np.asarray(saliency), image[::4, ::4, 1])
