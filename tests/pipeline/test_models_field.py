"""Field of view and local contrast: on made-up eyes, and on a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from saccade.pipeline.models.base import Views
from saccade.pipeline.models.builtin import builtin_model
from saccade.pipeline.models.filters import box_mean

SHAPE = (120, 160)


def scores(name: str, pixels: Tensor, valid: Tensor | None = None, **options: object) -> Tensor:
    return builtin_model(name, options)(Views(pixels, valid)).scores


def disc() -> Tensor:
    """``(1, 1, H, W)`` bool: a round field, cut off above and below."""
    y, x = torch.meshgrid(torch.arange(SHAPE[0]), torch.arange(SHAPE[1]), indexing="ij")
    return (((y - 59.5) ** 2 + (x - 79.5) ** 2).sqrt() < 66)[None, None]


def eye(black: float = 5 / 255) -> Tensor:
    """A red retina with the noise of a camera, in black that is not quite black."""
    generator = torch.Generator().manual_seed(3)
    red = torch.tensor([0.7, 0.35, 0.15]).view(1, 3, 1, 1).expand(1, 3, *SHAPE)
    dark = torch.rand((1, 3, *SHAPE), generator=generator) * black
    noise = (torch.rand((1, 3, *SHAPE), generator=generator) - 0.5) * 0.02
    return torch.where(disc(), red + noise, dark)


def well_inside(field: Tensor, margin_px: int = 9) -> Tensor:
    return box_mean(field.float(), margin_px) > 0.999


def well_outside(field: Tensor, margin_px: int = 9) -> Tensor:
    return box_mean(field.float(), margin_px) < 0.001


def test_the_field_is_the_lit_part_and_dark_spots_inside_belong_to_it() -> None:
    pixels = eye()
    pixels[..., 60:63, 80:83] = 0.01
    found = scores("field", pixels)
    assert found[well_inside(disc())].min() == 1
    assert found[well_outside(disc())].max() == 0
    speck = torch.zeros(1, 3, *SHAPE)
    speck[..., 10, 10] = 1
    assert scores("field", speck).max() == 0


@pytest.mark.parametrize("frame", [0.0, 0.5, 1.0])
def test_a_frame_of_one_colour_is_not_part_of_the_field(frame: float) -> None:
    pixels = torch.where(disc(), eye(), torch.tensor(frame))
    found = scores("field", pixels)
    assert found[well_outside(disc())].max() == 0
    assert found[well_inside(disc())].min() == 1


def test_flat_ground_counts_where_that_is_wanted() -> None:
    flat = torch.full((1, 1, 40, 40), 0.5)
    assert scores("field", flat).max() == 0
    assert scores("field", flat, flat=0).min() == 1


@pytest.mark.parametrize("name", ["contrast", "field"])
def test_ground_without_data_scores_nothing_and_spreads_nothing(name: str) -> None:
    pixels, valid = eye(), torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    whole = scores(name, pixels)
    valid[..., :50] = False
    pixels[..., :50] = float("nan")
    found = scores(name, pixels, valid)
    assert torch.isfinite(found).all()
    assert found[..., :50].max() == 0
    torch.testing.assert_close(found[..., 70:], whole[..., 70:])


def test_a_spot_stands_out_whether_it_is_darker_or_brighter_and_the_field_does_not() -> None:
    pixels = eye()
    pixels[..., 50:54, 60:64] *= 0.6
    pixels[..., 70:74, 90:94] *= 1.4
    found = scores("contrast", pixels)
    found = found.clone()
    spots = [found[..., 51:53, 61:63].min(), found[..., 71:73, 91:93].min()]
    found[..., 40:84, 50:104] = 0
    assert min(spots) > 3 * found.max()
    assert found[~disc()].max() == 0


def test_contrast_does_not_depend_on_how_bright_the_light_is() -> None:
    pixels = eye(black=0)
    pixels[..., 50:54, 60:64] *= 0.6
    bright, dim = scores("contrast", pixels), scores("contrast", pixels * 0.5)
    inside = well_inside(disc())
    torch.testing.assert_close(bright[inside], dim[inside], atol=0.03, rtol=0.1)


def photograph(data: Path, name: str, downsample: int) -> Tensor:
    small = Image.open(data / "idrid" / f"{name}.jpg").reduce(downsample)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["IDRiD_01", "IDRiD_55"])
@pytest.mark.parametrize("downsample", [4, 16])
def test_the_field_of_a_real_photograph_is_found(data: Path, name: str, downsample: int) -> None:
    pixels = photograph(data, name, downsample)
    bright = pixels.amax(1, keepdim=True) > 0.15
    found = scores("field", pixels)
    margin_px = 2 * 3 + 1
    assert (found[well_inside(bright, margin_px)] > 0.5).float().mean() > 0.9999
    assert (found[well_outside(bright, margin_px)] > 0).float().mean() < 0.001


def test_black_that_a_camera_did_not_leave_quite_black_is_tissue_but_no_field(data: Path) -> None:
    pixels = photograph(data, "IDRiD_01", 16)
    outside = well_outside(pixels.amax(1, keepdim=True) > 0.15)
    assert scores("tissue", pixels)[outside].mean() > 0.5
    assert scores("field", pixels)[outside].max() == 0


def test_lesions_of_a_real_photograph_stand_out(data: Path) -> None:
    pixels = photograph(data, "IDRiD_55", 16)
    bits = np.array(Image.open(data / "idrid" / "IDRiD_55_bits.png")) & 15
    lesion = torch.from_numpy(bits > 0)[None, None].float()
    share = torch.nn.functional.avg_pool2d(lesion, 16)
    found = scores("contrast", pixels)[..., : share.shape[2], : share.shape[3]]
    field = scores("field", pixels)[..., : share.shape[2], : share.shape[3]] > 0.5
    assert found[share > 0.5].mean() > 1.5 * found[field].mean()
