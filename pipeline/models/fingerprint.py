"""The hash of everything that decides a model's answers. Reads files and runs no model.

Weights that a library fetches by itself are read off the module that it builds.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import ModelNotFound
from saccade.pipeline.models.archives import ARCHIVE_SUFFIXES
from saccade.pipeline.models.borrowed import PREFIXES, borrowed_facts, borrowed_files
from saccade.pipeline.models.builtin import BUILTIN_WEIGHTS, VERSION
from saccade.pipeline.models.choice import BUILTIN, OVERRIDES, ModelChoice
from saccade.pipeline.models.factories import code_file
from saccade.pipeline.models.onnx_file import SUFFIX as ONNX
from saccade.pipeline.models.onnx_file import external_files

BLOCK_BYTES = 1 << 20
OURS = "saccade."
"""How a source begins that names a network of this package."""


def fingerprint(choice: ModelChoice, base_folder: Path) -> str:
    """Hash of a model's name, options, overrides, code file and weights: 32 hex digits.

    Modules that a user's code file imports are not followed; of a network that ships, all modules
    beside it count.

    Args:
        choice: what the recipe says about the model.
        base_folder: the recipe's folder; relative paths start there.

    Raises:
        ModelNotFound: a file is missing.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(_stated(choice), sort_keys=True, default=str).encode())
    for path in _files(choice, base_folder):
        digest.update(_file_digest(path))
    if choice.source.startswith(PREFIXES):
        for fact in borrowed_facts(choice, base_folder):
            digest.update(fact)
    return digest.hexdigest()


def _stated(choice: ModelChoice) -> dict[str, Any]:
    stated = {name: getattr(choice, name) for name in (*OVERRIDES, "halo", "options", "source")}
    if choice.saliency is not None:
        stated["saliency"] = choice.saliency
    if choice.normalise is not None:
        stated["normalise"] = choice.normalise.model_dump()
    return stated | ({"version": VERSION} if choice.source.startswith(BUILTIN) else {})


def _files(choice: ModelChoice, base_folder: Path) -> list[Path]:
    if choice.source.startswith(BUILTIN):
        own = BUILTIN_WEIGHTS.get(choice.source.removeprefix(BUILTIN))
        stated = None if choice.weights is None else base_folder / choice.weights
        return [path for path in (stated or own,) if path is not None]
    if choice.source.endswith(ARCHIVE_SUFFIXES):
        return [base_folder / choice.source]
    if choice.source.endswith(ONNX):
        return _onnx_files(base_folder / choice.source)
    if choice.source.startswith(PREFIXES):
        return borrowed_files(choice, base_folder)
    code = [code_file(choice.source, base_folder)]
    if choice.source.startswith(OURS):
        code = sorted(Path(__file__).parent.rglob("*.py"))
    return code if choice.weights is None else [*code, base_folder / choice.weights]


def _onnx_files(path: Path) -> list[Path]:
    return [path, *external_files(path)] if path.is_file() else [path]


def _file_digest(path: Path) -> bytes:
    if not path.is_file():
        raise ModelNotFound(f"a file of the model expected at {path}; found none")
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.digest()
