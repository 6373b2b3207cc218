"""The models that ship, by name. Knows constructors, nothing of what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.base import PassModel
from saccade.pipeline.models.contrast import Contrast
from saccade.pipeline.models.field import Field
from saccade.pipeline.models.hematoxylin import Hematoxylin
from saccade.pipeline.models.retina import WEIGHTS, retina_lesions
from saccade.pipeline.models.tissue import Tissue

VERSION = 1
"""Goes up when any built-in model would answer differently."""
BUILTINS: Mapping[str, Callable[..., PassModel | nn.Module]] = {
    "contrast": Contrast,
    "field": Field,
    "hematoxylin": Hematoxylin,
    "retina-lesions": retina_lesions,
    "tissue": Tissue,
}
"""Constructors by name, as in ``builtin:tissue``."""
BUILTIN_WEIGHTS: Mapping[str, Path] = {"retina-lesions": WEIGHTS}
"""Files of weights of those that have any."""


def builtin_model(name: str, options: Mapping[str, Any]) -> PassModel | nn.Module:
    """The built-in model of this name; a bare module declares itself as any other does.

    Raises:
        ModelNotFound: there is no such model; the message names the nearest one.
        ModelContract: an option it does not take, or a value it refuses.
    """
    if name not in BUILTINS:
        near = get_close_matches(name, BUILTINS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelNotFound(f"no built-in model {name!r}; there are {', '.join(BUILTINS)}{hint}")
    known = list(signature(BUILTINS[name]).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelContract(f"builtin:{name} takes options {known}; found {unknown}")
    try:
        return BUILTINS[name](**options)
    except (TypeError, ValueError) as error:
        raise ModelContract(f"builtin:{name}: {error}") from error
