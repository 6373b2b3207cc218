"""Convolutions that take in what follows: normalisation into the weights, ReLU into the call.

Which layers follow each other is seen in a forward pass on noise, and that the fused copy answers
as the module did is checked on the same noise. Changes last bits; knows no pass and no image.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.adopting import answers_noise
from saccade.pipeline.models.base import PassModel
from saccade.pipeline.models.wrap import TorchModel

SLACK = 1e-4
"""A fused module may differ from the module by this share of its largest answer, in float32."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Layers by name, each called once and with what the one before it gave."""

    convolution: str
    """A ``Conv2d``."""
    norm: str = ""
    """The ``BatchNorm2d`` after it; empty where there is none."""
    relu: str = ""
    """The ``ReLU`` after those; empty where there is none that can be taken in."""


class ConvolutionReLU(nn.Module):
    """A convolution and a ReLU in one kernel of the CPU: the answer is written once, not twice."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """What the two layers give after each other."""
        one = self.convolution
        sizes = (one.padding, one.stride, one.dilation, one.groups)
        call = torch.ops.mkldnn._convolution_pointwise
        answer: Tensor = call(x, one.weight, one.bias, *sizes, "relu", [], "")
        return answer


def fused(model: PassModel, device: str = "cpu") -> TorchModel:
    """A copy whose convolutions take in the layers that follow them; the one given stays as it is.

    Args:
        model: as loaded, in float32, on ``device``.
        device: as torch names it.

    Raises:
        ModelContract: there is nothing to fuse, or the copy would answer differently.
    """
    if not isinstance(model, TorchModel) or model.dtype is not torch.float32:
        raise ModelContract("only a torch module in float32 can be fused")
    expected = answers_noise(model, device).scores
    chains = tuple(_chains(model, device))
    if not chains:
        raise ModelContract(
            "no convolution is followed by a batch normalisation or a ReLU of its own; there is "
            "nothing to fuse"
        )
    made = TorchModel(_rewritten(model.module, chains), model.spec, per_tile=model.per_tile)
    _check_alike(answers_noise(made, device).scores, expected)
    return made


def _check_alike(found: Tensor, expected: Tensor) -> None:
    most = float((found - expected).abs().max())
    if not most <= SLACK * max(1.0, float(expected.abs().max())):
        raise ModelContract(
            f"fused layers give the answer of the module; it differs by {most:.2g}: something else "
            "reads what lies between a convolution and the layers after it"
        )


# ------------------------------------------------------------------------- what follows what


@dataclass
class Calls:
    """Layers as they were called: what each was given and gave, in order."""

    given: dict[str, list[Tensor]] = field(default_factory=dict)
    gave: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, args: tuple[Any, ...], answer: Any) -> None:
        """Keep one call; tensors stay alive, so that no two are taken for one."""
        self.given.setdefault(name, []).append(args[0])
        self.gave.setdefault(name, []).append(answer)

    def follow(self, name: str, others: Mapping[str, nn.Module]) -> str:
        """The one of the others that is given what this one gave, each called once; or nothing."""
        if len(self.gave.get(name, [])) != 1:
            return ""
        (answer,) = self.gave[name]
        called = (other for other in others if len(self.given.get(other, [])) == 1)
        return next((other for other in called if self.given[other][0] is answer), "")


def _chains(model: TorchModel, device: str) -> Iterator[Chain]:
    """Convolutions in a copy of the module, with what may be taken into each."""
    calls = _called(model, device)
    convolutions, norms, relus = (
        _layers(model.module, kind) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    )
    for name, one in convolutions.items():
        norm = calls.follow(name, norms)
        kernel = _has_kernel(one, device)
        relu = calls.follow(norm or name, relus) if kernel else ""
        if norm or relu:
            yield Chain(name, norm, relu)


def _called(model: TorchModel, device: str) -> Calls:
    calls = Calls()
    module = copy.deepcopy(model.module)
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU):
        for name, layer in _layers(module, kind).items():
            layer.register_forward_hook(
                lambda _, args, answer, name=name: calls.add(name, args, answer)
            )
    answers_noise(TorchModel(module, model.spec, per_tile=model.per_tile), device)
    return calls


def _layers(module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    return {name: layer for name, layer in module.named_modules() if type(layer) is kind}


def _has_kernel(one: nn.Conv2d, device: str) -> bool:
    """Whether the CPU has a kernel for this convolution and a ReLU together."""
    plain = one.padding_mode == "zeros" and not isinstance(one.padding, str)
    return plain and device == "cpu" and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


# ----------------------------------------------------------------------------------- the copy


def _rewritten(module: nn.Module, chains: tuple[Chain, ...]) -> nn.Module:
    module = copy.deepcopy(module)
    for chain in chains:
        layer = module.get_submodule(chain.convolution)
        assert isinstance(layer, nn.Conv2d)
        if chain.norm:
            norm = module.get_submodule(chain.norm)
            assert isinstance(norm, nn.BatchNorm2d)
            layer = fuse_conv_bn_eval(layer, norm)
        _put(module, chain.convolution, ConvolutionReLU(layer) if chain.relu else layer)
        for taken_in in filter(None, (chain.norm, chain.relu)):
            _put(module, taken_in, nn.Identity())
    return module


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)
