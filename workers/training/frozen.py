"""Images as a training found them: laid out, measured and averaged as a run would, once.

What is measured of an image is kept with the training like a run keeps it with its plans, so that
every crop, process and resumed training sees the same. Reads no crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from saccade.pipeline.errors import SourceError
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.resolve import resolve_image
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.averaged import AveragedSource, Need
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import PlaneSpec, locate
from saccade.workers.averaging import as_passes_read, needs_of
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.measuring import is_measured, with_inputs
from saccade.workers.tasks import ImageEntry
from saccade.workers.training.team import Team

LEAST_DOWNSAMPLE = 1.0
"""An image is never magnified."""
SCALES_TRIED = 9
"""Changes of size for which it is found out beforehand which levels they read."""


@dataclass(frozen=True, slots=True)
class FrozenImage:
    """One image and what is known of it."""

    entry: ImageEntry
    """As the manifest names it."""
    recipe: Recipe
    """That the training is for."""
    plan: ImagePlan
    """How every pass lies over it, and what samples become before its model."""
    cache: Path
    """Where averaged levels are kept."""

    def opened(self) -> Source:
        """The image, with the levels that its passes read."""
        return as_passes_read(open_source(self.entry.uri), self.recipe.overviews, self.cache)


@dataclass(frozen=True, slots=True)
class Freezer:
    """Finds out, once, what a training needs to know of an image."""

    recipe: Recipe
    """That the training is for."""
    specs: tuple[ModelSpec, ...]
    """What the model of each pass declares."""
    folder: RunFolder
    """The training's own: plans and averaged levels lie in it as in a run."""
    scale: float
    """Largest relative change of size of a crop."""

    def __call__(self, entry: ImageEntry) -> FrozenImage:
        """An image as it is known already, or as it is found now.

        Raises:
            SourceError: it can't be opened, or is not the one that the training began with.
            SaccadeError: passes and image do not fit each other; see ``resolve_image``.
        """
        path, cache = self.folder.image_plan(entry.name), self.folder.cache(entry.name)
        known = self.folder.read_image_plan(entry.name) if path.exists() else None
        source = as_passes_read(open_source(entry.uri), self.recipe.overviews, cache)
        with closing(source):
            plan = self._laid_out(entry, source) if known is None else known
            _check_unchanged(plan, source)
            if isinstance(source, AveragedSource):
                source.make(self._levels(source, plan))
            if known is None:
                plan = with_inputs(plan, self.recipe, source)
                write_whole(path, plan.to_json())
        return FrozenImage(entry, self.recipe, plan, cache)

    def _laid_out(self, entry: ImageEntry, source: Source) -> ImagePlan:
        identity, size = source.identity(), entry.pixel_size
        return resolve_image(entry.name, source, identity, self.recipe, self.specs, size)

    def _levels(self, source: AveragedSource, plan: ImagePlan) -> tuple[Need, ...]:
        """Averaged levels that any crop may read."""
        asked = [layout.plane for layout in plan.passes]
        resized = [
            replace(layout, plane=plane)
            for factor in np.linspace(1 - self.scale, 1 + self.scale, SCALES_TRIED).tolist()
            for layout, plane in zip(plan.passes, scaled(source, asked, factor), strict=True)
        ]
        wide = replace(plan, passes=(*plan.passes, *resized))
        return needs_of(source, wide, measured=is_measured(self.recipe, source))


def freeze_images(
    entries: Sequence[ImageEntry],
    freeze: Callable[[ImageEntry], FrozenImage],
    threads: int,
    team: Team,
) -> tuple[FrozenImage, ...]:
    """All images; each is measured by one process of the team, and known to all of them then."""
    with ThreadPoolExecutor(threads) as pool:
        if team.size > 1:
            list(pool.map(freeze, entries[team.rank :: team.size]))
            team.everyone(None)
        return tuple(pool.map(freeze, entries))


def scaled(source: Source, asked: Sequence[PlaneSpec], scale: float) -> tuple[PlaneSpec, ...]:
    """The same planes, all of them coarser by ``scale``, but none finer than the image."""
    factor = max(scale, LEAST_DOWNSAMPLE / min(one.downsample for one in asked))
    return tuple(locate(source, downsample=one.downsample * factor, tolerance=0) for one in asked)


def _check_unchanged(plan: ImagePlan, source: Source) -> None:
    now, then = source.identity(), plan.identity
    if (now.nbytes, now.quick_hash) != (then.nbytes, then.quick_hash):
        raise SourceError(
            f"{source.uri}: the image that the training began with expected ({then.nbytes} bytes); "
            f"found another one ({now.nbytes} bytes): put the old file back, or use another "
            "output.folder"
        )
