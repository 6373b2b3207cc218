"""What a pass asks of a model, and what a model answers.

Methods differ in what they see and say; the engine does not. It builds ``Views`` for a batch of
windows, calls the model, and crops, blends and stores the ``Prediction``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["none", "sigmoid", "softmax"]
Arithmetic = Literal["float32", "bfloat16", "float16"]
ScaleUnit = Literal["none", "um", "downsample"]
SaliencyChoice = Literal["own", "confidence", "attention"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model declares about itself."""

    classes: tuple[str, ...]
    """Name of each score channel, in order; at least one."""
    halo_px: int = 0
    """Context that makes a window's answer exact, in input pixels (receptive-field radius)."""
    stride: int = 1
    """Input pixels per output pixel, along each axis."""
    multiple: int = 1
    """Input heights, widths and origins are multiples of this (and of ``stride``)."""
    channels: int | None = 3
    """Input channels; None takes any number."""
    activation: Activation = "none"
    """Applied to a wrapped module's raw output; 'none' when it already gives probabilities."""
    mean: tuple[float, ...] | None = None
    """Subtracted per channel after scaling to [0, 1]; None subtracts nothing."""
    std: tuple[float, ...] | None = None
    """Divided by per channel after the mean; None divides by nothing."""
    scale: float | None = None
    """Samples are divided by this first; None takes the dtype's maximum, or 1 for floats."""
    guidance: bool = False
    """Whether the model takes the previous pass's scores."""
    context: tuple[float, ...] = ()
    """Extra fields of view: each as many times coarser (and wider) than the window, all above 1."""
    saliency: bool = False
    """Whether it gives a saliency of its own, to be stored and selected by."""
    confidence: bool = False
    """Whether it gives a confidence of its own, to be stored and gone by."""
    local: bool = True
    """Whether ``halo_px`` of context makes the answer exact; False for global attention."""
    pixel_size: ScaleUnit = "none"
    """What the model is told of its pixels' size: micrometres, or pixels of the image's finest
    level per pixel; 'none' tells it nothing."""
    features: tuple[int, int] | None = None
    """Channels of the encoder features it gives, and input pixels per feature along each axis."""
    takes_features: int = 0
    """Channels of the previous pass's features that it takes; they come at the stride of its own
    ``features``."""

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes are distinct and at least one; found {self.classes}")
        if self.halo_px < 0 or self.stride < 1 or self.multiple < 1:
            raise ValueError(f"halo >= 0, stride >= 1 and multiple >= 1 expected; found {self}")
        if any(factor <= 1 for factor in self.context):
            raise ValueError(f"context factors are above 1; found {self.context}")
        if self.features is not None and min(self.features) < 1:
            raise ValueError(f"features have channels and a stride; found {self.features}")
        if self.takes_features and self.features is None:
            raise ValueError(
                "a model that takes features gives some, too, and takes them at the same stride; "
                "found takes_features without features"
            )

    def with_(self, **changes: Any) -> ModelSpec:
        """This declaration with some fields replaced; None values keep what is declared."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True, slots=True)
class ModelForm:
    """In what form a model computes; the default is as it was loaded."""

    precision: Arithmetic = "float32"
    """Arithmetic of the model; scores are float32 in any case."""
    channels_last: bool = False
    """Whether its weights lie in memory with their channels last, as pixels do."""
    fused: bool = False
    """Whether its convolutions take in the normalisation and the ReLU that follow them."""


AS_LOADED = ModelForm()
"""The form that converts nothing."""


@dataclass(frozen=True, slots=True)
class Views:
    """What a model sees: one batch of windows of one shape, on the model's device."""

    pixels: Tensor
    """``(N, C, H, W)`` float, samples divided by the declared scale (so [0, 1] for integers), or
    normalised as the recipe says; where there is no data the band's mean, unless it says 'keep'."""
    valid: Tensor | None = None
    """``(N, 1, H, W)`` bool, False where the image has no data; None when all is valid."""
    guidance: Tensor | None = None
    """``(N, K, H, W)`` float in [0, 1]: the previous pass's scores, upsampled."""
    context: tuple[Tensor, ...] = ()
    """Per declared factor, ``(N, C, H, W)``: same centre, that many times coarser pixels."""
    pixel_size_um: float | None = None
    """Size of a pixel of ``pixels``, in micrometres, where known."""
    downsample: float | None = None
    """Pixels of the image's finest level per pixel of ``pixels``, where known."""
    features: Tensor | None = None
    """``(N, F, H / s, W / s)`` float: the previous pass's features on the model's own grid of
    stride s; 0 where that pass did not answer."""
    pixel_sizes: Tensor | None = None
    """``(N,)`` float, in the unit that the model wants, where the windows of a batch differ."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about a batch of windows. ``h = H / stride``, ``w = W / stride``."""

    scores: Tensor
    """``(N, classes, h, w)`` float in [0, 1]."""
    saliency: Tensor | None = None
    """``(N, 1, h, w)`` float in [0, 1]: expected gain of looking closer."""
    confidence: Tensor | None = None
    """``(N, 1, h, w)`` float in [0, 1]."""
    features: Tensor | None = None
    """``(N, F, H / s, W / s)``: encoder features that a later pass may reuse."""
    attention: Tensor | None = None
    """``(N, heads, tokens, tokens)``, or ``(N, layers, heads, tokens, tokens)`` with the first
    layer first: rows sum to one."""


@runtime_checkable
class PassModel(Protocol):
    """A model as a pass runs it."""

    spec: ModelSpec
    """What it declares."""

    def __call__(self, views: Views) -> Prediction:
        """Answer for one batch; no gradient, no side effect, same input same output."""
        ...
