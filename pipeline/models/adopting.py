"""A bare torch module becomes a pass model: what is stated is merged, the rest is measured.

The recipe wins over the module's own declaration; classes and stride are read off a trial on noise;
``multiple`` and halo are measured. Knows no file and no recipe.
"""

from __future__ import annotations

from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.alignment import measure_multiple
from saccade.pipeline.models.answers import Answer
from saccade.pipeline.models.base import ModelSpec, Views
from saccade.pipeline.models.declaring import all_fields, spec_of
from saccade.pipeline.models.receptive import (
    RawFunction,
    ReceptiveField,
    halo_is_exact,
    measure_halo,
)
from saccade.pipeline.models.wrap import TorchModel, check_shape

PROBE_PX = 64
"""Side of the window of noise that a module is tried on, rounded up to what it takes."""


def adopt(
    module: nn.Module,
    declared: dict[str, Any],
    overrides: dict[str, Any],
    halo: int | Literal["auto"] | None,
    device: str,
) -> TorchModel:
    """A module behind the ``PassModel`` protocol.

    Args:
        module: in eval mode, on ``device``.
        declared: fields of a ``ModelSpec`` that it states about itself.
        overrides: fields that the recipe states.
        halo: as in the recipe; 'auto' measures whatever is declared.
        device: as torch names it.

    Raises:
        ModelContract: it breaks its declaration, or something needed can't be measured.
    """
    stated = {**declared, **overrides}
    if halo == "auto":
        stated = {k: v for k, v in stated.items() if k not in ("halo_px", "local")}
    answer, side = _try(module, stated, device)
    stated = {**_inferred(answer, side), **stated}
    if answer.per_tile:
        spec = spec_of({"multiple": stated["stride"], **stated})
    else:
        spec = _measured(module, stated, "halo_px" in overrides, device)
    _try(module, all_fields(spec), device, per_tile=answer.per_tile)
    return TorchModel(module, spec, per_tile=answer.per_tile)


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


def _try(
    module: nn.Module, stated: dict[str, Any], device: str, *, per_tile: bool = False
) -> tuple[Answer, int]:
    """The module's answer for a small window of noise, and the window's side."""
    draft = spec_of({"classes": ("0", "1"), **stated})
    side = draft.stride if per_tile else _probe_side(draft)
    views = _noise(draft, side, device)
    answer = _raw_answer(TorchModel(module, draft), views)
    if answer.per_tile and "stride" not in stated:
        raise ModelContract(
            "the model gives one answer per tile; state 'stride', the side of that tile in pixels"
        )
    if {"classes", "stride"} <= set(stated) and (per_tile or not answer.per_tile):
        check_shape(answer, views.pixels, draft)
    return answer, side


def _noise(spec: ModelSpec, side: int, device: str) -> Views:
    shape = (2, spec.channels or 3, side, side)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(7))
    return _views(noise.to(device), spec)


def answers_noise(model: TorchModel, device: str) -> Answer:
    """A model's own answer for a small window of noise, always the same.

    Raises:
        ModelContract: it fails.
    """
    return _raw_answer(model, _noise(model.spec, _probe_side(model.spec), device))


def _probe_side(spec: ModelSpec) -> int:
    m, s = spec.multiple, spec.stride
    period = m if m % s == 0 else m * s
    # A tile classifier, whose stride is large, may take no window but its tile.
    return period if s > 8 else -(-PROBE_PX // period) * period


def _raw_answer(model: TorchModel, views: Views) -> Answer:
    try:
        with torch.inference_mode():
            return model.raw(views)
    except ModelContract:
        raise
    except Exception as error:
        raise ModelContract(
            f"the model fails on an input of {tuple(views.pixels.shape)}: {type(error).__name__}: "
            f"{error}: state 'channels', 'multiple', 'stride', 'guidance' or 'context' as it needs"
        ) from error


def _views(pixels: Tensor, spec: ModelSpec) -> Views:
    """Views whose guidance depends on the same pixels, so that its field is measured too."""
    guidance = None
    if spec.guidance:
        guidance = pixels.mean(1, keepdim=True).expand(-1, len(spec.classes), -1, -1)
    context = tuple(torch.full_like(pixels, 0.5) for _ in spec.context)
    features = _features_like(pixels, spec) if spec.takes_features else None
    return Views(
        pixels,
        guidance=guidance,
        context=context,
        pixel_size_um=1.0,
        downsample=1.0,
        features=features,
    )


def _features_like(pixels: Tensor, spec: ModelSpec) -> Tensor:
    stride = spec.features[1] if spec.features else 1
    cells = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), stride)
    return cells.expand(-1, spec.takes_features, -1, -1)


def _measured(
    module: nn.Module, stated: dict[str, Any], halo_is_override: bool, device: str
) -> ModelSpec:
    """``_placed``, with a model that fails on the way named as the cause."""
    try:
        return _placed(module, stated, halo_is_override, device)
    except RuntimeError as error:
        raise ModelContract(
            f"the model fails while its halo is measured: {error}: state 'multiple' and 'halo', or "
            "make it take windows of any size that is a multiple of 'multiple'"
        ) from error


def _placed(
    module: nn.Module, stated: dict[str, Any], halo_is_override: bool, device: str
) -> ModelSpec:
    """The declaration with ``multiple``, halo and ``local``, measured where they are not stated."""
    raw = _raw_function(module, spec_of(stated))
    if "multiple" not in stated:
        stride = stated["stride"]
        stated["multiple"] = measure_multiple(raw, stride, stated.get("channels", 3), device=device)
    spec = spec_of(stated)
    if halo_is_override:
        local = spec.local and halo_is_exact(raw, spec, spec.halo_px, device=device)
        return spec_of({**stated, "local": local})
    if "halo_px" in stated or stated.get("local") is False:
        return spec
    field = _field(module, raw, spec, device)
    if not field.local:
        raise ModelContract(
            f"the model sees further than {field.halo_px} px, or its whole window (global pooling, "
            "attention or normalisation): state 'halo' in the recipe; no halo is exact, so choose "
            "one whose seams are small enough"
        )
    return spec_of({**stated, "halo_px": field.halo_px, "local": True})


def _raw_function(module: nn.Module, spec: ModelSpec) -> RawFunction:
    model = TorchModel(module, spec)

    def raw(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.raw(_views(pixels, spec)).scores

    return raw


_FIELDS: WeakKeyDictionary[nn.Module, dict[ModelSpec, ReceptiveField]] = WeakKeyDictionary()
"""Fields measured in this process, per module and declaration."""


def _field(module: nn.Module, raw: RawFunction, spec: ModelSpec, device: str) -> ReceptiveField:
    known = _FIELDS.setdefault(module, {})
    if spec not in known:
        known[spec] = measure_halo(raw, spec, device=device)
    return known[spec]
