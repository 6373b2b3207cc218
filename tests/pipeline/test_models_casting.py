"""Models in another arithmetic."""

from __future__ import annotations

import fake_models
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.base import ModelForm, ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.casting import Autocast, in_form
from saccade.pipeline.models.declaring import Redeclared
from saccade.pipeline.models.wrap import TorchModel


class Mixed(nn.Module):
    """Makes a float32 tensor of its own, which a convolution in another type refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.linspace(0, 1, x.shape[-1])).sigmoid()


class Uncopied(Mixed):
    def __deepcopy__(self, memo: object) -> Uncopied:
        raise TypeError("cannot pickle a handle")


def conv_net(**spec: object) -> TorchModel:
    torch.manual_seed(2027)
    module = fake_models.ConvNet().eval().requires_grad_(False)
    return TorchModel(module, fake_models.ConvNet.saccade)


def pixels(side: int = 37) -> Views:
    return Views(torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(5)))


def test_float32_as_loaded_is_the_very_model() -> None:
    for model in (conv_net(), fake_models.echo()):
        assert in_form(model, ModelForm("float32")) is model


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_are_converted_once_and_the_original_stays(channels_last: bool) -> None:
    model = conv_net()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    converted = in_form(model, ModelForm("bfloat16", channels_last))
    assert isinstance(converted, TorchModel)
    assert {p.dtype for p in converted.module.parameters()} == {torch.bfloat16}
    last = converted.module.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == channels_last
    for key, value in model.module.state_dict().items():
        assert value.dtype == torch.float32
        assert value.is_contiguous()
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_converted_answers_are_float32_and_near_the_original() -> None:
    model = conv_net()
    expected = model(pixels()).scores
    found = in_form(model, ModelForm("bfloat16"))(pixels()).scores
    assert found.dtype == torch.float32
    gap = (found - expected).abs().mean()
    assert 0 < gap < 0.002


def test_weights_with_channels_last_change_no_more_than_rounding() -> None:
    model = conv_net()
    laid = in_form(model, ModelForm("float32", True))
    assert laid is not model
    torch.testing.assert_close(laid(pixels()).scores, model(pixels()).scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("module", [Mixed, Uncopied])
def test_a_module_that_can_t_be_converted_runs_under_autocast(module: type[nn.Module]) -> None:
    model = TorchModel(module().eval().requires_grad_(False), ModelSpec(("it",)))
    converted = in_form(model, ModelForm("bfloat16"))
    assert isinstance(converted, Autocast)
    gap = (converted(pixels()).scores.float() - model(pixels()).scores).abs().max()
    assert gap < 0.01
    assert in_form(model, ModelForm("float32")) is model


def test_a_model_that_is_no_bare_module_runs_under_autocast() -> None:
    seen: list[torch.dtype] = []

    def answer(views: Views) -> Prediction:
        seen.append(functional.conv2d(views.pixels, torch.ones(1, 3, 1, 1)).dtype)
        return Prediction(views.pixels[:, :1])

    model = fake_models.Answering(ModelSpec(("it",)), answer)
    in_form(model, ModelForm("bfloat16"))(pixels())
    in_form(model, ModelForm("float32", True))(pixels())
    assert seen == [torch.bfloat16, torch.float32]


def test_another_declaration_stays_around_a_converted_model() -> None:
    spec = fake_models.ConvNet.saccade.with_(classes=("c", "d"))
    model: PassModel = Redeclared(conv_net(), spec)
    converted = in_form(model, ModelForm("bfloat16"))
    assert isinstance(converted, Redeclared)
    assert converted.spec is spec
    assert isinstance(converted.model, TorchModel)
    assert in_form(model, ModelForm("float32")) is model


def test_guidance_and_context_reach_a_converted_module_in_its_own_type() -> None:
    seen: list[torch.dtype] = []

    class Guided(nn.Module):
        def forward(self, x: Tensor, guidance: Tensor, context: tuple[Tensor, ...]) -> Tensor:
            seen.extend([x.dtype, guidance.dtype, context[0].dtype])
            return x[:, :1]

    spec = ModelSpec(("it",), guidance=True, context=(2.0,))
    converted = in_form(TorchModel(Guided(), spec), ModelForm("bfloat16"))
    seen.clear()
    views = pixels()
    converted(Views(views.pixels, None, views.pixels[:, :1], (views.pixels,)))
    assert seen == [torch.bfloat16] * 3
