"""What a recipe says about a model, as this package needs it. Knows no recipe file."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from saccade.pipeline.models.base import Activation, SaliencyChoice
from saccade.pipeline.normalising import Normalise, standardises

BUILTIN = "builtin:"
"""How a source begins that names a built-in model."""
OVERRIDES = (
    "classes",
    "stride",
    "multiple",
    "channels",
    "activation",
    "mean",
    "std",
    "scale",
    "guidance",
    "context",
)
"""Fields of a declaration that a recipe may override under the same name; halo comes besides."""
NEUTRAL = {"mean": (0.0,), "std": (1.0,)}
"""What takes a model's own normalisation back."""


class ModelChoice(Protocol):
    """What a recipe says about a model; None where it says nothing."""

    @property
    def source(self) -> str:
        """A file's path, or a name with its kind.

        'builtin:NAME', 'file.py:factory', 'package.module:factory', an archive, an ONNX file, or a
        model of another library: 'timm:NAME', 'hf:NAME', 'smp:NAME'.
        """

    @property
    def weights(self) -> str | None:
        """File of weights for a factory's module."""

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for the factory or the built-in model."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Name of each score channel."""

    @property
    def halo(self) -> int | Literal["auto"] | None:
        """Context in input pixels; 'auto' measures it."""

    @property
    def stride(self) -> int | None:
        """Input pixels per output pixel."""

    @property
    def multiple(self) -> int | None:
        """What input sizes and origins are multiples of."""

    @property
    def channels(self) -> int | None:
        """Input channels."""

    @property
    def activation(self) -> Activation | None:
        """Applied to raw output."""

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Per channel, subtracted."""

    @property
    def std(self) -> tuple[float, ...] | None:
        """Per channel, divided by."""

    @property
    def scale(self) -> float | None:
        """Samples are divided by this first."""

    @property
    def guidance(self) -> bool | None:
        """Whether the module takes ``guidance=``."""

    @property
    def context(self) -> tuple[float, ...] | None:
        """Extra fields of view, each so many times coarser."""

    @property
    def saliency(self) -> SaliencyChoice | None:
        """Where saliency comes from."""

    @property
    def normalise(self) -> Normalise | None:
        """What samples become before they are given to it."""


def overrides(choice: ModelChoice) -> dict[str, Any]:
    """The fields of a ``ModelSpec`` that a recipe states; 'auto' states none."""
    stated = {name: getattr(choice, name) for name in OVERRIDES}
    if isinstance(choice.halo, int):
        stated["halo_px"] = choice.halo
    if standardises(choice.normalise):
        stated |= NEUTRAL
    return {name: value for name, value in stated.items() if value is not None}
