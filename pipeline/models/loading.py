"""From what a recipe says about a model to a model that a pass can run.

Finds and builds it, merges its own declaration with the recipe's, and measures what neither states.
Knows no pass, image or run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.alignment import measure_multiple
from saccade.pipeline.models.answers import Answer
from saccade.pipeline.models.archives import ARCHIVE_SUFFIXES, DECLARATION, read_archive
from saccade.pipeline.models.base import Activation, ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.builtin import builtin_model
from saccade.pipeline.models.factories import build
from saccade.pipeline.models.receptive import (
    RawFunction,
    ReceptiveField,
    halo_is_exact,
    measure_halo,
)
from saccade.pipeline.models.weights import load_weights
from saccade.pipeline.models.wrap import TorchModel

BUILTIN = "builtin:"
OVERRIDES = (
    "classes", "stride", "multiple", "channels", "activation", "mean", "std", "scale",
    "guidance", "context",
)  # fmt: skip
"""Fields of a declaration that a recipe may override under the same name; halo comes besides."""
OF_ANY_MODEL = {"classes", "halo_px", "multiple", "scale"}
"""Fields that can be overridden of a model that is no torch module."""
PROBE_PX = 64
"""Side of the window of noise that a module is tried on, rounded up to what it takes."""


class ModelChoice(Protocol):
    """What a recipe says about a model; None where it says nothing."""

    @property
    def source(self) -> str:
        """'builtin:NAME', 'file.py:factory', 'package.module:factory', or an archive's path."""

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


def load_model(choice: ModelChoice, *, base_folder: Path, device: str = "cpu") -> PassModel:
    """The model of a recipe, on a device, ready to be called.

    Args:
        choice: what the recipe says about it.
        base_folder: the recipe's folder; relative paths start there.
        device: as torch names it.

    Raises:
        ModelNotFound: file, module, factory or weights are missing.
        ModelContract: it loads, but breaks its declaration, or something needed is stated nowhere
            and can't be measured.
    """
    overrides = _overrides(choice)
    if choice.source.startswith(BUILTIN):
        _refuse_weights(choice, "a built-in model has none")
        model = builtin_model(choice.source.removeprefix(BUILTIN), choice.options)
        return _redeclared(model, overrides)
    if choice.source.endswith(ARCHIVE_SUFFIXES):
        _refuse_weights(choice, "an archive brings its own")
        module, declared = read_archive(base_folder / choice.source, device)
        return _wrapped(module, _declared(declared), overrides, choice.halo, device)
    return _from_factory(choice, overrides, base_folder, device)


def _from_factory(
    choice: ModelChoice, overrides: dict[str, Any], base_folder: Path, device: str
) -> PassModel:
    built = build(choice.source, choice.options, base_folder)
    if isinstance(built, nn.Module):
        if choice.weights is not None:
            load_weights(built, base_folder / choice.weights)
        built.eval().requires_grad_(False).to(device)
    elif choice.weights is not None:
        _refuse_weights(choice, f"{choice.source} gave a {type(built).__name__}, no torch module")
    if isinstance(getattr(built, "spec", None), ModelSpec) and isinstance(built, PassModel):
        return _redeclared(built, overrides)
    if isinstance(built, nn.Module):
        declared = _declared(getattr(built, "saccade", None))
        return _wrapped(built, declared, overrides, choice.halo, device)
    raise ModelContract(
        f"{choice.source}: a torch.nn.Module, or an object with 'spec' that is called with Views, "
        f"expected from the factory; found {type(built).__name__}"
    )


def _refuse_weights(choice: ModelChoice, reason: str) -> None:
    if choice.weights is not None:
        raise ModelContract(f"{choice.source}: remove 'weights' ({choice.weights}); {reason}")


def _overrides(choice: ModelChoice) -> dict[str, Any]:
    stated = {name: getattr(choice, name) for name in OVERRIDES}
    if isinstance(choice.halo, int):
        stated["halo_px"] = choice.halo
    return {name: value for name, value in stated.items() if value is not None}


