"""What models leave unsaid, measured once per run instead of once per worker.

A module that does not declare its halo has it measured by perturbation, which takes seconds. The
driver does so before work starts (a model that does not load is an error then, not later), writes
the finding beside the run, and gives workers a recipe in which nothing is left to measure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.pipeline.models.choice import BUILTIN
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.recipe import ModelRecipe, Recipe
from saccade.workers.device import one_thread
from saccade.workers.folder import RunFolder, write_whole

Findings = dict[str, dict[str, Any]]


def settle(
    folder: RunFolder, recipe: Recipe, model_hashes: Mapping[str, str], model_folder: Path
) -> Recipe:
    """The recipe with halo, stride, multiple and classes of every model spelled out.

    Args:
        folder: of the run; findings of an earlier call are taken from there.
        recipe: as it was given.
        model_hashes: per pass, what decides its model's answers.
        model_folder: what relative paths of models are relative to.

    Raises:
        ModelError: a model does not load, or breaks its declaration.
    """
    known = _read(folder)
    found = dict(known)
    passes = []
    for one in recipe.passes:
        model = one.model
        if model.source.startswith(BUILTIN):
            load_model(model, base_folder=model_folder)
        elif not isinstance(model.halo, int):
            key = model_hashes[one.name]
            if key not in found:
                found[key] = _measure(model, model_folder)
            model = model.model_copy(update=_as_fields(found[key]))
        passes.append(one.model_copy(update={"model": model}))
    if found != known:
        write_whole(folder.models, json.dumps(found, indent=1))
    return recipe.model_copy(update={"passes": tuple(passes)})


def _measure(model: ModelRecipe, model_folder: Path) -> dict[str, Any]:
    with one_thread():
        spec = load_model(model, base_folder=model_folder).spec
    if not spec.local:
        return {}
    return {
        "halo": spec.halo_px,
        "stride": spec.stride,
        "multiple": spec.multiple,
        "classes": list(spec.classes),
    }


def _as_fields(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def _read(folder: RunFolder) -> Findings:
    if not folder.models.exists():
        return {}
    findings: Findings = json.loads(folder.models.read_text())
    return findings
