"""Convolutions that take in what follows them, where nothing else reads what lies between."""

from __future__ import annotations

from collections.abc import Callable

import fake_models
import pytest
import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelForm, ModelSpec, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.fusing import ConvolutionReLU, fused
from saccade.pipeline.models.wrap import TorchModel

SPEC = ModelSpec(("a", "b"), activation="softmax")


def trained_norm(channels: int) -> nn.BatchNorm2d:
    """A normalisation that is far from doing nothing."""
    norm = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(channels)
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert values is not None
        values.copy_(torch.rand(channels, generator=generator) + 0.5)
    return norm


class Block(nn.Module):
    """Convolution, normalisation, ReLU, convolution; ``between`` says what the last is given."""

    def __init__(self, between: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(2027)
        self.first, self.norm = nn.Conv2d(3, 7, 3, padding=1), trained_norm(7)
        self.relu, self.last = nn.ReLU(), nn.Conv2d(7, 2, 1)
        self._between = between

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(x)
        normed = self.norm(raw)
        active = self.relu(normed)
        return self.last(active if self._between is None else self._between(raw, normed, active))


class Twice(Block):
    """The same ReLU after the normalisation and after a sum."""

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.norm(self.first(x)))
        return self.last(self.relu(active - 0.3))


def model_of(module: nn.Module, spec: ModelSpec = SPEC) -> TorchModel:
    return TorchModel(module.eval().requires_grad_(False), spec)


def views(side: int = 37) -> Views:
    return Views(torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(5)))


def kinds(model: TorchModel) -> list[type[nn.Module]]:
    return [type(layer) for layer in model.module.children()]


def test_a_fused_copy_answers_as_the_module_and_the_module_stays() -> None:
    model = model_of(Block())
    expected = model(views()).scores
    copy = fused(model)
    assert kinds(copy) == [ConvolutionReLU, nn.Identity, nn.Identity, nn.Conv2d]
    torch.testing.assert_close(copy(views()).scores, expected, rtol=0, atol=1e-5)
    assert kinds(model) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert torch.equal(model(views()).scores, expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_fused_form_may_be_of_any_arithmetic_and_memory_order(
    precision: str, channels_last: bool
) -> None:
    model = model_of(Block())
    form = ModelForm(precision, channels_last, fused=True)  # type: ignore[arg-type]
    found = in_form(model, form)(views()).scores
    assert (found - model(views()).scores).abs().max() < 0.01


@pytest.mark.parametrize(
    "between",
    [lambda raw, normed, active: active + raw, lambda raw, normed, active: active + normed],
)
def test_what_something_else_reads_is_not_taken_in(
    between: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    with pytest.raises(ModelContract, match="something else reads what lies between"):
        fused(model_of(Block(between)))


def test_a_relu_that_is_called_twice_stays_where_it_is() -> None:
    model = model_of(Twice())
    copy = fused(model)
    assert kinds(copy) == [nn.Conv2d, nn.Identity, nn.ReLU, nn.Conv2d]
    torch.testing.assert_close(copy(views()).scores, model(views()).scores, rtol=0, atol=1e-5)


def test_a_convolution_that_pads_with_something_else_keeps_its_relu() -> None:
    module = Block()
    module.first = nn.Conv2d(3, 7, 3, padding=1, padding_mode="reflect")
    assert kinds(fused(model_of(module))) == [nn.Conv2d, nn.Identity, nn.ReLU, nn.Conv2d]


def test_a_model_with_nothing_to_fuse_says_so() -> None:
    with pytest.raises(ModelContract, match="nothing to fuse"):
        fused(model_of(fake_models.ConvNet(), fake_models.ConvNet.saccade))
    with pytest.raises(ModelContract, match="only a torch module"):
        in_form(fake_models.echo(), ModelForm(fused=True))
