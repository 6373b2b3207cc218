"""The mask of an image, where its recipe names one: opened, told from another, laid over a pass."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from saccade.pipeline.errors import SourceError
from saccade.pipeline.ground import tiles_allowed
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.remote_stores import is_remote
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import Identity


def mask_uri(recipe: Recipe, base: Path) -> str | None:
    """Where the mask lies; a relative path begins at the recipe's own folder."""
    if recipe.mask is None or is_remote(recipe.mask):
        return recipe.mask
    return str(base / recipe.mask)


def mask_identity(recipe: Recipe, base: Path) -> Identity | None:
    """What tells the mask from another one; None where the recipe names none.

    Raises:
        SourceError: it does not open.
    """
    uri = mask_uri(recipe, base)
    if uri is None:
        return None
    with closing(open_source(uri)) as mask:
        return mask.identity()


def allowed_by_mask(plan: ImagePlan, recipe: Recipe, index: int, base: Path) -> np.ndarray | None:
    """``(tile rows, tile columns)`` bool: tiles of a pass that may be visited; None means all.

    Raises:
        SourceError: the mask does not open, does not cover the image, or is not the one that the
            image was prepared with.
    """
    uri, then = mask_uri(recipe, base), plan.mask
    if uri is None:
        return None
    with closing(open_source(uri)) as mask:
        now = mask.identity()
        if then is not None and (now.nbytes, now.quick_hash) != (then.nbytes, then.quick_hash):
            raise SourceError(
                f"{uri}: the mask changed while the run was going on; put the old file back, or "
                "run again with --force"
            )
        return tiles_allowed(mask, plan.passes[index])
