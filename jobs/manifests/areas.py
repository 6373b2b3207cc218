"""Areas of interest of images: stated with the digest of their file, so that a change is noticed.

An image's row then differs where its area does, and a resumed run refuses it as it refuses any
other change that is asked of an image.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from saccade.jobs.manifests.places import resolved
from saccade.jobs.manifests.problems import Problem
from saccade.jobs.manifests.rows import area_file
from saccade.pipeline.area_files import area_digest, area_place
from saccade.pipeline.errors import UsageError
from saccade.pipeline.recipe import Recipe
from saccade.workers.tasks import ImageEntry

MOST_KNOWN = 1024
"""Files whose digests are remembered."""


class Areas:
    """Digests of area files, each read once in a while."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def sealed(self, entry: ImageEntry, otherwise: str | None) -> ImageEntry | Problem:
        """An image whose area says its digest.

        Args:
            entry: the image.
            otherwise: file of the area of images that state none.
        """
        stated = entry.overrides.get("area", otherwise)
        if stated is None:
            return entry
        path = resolved(area_file(stated), ".")
        try:
            area = {"file": path, "digest": self._digest(path)}
        except UsageError as error:
            return Problem(entry.uri, str(error))
        return replace(entry, overrides={**entry.overrides, "area": area})

    def _digest(self, path: str) -> str:
        if path not in self._known:
            self._known[path] = area_digest(path)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return self._known[path]


def sealed_recipe(recipe: Recipe, base: Path) -> Recipe:
    """A recipe whose area says where it lies and its digest; relative paths begin at a folder.

    Raises:
        UsageError: the file can't be read.
    """
    if recipe.area is None:
        return recipe
    path = area_place(base, recipe.area.file)
    area = recipe.area.model_copy(update={"file": path, "digest": area_digest(path)})
    return recipe.model_copy(update={"area": area})
