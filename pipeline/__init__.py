"""Everything about one image: sources, models, plans, fusion, the result.

``from saccade.pipeline import Recipe, open_source, open_result``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.pipeline.recipe import Recipe
    from saccade.pipeline.recipe_file import load_recipe
    from saccade.pipeline.result import open_result
    from saccade.pipeline.sources import open_source

__all__ = ["Recipe", "load_recipe", "open_result", "open_source"]

_HOMES = {
    "Recipe": "saccade.pipeline.recipe",
    "load_recipe": "saccade.pipeline.recipe_file",
    "open_result": "saccade.pipeline.result",
    "open_source": "saccade.pipeline.sources",
}


def __getattr__(name: str) -> Any:
    """Import the few public names on first use: a worker that needs one does not pay for all."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
