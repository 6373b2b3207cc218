"""Checkpoints: everything that the next step depends on, whole files replaced at once.

``step-000200.safetensors`` holds the weights; ``step-000200.state.pt`` the optimiser's tensors, the
running mean and the places of the hard negatives, and is read as tensors and plain values only.
The weights are put into place last: where they are, the checkpoint is whole.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from saccade.pipeline.errors import StoreError
from saccade.pipeline.store_shelf import LocalShelf

PATTERN = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A moment between two steps."""

    step: int
    """Steps that were taken."""
    weights: Mapping[str, Tensor]
    """Of all models, as ``Learners.state`` names them."""
    rest: Mapping[str, Any]
    """Tensors and plain values: what else decides the next step."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint and forget those before the last ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:06d}.safetensors"
    state = _state_of(path)
    held = io.BytesIO()
    torch.save(dict(checkpoint.rest), held)
    LocalShelf(folder, fsync=True).put(state.name, held.getvalue())
    write_weights(path, checkpoint.weights, {"step": str(checkpoint.step)})
    for old in _known(folder)[:-keep]:
        old.unlink()
        _state_of(old).unlink(missing_ok=True)
    return path


def last_checkpoint(folder: Path, device: str) -> Checkpoint | None:
    """The latest whole checkpoint; None where there is none.

    Raises:
        StoreError: it can't be read.
    """
    known = [path for path in _known(folder) if _state_of(path).exists()]
    if not known:
        return None
    path = known[-1]
    try:
        rest = torch.load(_state_of(path), map_location=device, weights_only=True)
        return Checkpoint(_step_of(path), load_file(path, device=device), rest)
    except Exception as error:
        raise StoreError(
            f"{path}: a checkpoint expected; it can't be read ({error}): delete it to go on from "
            "the one before it"
        ) from error


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """A safetensors file, in place at once; ``facts`` go into its header."""
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    LocalShelf(path.parent, fsync=True).put(path.name, save(held, dict(facts)))


def _known(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*.safetensors") if PATTERN.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    match = PATTERN.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _state_of(path: Path) -> Path:
    return path.with_suffix(".state.pt")
