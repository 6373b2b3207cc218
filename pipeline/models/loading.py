"""From what a recipe says about a model to a model that a pass can run.

Finds and builds it; merging declarations and measuring are other modules' work. Knows no pass,
image or run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.adopting import adopt
from saccade.pipeline.models.archives import ARCHIVE_SUFFIXES, read_archive
from saccade.pipeline.models.base import ModelSpec, PassModel
from saccade.pipeline.models.borrowed import PREFIXES, borrow, needs_halo
from saccade.pipeline.models.builtin import builtin_model
from saccade.pipeline.models.choice import BUILTIN, ModelChoice, overrides
from saccade.pipeline.models.declaring import declared, redeclared
from saccade.pipeline.models.factories import build
from saccade.pipeline.models.fingerprint import fingerprint
from saccade.pipeline.models.onnx_file import SUFFIX as ONNX
from saccade.pipeline.models.onnx_file import read_onnx
from saccade.pipeline.models.salient import salient_by
from saccade.pipeline.models.weights import load_weights

__all__ = ["ModelChoice", "fingerprint", "load_model"]


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
    return salient_by(_loaded(choice, base_folder, device), choice.saliency)


def _loaded(choice: ModelChoice, base_folder: Path, device: str) -> PassModel:
    stated = overrides(choice)
    if choice.source.startswith(BUILTIN):
        model = builtin_model(choice.source.removeprefix(BUILTIN), choice.options)
        return _with_weights(choice, model, stated, base_folder, device)
    if choice.source.endswith(ARCHIVE_SUFFIXES):
        _refuse_weights(choice, "an archive brings its own")
        module, declaration = read_archive(base_folder / choice.source, device)
        return adopt(module, declared(declaration), stated, choice.halo, device)
    if choice.source.endswith(ONNX):
        _refuse_weights(choice, "an ONNX file brings its own")
        module, declaration = read_onnx(base_folder / choice.source, device)
        return adopt(module.eval(), declared(declaration), stated, choice.halo, device)
    if choice.source.startswith(PREFIXES):
        borrowed = borrow(choice, base_folder)
        needs_halo(choice, borrowed)
        own = declared(borrowed.declaration)
        return adopt(borrowed.module.to(device), own, stated, choice.halo, device)
    return _from_factory(choice, stated, base_folder, device)


def _from_factory(
    choice: ModelChoice, stated: dict[str, Any], base_folder: Path, device: str
) -> PassModel:
    built = build(choice.source, choice.options, base_folder)
    return _with_weights(choice, built, stated, base_folder, device)


def _with_weights(
    choice: ModelChoice, built: Any, stated: dict[str, Any], base_folder: Path, device: str
) -> PassModel:
    """What a factory gave, with its weights, on its device and behind the protocol."""
    if isinstance(built, nn.Module):
        if choice.weights is not None:
            load_weights(built, base_folder / choice.weights)
        built.eval().requires_grad_(False).to(device)
    else:
        _refuse_weights(choice, f"{choice.source} gave a {type(built).__name__}, no torch module")
    if isinstance(getattr(built, "spec", None), ModelSpec) and isinstance(built, PassModel):
        return redeclared(built, stated)
    if isinstance(built, nn.Module):
        own = declared(getattr(built, "saccade", None))
        return adopt(built, own, stated, choice.halo, device)
    raise ModelContract(
        f"{choice.source}: a torch.nn.Module, or an object with 'spec' that is called with Views, "
        f"expected from the factory; found {type(built).__name__}"
    )


def _refuse_weights(choice: ModelChoice, reason: str) -> None:
    if choice.weights is not None:
        raise ModelContract(f"{choice.source}: remove 'weights' ({choice.weights}); {reason}")
