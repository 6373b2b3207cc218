"""Weights into a module, without running code from the file. Knows no architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract, ModelNotFound

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put a state dict."""
PARALLEL_PREFIX = "module."
"""What ``DataParallel`` puts before every name."""
NAMES_SHOWN = 5


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a .safetensors, .pt or .pth file into a module, every one of them.

    Raises:
        ModelNotFound: there is no such file.
        ModelContract: another format, more than tensors in it, or names or shapes that differ from
            the module's.
    """
    if not path.is_file():
        raise ModelNotFound(f"weights expected at {path}; found no file")
    state = _state(path)
    result = _loaded(module, state, path)
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:NAMES_SHOWN])}{'...' if len(names) > 5 else ''})"
        for kind, names in (
            ("missing from the file", result.missing_keys),
            ("not in the module", result.unexpected_keys),
        )
        if names
    ]
    if problems:
        raise ModelContract(
            f"{path}: one weight for each of the module's {len(module.state_dict())} expected; "
            f"{' and '.join(problems)}: name the weights of this very architecture, or set the "
            "factory's options"
        )


def _loaded(module: nn.Module, state: dict[str, Tensor], path: Path) -> Any:
    try:
        return module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1 : NAMES_SHOWN + 1]]
        raise ModelContract(
            f"{path}: shapes differ from the module's: {' '.join(lines)}"
        ) from error


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _unwrapped(_tensors_only(path), path)
    raise ModelContract(f"{path}: weights are .safetensors, .pt or .pth; found {path.suffix!r}")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelContract(f"{path}: a safetensors file expected; {error}") from error


def _tensors_only(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelContract(
            f"{path}: a file of tensors only expected; it holds other Python objects or is "
            "damaged, and was not executed: save model.state_dict(), or use safetensors"
        ) from error


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ModelContract(
            f"{path}: a state dict (names to tensors) expected; found {type(loaded).__name__}"
        )
    state = {str(name): tensor for name, tensor in loaded.items()}
    if state and all(name.startswith(PARALLEL_PREFIX) for name in state):
        return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in state.items()}
    return state
