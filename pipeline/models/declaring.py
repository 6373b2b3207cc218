"""A model's own declaration, and what a recipe may change about it. Measures and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.choice import NEUTRAL

OF_ANY_MODEL = {"classes", "halo_px", "multiple", "scale"}
"""Fields that can be overridden of a model that is no bare torch module."""


def declared(declaration: Any) -> dict[str, Any]:
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
            raise ModelContract(
                f"'saccade' of a module, or saccade.json of an archive: no field {name!r}{hint}"
            )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in declaration.items()}


def parsed_declaration(text: str | bytes, where: str) -> dict[str, Any]:
    """The fields that a file states about its model, as JSON; an empty text states none.

    Raises:
        ModelContract: it is something else; ``where`` stands for the place in the message.
    """
    if not text:
        return {}
    try:
        stated = json.loads(text)
    except ValueError as error:
        raise ModelContract(f"{where} is not JSON: {error}") from error
    if not isinstance(stated, dict):
        found = type(stated).__name__
        raise ModelContract(f"{where} holds the fields of a declaration; found {found}")
    return stated


class Redeclared:
    """A model under another declaration."""

    def __init__(self, model: PassModel, spec: ModelSpec) -> None:
        self.model, self.spec = model, spec

    def around(self, model: PassModel) -> Redeclared:
        """The same for another model."""
        return Redeclared(model, self.spec)

    def __call__(self, views: Views) -> Prediction:
        """The model's own answer."""
        return self.model(views)


def redeclared(model: PassModel, overrides: dict[str, Any]) -> PassModel:
    """A model that is no bare module, with what a recipe may say about such a one."""
    own = {k: NEUTRAL.get(k) if (v := getattr(model.spec, k)) is None else v for k in overrides}
    changes = {k: v for k, v in overrides.items() if v != own[k]}
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
    return Redeclared(model, spec_of({**all_fields(model.spec), **changes, "local": local}))


def all_fields(spec: ModelSpec) -> dict[str, Any]:
    """Every field of a declaration by name."""
    return {f.name: getattr(spec, f.name) for f in fields(spec)}


def spec_of(stated: dict[str, Any]) -> ModelSpec:
    """A declaration from stated fields.

    Raises:
        ModelContract: a value is wrong, or a field that has no default is missing.
    """
    try:
        return ModelSpec(**stated)
    except (TypeError, ValueError) as error:
        raise ModelContract(f"the model's declaration is wrong: {error}") from error
