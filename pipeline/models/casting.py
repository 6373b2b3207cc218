"""A model in another form, beside the one that was loaded. Knows no pass and no image.

A torch module is copied and its weights converted once. One that mixes types in its own code, whose
graph is fixed, or that is no bare module runs under torch's autocast instead, which converts at
every operation and is slower.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.adopting import answers_noise
from saccade.pipeline.models.base import (
    AS_LOADED,
    ModelForm,
    ModelSpec,
    PassModel,
    Prediction,
    Views,
)
from saccade.pipeline.models.declaring import Redeclared
from saccade.pipeline.models.fusing import fused
from saccade.pipeline.models.onnx_file import sessions_in
from saccade.pipeline.models.salient import SalientBy
from saccade.pipeline.models.wrap import TorchModel


class Autocast:
    """A model under torch's mixed precision."""

    def __init__(self, model: PassModel, dtype: torch.dtype, device: str) -> None:
        self.model, self.dtype = model, dtype
        self.spec: ModelSpec = model.spec
        self._kind = torch.device(device).type

    def __call__(self, views: Views) -> Prediction:
        """The model's own answer, computed in the other arithmetic where torch deems it safe."""
        with torch.autocast(self._kind, self.dtype):
            return self.model(views)


def in_form(model: PassModel, form: ModelForm, *, device: str = "cpu") -> PassModel:
    """A model that computes in this form; the one given stays as it is.

    Args:
        model: as loaded, on ``device``.
        form: what is wanted; 'channels_last' is left out where the model is no torch module.
        device: as torch names it.

    Returns:
        ``model`` itself where nothing is to be changed.

    Raises:
        ModelContract: the form is fused and the model has nothing to fuse, or the model computes
            in one form only.
    """
    if form != AS_LOADED and sessions_in(model):
        raise ModelContract(
            "an ONNX model computes in the arithmetic and memory order that it was exported in; "
            f"found {form}: set 'precision: float32' or 'precision: auto'"
        )
    if isinstance(model, Redeclared | SalientBy):
        inner = in_form(model.model, form, device=device)
        return model if inner is model.model else model.around(inner)
    if form.fused:
        return in_form(fused(model, device), replace(form, fused=False), device=device)
    dtype: torch.dtype = getattr(torch, form.precision)
    if dtype is torch.float32 and not form.channels_last:
        return model
    if isinstance(model, TorchModel):
        converted = _converted(model, dtype, form.channels_last, device)
        if converted is not None:
            return converted
    return model if dtype is torch.float32 else Autocast(model, dtype, device)


def _converted(
    model: TorchModel, dtype: torch.dtype, channels_last: bool, device: str
) -> TorchModel | None:
    """A converted copy; None where it can't be copied, or does not run in this arithmetic."""
    try:
        module = copy.deepcopy(model.module).to(dtype)
        if channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except (RuntimeError, TypeError, AttributeError):  # what copying and converting may refuse with
        return None
    converted = TorchModel(module, model.spec, per_tile=model.per_tile, dtype=dtype)
    try:
        answers_noise(converted, device)
    except ModelContract:
        return None
    return converted
