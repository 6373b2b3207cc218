"""Where things stand in a run's folder. Paths only.

    RUN/
      run.json              what this run is: recipe, weights, versions, images
      recipe.yaml           the recipe, as values
      images.jsonl          the images, one a line
      skipped.jsonl         what was listed and gone on without, and why
      journal/000001.jsonl  what is done, one file per driver; of drivers that share the run,
                            in a folder per part: journal/shard-3-of-16/
      settings/             how models compute, measured and frozen, where the recipe says 'auto'
      memory/               what forward passes hold and what is allowed, measured and frozen
      plans/NAME/           image.json, then one frozen plan per pass
      cache/NAME/           levels of a raster averaged anew, until its result is complete
      scratch/NAME/         answers of workers that help with a unit, until that is written
      results/NAME.ome.zarr the result, unless run.json names an object store for them
      pictures/NAME.png     what `saccade show` draws
      logs/                 what workers say
      report.html           what `saccade report` writes

A run can be moved or copied as a whole: nothing in it names the folder itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Unit
from saccade.pipeline.results_place import results_elsewhere
from saccade.pipeline.store_object_shelf import Where, below
from saccade.pipeline.store_shelf import LocalShelf


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run."""

    root: Path
    """The folder itself."""

    @property
    def identity(self) -> Path:
        """What this run is."""
        return self.root / "run.json"

    @property
    def recipe(self) -> Path:
        """The recipe, as values."""
        return self.root / "recipe.yaml"

    @property
    def models(self) -> Path:
        """What was measured of the models."""
        return self.root / "models.json"

    @property
    def images(self) -> Path:
        """The images, one a line."""
        return self.root / "images.jsonl"

    @property
    def skipped(self) -> Path:
        """What was listed and gone on without, one a line; absent where there is nothing."""
        return self.root / "skipped.jsonl"

    @property
    def settings(self) -> Path:
        """What was measured of the ways to compute."""
        return self.root / "settings"

    @property
    def memory(self) -> Path:
        """What was measured of memory, and learned where it ran out."""
        return self.root / "memory"

    @property
    def journal(self) -> Path:
        """Receipts."""
        return self.root / "journal"

    @property
    def lock(self) -> Path:
        """Held by a driver while it opens the run."""
        return self.root / ".opening"

    @property
    def logs(self) -> Path:
        """What workers say."""
        return self.root / "logs"

    @property
    def report(self) -> Path:
        """What `saccade report` writes."""
        return self.root / "report.html"

    def result(self, image: str) -> Where:
        """The OME-Zarr of one image: a path, or a URI where ``run.json`` says so."""
        elsewhere = results_elsewhere(self.root)
        return below(self.root / "results" if elsewhere is None else elsewhere, f"{image}.ome.zarr")

    def picture(self, image: str) -> Path:
        """What `saccade show` draws."""
        return self.root / "pictures" / f"{image}.png"

    def image_plan(self, image: str) -> Path:
        """The frozen facts of one image."""
        return self.root / "plans" / image / "image.json"

    def cache(self, image: str) -> Path:
        """What can be made again from one image, while it is worked on."""
        return self.root / "cache" / image

    def scratch(self, image: str, unit: str = "") -> Path:
        """What workers that help with one image's units, or with one of them, leave for it."""
        return self.root / "scratch" / image / unit

    def pass_plan(self, image: str, layout: PassLayout) -> Path:
        """The frozen units of one pass."""
        return self.root / "plans" / image / f"{layout.index}-{layout.name}.json"

    def read_image_plan(self, image: str) -> ImagePlan:
        """The frozen facts of one image, as written when it was prepared."""
        return ImagePlan.from_json(self.image_plan(image).read_text())

    def read_units(self, image: str, layout: PassLayout) -> tuple[Unit, ...]:
        """The frozen units of one pass."""
        return tuple(map(Unit.from_dict, self.read_pass_plan(image, layout)["units"]))

    def read_pass_plan(self, image: str, layout: PassLayout) -> dict[str, Any]:
        """Units, and the selection that they come from."""
        tree: dict[str, Any] = json.loads(self.pass_plan(image, layout).read_text())
        return tree


def write_whole(path: Path, text: str) -> None:
    """Replace a small file at once: temporary file, fsync, rename.

    Raises:
        StorageFull: no space is left; what was there before is untouched.
        StoreError: it can't be written for another reason.
    """
    LocalShelf(path.parent, fsync=True).put(path.name, text.encode())
