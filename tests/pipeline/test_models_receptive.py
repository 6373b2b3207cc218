"""Measured receptive fields and multiples against closed forms, gradients and whole images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.alignment import measure_multiple
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.models.receptive import ReceptiveField, halo_is_exact, measure_halo


def spec(stride: int = 1, multiple: int = 1) -> ModelSpec:
    return ModelSpec(("a",), stride=stride, multiple=multiple)


def convolutions(count: int, kernel: int = 3, dilation: int = 1, stride: int = 1) -> nn.Module:
    torch.manual_seed(3)
    pad = kernel // 2 * dilation
    layer = [nn.Conv2d(3, 3, kernel, stride, pad, dilation), nn.BatchNorm2d(3), nn.ReLU()]
    layers = [module for _ in range(count) for module in layer]
    return nn.Sequential(*layers).eval()


class UNet(nn.Module):
    """Three levels; one 3x3 convolution on each, down and up."""

    def __init__(self, pool: type[nn.Module], positive: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.pool = pool(2)
        self.down = nn.ModuleList(nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4, 4))
        self.up = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(3))
        if positive:
            for weight in self.parameters():
                weight.data.abs_()

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for convolution in self.down:
            x = convolution(self.pool(x) if skips else x).relu()
            skips.append(x)
        for skip, convolution in zip(skips[-2::-1], self.up, strict=True):
            x = convolution(torch.cat([interpolate(x, scale_factor=2), skip], 1)).relu()
        return x


class Over(nn.Module):
    """A module and a function of its input."""

    def __init__(self, inner: nn.Module, before: object) -> None:
        super().__init__()
        self.inner, self.before = inner, before

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.before(x))  # type: ignore[operator]


def radius_by_gradient(model: nn.Module, side: int, multiple: int) -> int:
    """Largest distance from one cell of output pixels to an input pixel with a gradient."""
    centre, reach = side // 2 // multiple * multiple, 0
    for offset in range(multiple):
        pixels = torch.rand((1, 3, side, side), requires_grad=True)
        o = centre + offset
        model(pixels)[0, :, o, o].sum().backward()
        assert pixels.grad is not None
        touched = pixels.grad[0].abs().sum(0).nonzero()
        before, after = centre - touched.min(), touched.max() - (centre + multiple - 1)
        reach = max(reach, int(before), int(after))
    return reach


@pytest.mark.parametrize("count", [0, 1, 2, 5, 7])
def test_stacked_convolutions_see_one_pixel_per_layer(count: int) -> None:
    model = convolutions(count) if count else nn.Identity()
    assert measure_halo(model, spec()) == ReceptiveField(count, True)


@pytest.mark.parametrize(("kernel", "dilation", "count"), [(5, 1, 3), (3, 7, 2), (3, 2, 11)])
def test_dilated_and_wide_kernels_see_as_far_as_they_reach(
    kernel: int, dilation: int, count: int
) -> None:
    expected = kernel // 2 * dilation * count
    model = convolutions(count, kernel, dilation)
    assert measure_halo(model, spec()).halo_px == expected


@pytest.mark.parametrize(("count", "kernel", "reach"), [(1, 5, 2), (2, 5, 6), (3, 3, 7)])
def test_strided_convolutions_double_their_reach_with_each_layer(
    count: int, kernel: int, reach: int
) -> None:
    stride = 2**count
    field = measure_halo(convolutions(count, kernel, stride=2), spec(stride, stride))
    assert field == ReceptiveField(-(-reach // stride) * stride, True)


def test_a_field_wider_than_the_first_window_makes_the_window_grow() -> None:
    model = convolutions(5, dilation=31)
    assert measure_halo(model, spec()) == ReceptiveField(155, True)


@pytest.mark.parametrize("multiple", [8, 16])
def test_a_u_net_sees_as_far_as_its_gradient_reaches(multiple: int) -> None:
    model = UNet(nn.AvgPool2d, positive=True).eval()
    reach = radius_by_gradient(model, 160, multiple)
    expected = -(-reach // multiple) * multiple
    assert measure_halo(model, spec(multiple=multiple)) == ReceptiveField(expected, True)


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_the_measured_halo_makes_a_window_agree_with_the_whole(pool: type[nn.Module]) -> None:
    model = UNet(pool).eval()
    halo = measure_halo(model, spec(multiple=8)).halo_px
    image = torch.rand((1, 3, 256, 256), generator=torch.Generator().manual_seed(19))

    def gap(margin: int) -> float:
        core = slice(112, 136)
        window = slice(core.start - margin, core.stop + margin)
        part = model(image[..., window, window])[..., margin : margin + 24, margin : margin + 24]
        return float((part - model(image)[..., core, core]).abs().max())

    with torch.inference_mode():
        assert gap(halo) < 1e-6
        assert gap(halo // 2 // 8 * 8) > 1e-5


@pytest.mark.parametrize(
    "model",
    [
        nn.InstanceNorm2d(3),
        Over(nn.Identity(), lambda x: x * x.mean((2, 3), keepdim=True)),
        Over(nn.Identity(), lambda x: torch.softmax(x.flatten(2), 2).view_as(x)),
    ],
    ids=["instance norm", "squeeze and excite", "attention"],
)
def test_a_model_that_sees_its_whole_window_is_not_local(model: nn.Module) -> None:
    field = measure_halo(model.eval(), spec(), windows_px=(128, 256))
    assert field == ReceptiveField(128, False)
    assert not halo_is_exact(model, spec(), 41)


def test_a_field_wider_than_the_largest_window_is_not_local() -> None:
    model = convolutions(5, dilation=31)
    assert not measure_halo(model, spec(), windows_px=(256,)).local


def test_a_model_that_hides_nan_is_measured_with_large_numbers() -> None:
    model = Over(convolutions(7), torch.nan_to_num)
    assert measure_halo(model, spec()) == ReceptiveField(7, True)


def test_a_branch_that_hides_nan_does_not_hide_its_field() -> None:
    wide = convolutions(3, kernel=7)
    model = Over(nn.Identity(), lambda x: x + wide(torch.nan_to_num(x)))
    assert measure_halo(model, spec()) == ReceptiveField(9, True)


def test_a_stated_halo_is_exact_from_the_measured_one_on() -> None:
    model = convolutions(5)
    assert [halo_is_exact(model, spec(), halo) for halo in (3, 4, 5, 6)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_model_of_nan_is_refused() -> None:
    with pytest.raises(ModelContract, match="finite"):
        measure_halo(lambda x: x * float("nan"), spec())


@pytest.mark.parametrize(
    ("model", "stride", "expected"),
    [
        (convolutions(3), 1, 1),
        (UNet(nn.MaxPool2d).eval(), 1, 8),
        (convolutions(2, stride=2), 4, 4),
        (nn.Sequential(nn.MaxPool2d(2), convolutions(1), nn.Upsample(scale_factor=2)), 1, 2),
    ],
    ids=["no grid", "u-net", "strided", "one pool"],
)
def test_the_multiple_is_the_period_of_pooling_and_striding(
    model: nn.Module, stride: int, expected: int
) -> None:
    with torch.inference_mode():
        assert measure_multiple(model, stride, 3) == expected


def test_a_multiple_that_does_not_exist_is_asked_for() -> None:
    with torch.inference_mode(), pytest.raises(ModelContract, match="state 'multiple'"):
        measure_multiple(lambda x: x.cumsum(2), 1, 3)