def _declared(declaration: Any) -> dict[str, Any]:
    """The fields that a module states about itself; defaults of a ``ModelSpec`` state nothing."""
    if declaration is None:
        return {}
    if isinstance(declaration, ModelSpec):
        return {
            f.name: getattr(declaration, f.name)
            for f in fields(ModelSpec)
            if f.default is MISSING or getattr(declaration, f.name) != f.default
        }
    if not isinstance(declaration, Mapping):
        raise ModelContract(
            "a module's 'saccade' is a ModelSpec or a dict of its fields; found "
            f"{type(declaration).__name__}"
        )
    known = [f.name for f in fields(ModelSpec)]
    for name in declaration:
        if name not in known:
            near = get_close_matches(str(name), known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ModelContract(f"{DECLARATION} or 'saccade' of a module: no field {name!r}{hint}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in declaration.items()}


class Redeclared:
    """A model under another declaration."""

    def __init__(self, model: PassModel, spec: ModelSpec) -> None:
        self.model, self.spec = model, spec

    def __call__(self, views: Views) -> Prediction:
        """The model's own answer."""
        return self.model(views)


def _redeclared(model: PassModel, overrides: dict[str, Any]) -> PassModel:
    """A model that is no bare module, with what a recipe may say about such a one."""
    changes = {k: v for k, v in overrides.items() if v != getattr(model.spec, k)}
    refused = sorted(set(changes) - OF_ANY_MODEL)
    if refused:
        raise ModelContract(
            f"{type(model).__name__} declares {refused} itself; a recipe overrides that of bare "
            "torch modules only: use its options, or change the model"
        )
    if len(changes.get("classes", model.spec.classes)) != len(model.spec.classes):
        raise ModelContract(
            f"{len(model.spec.classes)} classes expected of {type(model).__name__} "
            f"{model.spec.classes}; found {changes['classes']}"
        )
    if not changes:
        return model
    local = model.spec.local and changes.get("halo_px", model.spec.halo_px) >= model.spec.halo_px
    return Redeclared(model, _spec({**_all_fields(model.spec), **changes, "local": local}))


def _all_fields(spec: ModelSpec) -> dict[str, Any]:
    return {f.name: getattr(spec, f.name) for f in fields(spec)}


def _spec(stated: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec(**stated)
    except (TypeError, ValueError) as error:
        raise ModelContract(f"the model's declaration is wrong: {error}") from error


def _wrapped(
    module: nn.Module,
    declared: dict[str, Any],
    overrides: dict[str, Any],
    halo: int | Literal["auto"] | None,
    device: str,
) -> TorchModel:
    """A bare module under its declaration, the recipe's overrides, and measurements, in one."""
    stated = {**declared, **overrides}
    if halo == "auto":
        stated.pop("halo_px", None)
        stated.pop("local", None)
    answer, side = _try(module, stated, device)
    stated = {**_inferred(answer, side), **stated}
    if answer.per_tile:
        spec = _spec({"multiple": stated["stride"], **stated})
    else:
        spec = _placed(module, stated, "halo_px" in overrides, device)
    model = TorchModel(module, spec, per_tile=answer.per_tile)
    _try(module, _all_fields(spec), device)
    return model


def _inferred(answer: Answer, side: int) -> dict[str, Any]:
    """Classes and stride, read off an answer."""
    count = answer.scores.shape[1]
    inferred: dict[str, Any] = {"classes": tuple(str(i) for i in range(count))}
    if not answer.per_tile:
        rows = answer.scores.shape[-2]
        if rows == 0 or side % rows:
            raise ModelContract(
                f"an output whose side divides the input's {side} px expected; found {rows}: pad "
                "inside the model so that it answers for every pixel it is given"
            )
        inferred["stride"] = side // rows
    return inferred


def _try(module: nn.Module, stated: dict[str, Any], device: str) -> tuple[Answer, int]:
    """The module's answer for a small window of noise, and the window's side."""
    draft = _spec({"classes": ("0", "1"), **stated})
    period = draft.multiple if draft.multiple % draft.stride == 0 else draft.multiple * draft.stride
    # A tile classifier may take windows of its stride only.
    side = period if draft.stride > 8 else -(-PROBE_PX // period) * period
    noise = torch.rand(
        (2, draft.channels or 3, side, side), generator=torch.Generator().manual_seed(7)
    )
    views = _views(noise.to(device), draft)
    try:
        with torch.inference_mode():
            answer = TorchModel(module, draft).raw(views)
    except ModelContract:
        raise
    except Exception as error:
        raise ModelContract(
            f"the model fails on an input of {tuple(noise.shape)}: {type(error).__name__}: "
            f"{error}: state 'channels', 'multiple', 'stride', 'guidance' or 'context' as it needs"
        ) from error
    if answer.per_tile and "stride" not in stated:
        raise ModelContract(
            "the model gives one answer per tile; state 'stride', the side of that tile in pixels"
        )
    if "classes" in stated and answer.scores.shape[1] != len(draft.classes):
        raise ModelContract(
            f"{len(draft.classes)} score channels expected for classes {draft.classes}; "
            f"found {answer.scores.shape[1]}"
        )
    return answer, side


def _views(pixels: Tensor, spec: ModelSpec) -> Views:
    """Views whose guidance depends on the same pixels, so that its field is measured too."""
    guidance = None
    if spec.guidance:
        guidance = pixels.mean(1, keepdim=True).expand(-1, len(spec.classes), -1, -1)
    context = tuple(torch.full_like(pixels, 0.5) for _ in spec.context)
    return Views(pixels, guidance=guidance, context=context)


def _placed(
    module: nn.Module, stated: dict[str, Any], halo_is_override: bool, device: str
) -> ModelSpec:
    """The declaration with ``multiple``, halo and ``local``, measured where they are not stated."""
    raw = _raw_function(module, _spec(stated))
    if "multiple" not in stated:
        stride = stated["stride"]
        stated["multiple"] = measure_multiple(raw, stride, stated.get("channels", 3), device=device)
    spec = _spec(stated)
    if halo_is_override:
        local = spec.local and halo_is_exact(raw, spec, spec.halo_px, device=device)
        return _spec({**stated, "local": local})
    if "halo_px" in stated or stated.get("local") is False:
        return spec
    field = _field(module, raw, spec, device)
    if not field.local:
        raise ModelContract(
            f"the model sees further than {field.halo_px} px, or its whole window (global pooling, "
            "attention or normalisation): state 'halo' in the recipe; no halo is exact, so choose "
            "one whose seams are small enough"
        )
    return _spec({**stated, "halo_px": field.halo_px, "local": True})


def _raw_function(module: nn.Module, spec: ModelSpec) -> RawFunction:
    model = TorchModel(module, spec)

    def raw(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.raw(_views(pixels, spec)).scores

    return raw


_FIELDS: WeakKeyDictionary[nn.Module, dict[ModelSpec, ReceptiveField]] = WeakKeyDictionary()
"""Fields measured in this process, per module and declaration."""


def _field(
    module: nn.Module, raw: Callable[[Tensor], Tensor], spec: ModelSpec, device: str
) -> ReceptiveField:
    known = _FIELDS.setdefault(module, {})
    if spec not in known:
        known[spec] = measure_halo(raw, spec, device=device)
    return known[spec]
