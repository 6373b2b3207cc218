"""A checkpoint of Hugging Face as a folder: where it lies, and which of its files count.

Knows file names; knows no network and reads no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.borrowing import Wanted, first_line
from saccade.pipeline.models.extras import imported

CONFIG = "config.json"
PREPARATION = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
"""Weights without code; other formats are not read."""


def checkpoint_folder(wanted: Wanted) -> Path | None:
    """The folder of a checkpoint: the recipe's own, the hub's cache, or the hub, in this order.

    Returns:
        None where the recipe asks for no checkpoint: ``pretrained: false`` and no such folder.

    Raises:
        ModelNotFound: it is in none of these places.
    """
    local = wanted.base_folder / wanted.name
    if (local / CONFIG).is_file():
        return local
    if not wanted.option("pretrained", bool, True):
        return None
    hub = imported("huggingface_hub", "huggingface")
    which = {
        "repo_id": wanted.name,
        "revision": wanted.option("revision", str, None),
        "allow_patterns": [CONFIG, PREPARATION, *WEIGHTS],
    }
    try:
        return Path(hub.snapshot_download(**which, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or no name that the hub could have
        return _fetched(hub, wanted, which)


def _fetched(hub: Any, wanted: Wanted, which: dict[str, Any]) -> Path:
    try:
        return Path(hub.snapshot_download(**which))
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"{wanted.source}: a folder with {CONFIG} at {wanted.base_folder / wanted.name}, or a "
            f"checkpoint in the hub's cache or on the hub, expected; {first_line(error)}: connect "
            "once to fill the cache, name a folder, or say 'pretrained: false'"
        ) from error


def checkpoint_files(folder: Path) -> list[Path]:
    """The files that decide what a checkpoint answers, in a fixed order."""
    found = [folder / CONFIG, folder / PREPARATION]
    found += [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    return sorted(path for path in found if path.is_file())


def has_weights(folder: Path) -> bool:
    """Whether there are weights that load without executing code."""
    return any(path.suffix == ".safetensors" for path in checkpoint_files(folder))


def preparation(folder: Path | None) -> dict[str, Any]:
    """Mean, std and scale that a checkpoint's own processor applies; what it does not say is out.

    Raises:
        ModelContract: the file is not understood.
    """
    if folder is None or not (folder / PREPARATION).is_file():
        return {}
    try:
        stated = json.loads((folder / PREPARATION).read_text(encoding="utf-8"))
        return preparation_of(stated)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelContract(
            f"{folder / PREPARATION}: the settings of an image processor expected; "
            f"{first_line(error)}: state 'mean', 'std' and 'scale' in a recipe, and remove it"
        ) from error


def preparation_of(stated: dict[str, Any]) -> dict[str, Any]:
    """A processor's settings as fields of a ``ModelSpec``.

    A processor multiplies samples of 0 to 255 by ``rescale_factor``; we divide by ``scale``, which
    is left to the samples' own type where that comes to the same.
    """
    found: dict[str, Any] = {}
    factor = stated.get("rescale_factor", 1 / 255) if stated.get("do_rescale", True) else 1.0
    if abs(factor * 255 - 1) > 1e-6:
        found["scale"] = 1 / factor
    if stated.get("do_normalize", True):
        pairs = (("mean", "image_mean"), ("std", "image_std"))
        found |= {name: tuple(stated[key]) for name, key in pairs if stated.get(key)}
    return found


def prepared_side(folder: Path | None) -> int | None:
    """Side of the square that a checkpoint's processor makes of an image, where it says so."""
    if folder is None or not (folder / PREPARATION).is_file():
        return None
    stated = json.loads((folder / PREPARATION).read_text(encoding="utf-8"))
    for key in ("crop_size", "size"):
        size = stated.get(key)
        if isinstance(size, int):
            return size
        if isinstance(size, dict) and {"height", "width"} <= set(size):
            return int(size["height"])
    shortest = (stated.get("size") or {}).get("shortest_edge")
    return None if shortest is None else int(shortest)
