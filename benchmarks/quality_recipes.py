"""The recipe under test in other forms: dense, by number of tiles, un-tiled, with other weights.

Pure: recipes in, recipes out, and the changes per image that a manifest states. What is measured is
the recipe's own method; only *how many* tiles a pass visits is the benchmark's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saccade.pipeline.recipe import ModelRecipe, PassRecipe, Recipe, Resolution
from saccade.pipeline.selectors import AllTiles, Foreground, TopK

JUDGING = ("top_fraction", "top_k", "threshold", "budget", "uncertainty")
"""Selectors that judge a tile by one number."""
USUAL_RATIO = 2.0
"""Tiles of a pass per tile of the next, by area, where the recipe's fractions do not say."""


def judging_node(select: Any) -> dict[str, Any]:
    """The first selector of a tree that judges by a number; what stands around it is left out.

    Raises:
        SystemExit: there is none, so no number of tiles can be asked for.
    """
    tree = select if isinstance(select, dict) else select.model_dump(mode="json")
    for node in _nodes(tree):
        if node.get("by") in JUDGING:
            return node
    raise SystemExit(
        f"a pass after the first must judge its tiles ({', '.join(JUDGING)}), so that it can be "
        f"told how many to visit; found {tree}"
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def judge(one: PassRecipe) -> TopK:
    """How a pass judges tiles, and within which, as a selector of the best 0 of them."""
    node = judging_node(one.select)
    signal = node.get("measure") or node["signal"]
    tree = {"k": 0, "signal": signal, "statistic": node["statistic"], "within": node["within"]}
    return TopK.model_validate(tree)


def by_count(recipe: Recipe, counts: Sequence[int]) -> dict[str, Any]:
    """What a manifest says of one image, so that each later pass visits its best so many tiles."""
    told = {}
    for one, count in zip(recipe.passes[1:], counts, strict=True):
        told[f"passes.{one.name}.select"] = judge(one).model_copy(update={"k": count}).model_dump()
    return told


def ratios(recipe: Recipe) -> tuple[float, ...]:
    """Per later pass, the share of tiles it visits, in shares of the last one's; at least 1."""
    nodes = [judging_node(one.select) for one in recipe.passes[1:]]
    fractions = [node.get("fraction") or node.get("share") for node in nodes]
    last = fractions[-1] if fractions else None
    found = [f / last if f and last else USUAL_RATIO for f in fractions[:-1]]
    return (*(max(1.0, ratio) for ratio in found), 1.0)


def counts_at(share: float, foreground: Sequence[int], ratios_: Sequence[float]) -> tuple[int, ...]:
    """Tiles per later pass, where the last visits a share of the foreground's tiles."""
    return tuple(
        math.ceil(round(min(1.0, share * ratio) * count, 9))
        for ratio, count in zip(ratios_, foreground, strict=True)
    )


def keeping_all(recipe: Recipe) -> Recipe:
    """The recipe with the arrays of all its passes kept, for replays to read."""
    return recipe.model_copy(update={"output": recipe.output.model_copy(update={"keep": "all"})})


def dense(recipe: Recipe) -> Recipe:
    """Every pass over every tile: what all answers are compared with."""
    changes = {"select": AllTiles(), **_known({"exit": None})}
    passes = tuple(one.model_copy(update=changes) for one in recipe.passes)
    return recipe.model_copy(update={"passes": passes})


def single(recipe: Recipe) -> PassRecipe:
    """The last pass on its own, given nothing by a pass before."""
    last = recipe.passes[-1]
    plain = {"guidance": False, "select": AllTiles(), **_known({"features": False, "exit": None})}
    if last.guidance:
        plain["model"] = last.model.model_copy(update={"guidance": False})
    return last.model_copy(update=plain)


def _known(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes to what a pass of this version has."""
    return {key: value for key, value in changes.items() if key in PassRecipe.model_fields}


def tiled_dense(recipe: Recipe, foreground: str, downsample: float) -> Recipe:
    """The ordinary way: find the foreground cheaply, then the finest pass over all of it."""
    finder = PassRecipe(
        name="foreground",
        resolution=Resolution(downsample=downsample),
        model=ModelRecipe(source=foreground),
    )
    one = single(recipe).model_copy(update={"select": Foreground(above=0.5, share=0.0001)})
    return recipe.model_copy(update={"passes": (finder, one), "fuse": "finest"})


def untiled(recipe: Recipe) -> Recipe:
    """The finest pass over everything, in one forward pass where the image is small enough."""
    open_ = {"tile": "auto", "window": "auto", "halo": "auto", "batch": "auto"}
    return recipe.model_copy(update={"passes": (single(recipe).model_copy(update=open_),)})


def alone(recipe: Recipe, source: str, downsample: float) -> Recipe:
    """One cheap model over the whole image."""
    one = PassRecipe(
        name="look", resolution=Resolution(downsample=downsample), model=ModelRecipe(source=source)
    )
    return Recipe(passes=(one,), output=recipe.output.model_copy(update={"classes": None}))


def with_weights(recipe: Recipe, weights: str | None) -> Recipe:
    """Other weights in every pass that has the last pass's model."""
    if weights is None:
        return recipe
    source = recipe.passes[-1].model.source
    passes = tuple(
        one.model_copy(update={"model": one.model.model_copy(update={"weights": weights})})
        if one.model.source == source
        else one
        for one in recipe.passes
    )
    return recipe.model_copy(update={"passes": passes})


def dependences(recipe: Recipe) -> list[str]:
    """Why a tile's answer may not be the dense run's to the bit; empty where it must be."""
    found = ["precision: auto"] if recipe.precision == "auto" else []
    for one in recipe.passes:
        tree: Mapping[str, Any] = one.model_dump()
        fed = [key for key in ("guidance", "features", "exit") if tree.get(key)]
        found += [f"{one.name}: {key}" for key in fed]
        found += [f"{one.name}: hann"] if one.blend == "hann" else []
    return found
