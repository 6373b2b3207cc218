"""Which passes hand encoder features on, and on what grid. Pure; knows no array and no file.

A pass may begin from what the encoder of the pass before it found (``features: true``), so that
work on the same ground is not done twice. This module says who gives what to whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Recipe

if TYPE_CHECKING:
    from saccade.pipeline.image_plan import ImagePlan
    from saccade.pipeline.layout import PassLayout

ITEMSIZE = 2
"""Bytes of a stored feature: float16."""


@dataclass(frozen=True, slots=True)
class FeatureGrid:
    """Features of one pass: how many, how densely, and whose."""

    channels: int
    """Numbers per place."""
    stride: int
    """Input pixels of the pass per place, along each axis."""
    model: str
    """Hash of the model that computes them, and of its weights."""

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any] | None) -> FeatureGrid | None:
        """The inverse of ``dataclasses.asdict``; None stays None."""
        return None if tree is None else cls(**tree)

    def nbytes_per_px(self, itemsize: int = ITEMSIZE) -> float:
        """Bytes per input pixel."""
        return self.channels * itemsize / self.stride**2


@dataclass(frozen=True, slots=True)
class FeatureFlow:
    """What one pass does with features."""

    gives: FeatureGrid | None = None
    """Stored for the next pass; None where that takes none."""
    takes: FeatureGrid | None = None
    """Read of the previous pass, on this pass's own grid; ``model`` is the previous pass's."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Of both grids; windows begin and end at multiples of them."""
        return tuple(grid.stride for grid in self._grids.values())

    @property
    def facts(self) -> dict[str, tuple[int, int]]:
        """Channels and stride of what is given and taken, by those words; nothing where none is."""
        return {name: (grid.channels, grid.stride) for name, grid in self._grids.items()}

    @property
    def _grids(self) -> dict[str, FeatureGrid]:
        both = {"gives": self.gives, "takes": self.takes}
        return {name: grid for name, grid in both.items() if grid is not None}


def flows_of(
    recipe: Recipe, specs: Sequence[ModelSpec], model_hashes: Sequence[str]
) -> tuple[FeatureFlow, ...]:
    """What every pass of a recipe does with features.

    Args:
        recipe: with the image's overrides.
        specs: what the model of each pass declares.
        model_hashes: of each pass's model and weights.

    Raises:
        RecipeError: a pass asks for features that its model does not take, or that the model
            before it does not give.
    """
    flows = [FeatureFlow() for _ in recipe.passes]
    for index, one in enumerate(recipe.passes):
        if one.features:
            gives, takes = _handed_on(recipe, index, specs, model_hashes)
            flows[index - 1] = FeatureFlow(gives, flows[index - 1].takes)
            flows[index] = FeatureFlow(None, takes)
    return tuple(flows)


def _handed_on(
    recipe: Recipe, index: int, specs: Sequence[ModelSpec], model_hashes: Sequence[str]
) -> tuple[FeatureGrid, FeatureGrid]:
    """What the pass before ``index`` gives, and pass ``index`` takes."""
    name, before = recipe.passes[index].name, recipe.passes[index - 1].name
    given, spec = specs[index - 1].features, specs[index]
    if not spec.takes_features or spec.features is None:
        raise RecipeError(
            f"pass {name!r}: features is on, but its model takes none; remove 'features', or "
            "declare 'takes_features' on the model if its forward() has that argument"
        )
    if given is None:
        raise RecipeError(
            f"pass {name!r}: takes the features of {before!r}, whose model gives none; remove "
            f"'features', or declare 'features: [channels, stride]' on the model of {before!r}"
        )
    if given[0] != spec.takes_features:
        raise RecipeError(
            f"pass {name!r}: its model takes {spec.takes_features} channels of features; the model "
            f"of {before!r} gives {given[0]}: use models of one width, or remove 'features'"
        )
    model = model_hashes[index - 1]
    return FeatureGrid(*given, model), FeatureGrid(given[0], spec.features[1], model)


def feature_key(plan: ImagePlan, layout: PassLayout) -> dict[str, Any]:
    """What tells the features of a pass from others: image, resolution, tiles, model, arithmetic.

    Raises:
        ValueError: the pass stores none.
    """
    if layout.gives is None:
        raise ValueError(f"pass {layout.name!r} stores no features")
    plane = layout.plane
    form = {name: getattr(layout, name) for name in ("precision", "channels_last", "fused")}
    return {
        "image": plan.identity.quick_hash,
        "pass": layout.name,
        "level": plane.level,
        "factor": plane.factor,
        "downsample": plane.downsample,
        "tile_px": layout.tile_px,
        **asdict(layout.gives),
        **form,
    }
