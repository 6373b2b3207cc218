"""Which setting every pass of an image gets, where the recipe leaves it to measurement.

What was measured is frozen in RUN/settings, where the first to write wins and everybody reads the
winner: resumed runs and other workers compute as the first did. A copy in the user's cache saves
later runs the measuring. How it is measured is ``calibration``'s business.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from saccade.pipeline.errors import StoreError
from saccade.pipeline.execution import Calibration, ExecutionSetting, SearchSpace, choose
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel
from saccade.pipeline.models.loading import fingerprint
from saccade.pipeline.recipe import Arithmetic, PassRecipe, Recipe
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.workers.calibration import Subject, calibrate
from saccade.workers.device import device_name
from saccade.workers.tasks import WorkerSpec

SECONDS = 8.0
"""Time for measuring all passes of an image, shared by those that are not known yet."""

LoadModel = Callable[[PassRecipe, Arithmetic, bool], PassModel]


@dataclass(frozen=True)
class Tuner:
    """Finds the settings of an image's passes: in the run, in the cache, or by measuring."""

    spec: WorkerSpec
    """Of the worker that measures."""
    frozen: Path
    """RUN/settings."""
    load: LoadModel
    """A pass's model by arithmetic and by whether channels lie last; kept by nobody else."""
    batch_px: int
    """Pixels per forward pass that suit the device, where a batch is not searched."""
    cache: Path | None = None
    """Of the user; None neither reads nor writes one."""
    fresh: bool = False
    """Whether to measure although the cache knows; the cache then learns."""
    seconds: float = SECONDS
    """Time for measuring all passes."""

    def tune(
        self, recipe: Recipe, plan: ImagePlan, source: Source
    ) -> tuple[ImagePlan, dict[str, Calibration]]:
        """The plan with the settings that run, and how they came about, by pass.

        Args:
            recipe: with this image's overrides; unless its precision is 'auto', nothing is tuned.
            plan: as a pinned float32 would have it.
            source: the image, open.

        Raises:
            StoreError: what was measured can't be written to the run, or not understood there.
        """
        if recipe.precision != "auto":
            return plan, {}
        layouts, found = [], {}
        end = time.perf_counter() + self.seconds
        for one, layout in zip(recipe.passes, plan.passes, strict=True):
            left = max(0.0, end - time.perf_counter()) / (len(plan.passes) - layout.index)
            calibration = self._of_pass(recipe, one, plan, layout, source, left)
            if calibration is not None:
                layout = calibration.chosen.setting.applied_to(layout)
                found[one.name] = calibration
            layouts.append(layout)
        return replace(plan, passes=tuple(layouts)), found

    def _of_pass(
        self,
        recipe: Recipe,
        one: PassRecipe,
        plan: ImagePlan,
        layout: PassLayout,
        source: Source,
        seconds: float,
    ) -> Calibration | None:
        kind = self.spec.device.split(":")[0]
        space = SearchSpace.of(layout, one, kind, self.batch_px)
        key = self._key(recipe, one, layout, space, source)
        known = read_frozen(self.frozen, key)
        if known is None:
            known = None if self.fresh else read_cached(self.cache, key)
            if known is None:
                known = self._measured(recipe, one, plan, layout, space, source, seconds)
                if known is None:
                    return None
                write_cached(self.cache, key, known)
            known = freeze(self.frozen, key, known)
        return known

    def _measured(
        self,
        recipe: Recipe,
        one: PassRecipe,
        plan: ImagePlan,
        layout: PassLayout,
        space: SearchSpace,
        source: Source,
        seconds: float,
    ) -> Calibration | None:
        held: dict[tuple[str, bool], PassModel] = {}

        def models(precision: Arithmetic, channels_last: bool) -> PassModel:
            if (precision, channels_last) not in held:
                held.clear()  # one copy at a time: models can be large
                held[precision, channels_last] = self.load(one, precision, channels_last)
            return held[precision, channels_last]

        before = plan.passes[layout.index - 1].classes if layout.guidance else ()
        subject = Subject(
            plane=Plane(source, layout.plane),
            layout=layout,
            models=models,
            device=self.spec.device,
            torch_threads=self.spec.torch_threads,
            guidance_classes=len(before),
            label_threshold=plan.label_threshold,
        )
        since = time.perf_counter()
        trials = calibrate(subject, space, recipe.tolerance, seconds)
        if not trials:
            return None
        chosen = choose(trials, recipe.tolerance)
        spent = round(time.perf_counter() - since, 3)
        return Calibration(trials, chosen, spent, device_name(self.spec.device), plan.name)

    def _key(
        self,
        recipe: Recipe,
        one: PassRecipe,
        layout: PassLayout,
        space: SearchSpace,
        source: Source,
    ) -> str:
        """Hash of all that a choice depends on, but for the pixels and the moment."""
        geometry = ("stride", "multiple", "halo_px", "tile_px", "blend", "context", "guidance")
        facts = {
            "model": fingerprint(one.model, self.spec.model_folder),
            "device": device_name(self.spec.device),
            "threads": self.spec.torch_threads,
            "saccade": version("saccade"),
            "tolerance": recipe.tolerance.model_dump(),
            "geometry": {name: getattr(layout, name) for name in geometry},
            "space": asdict(space),
            "samples": [str(source.dtype), source.channels],
        }
        text = json.dumps(facts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def said_of(plan: ImagePlan, found: Mapping[str, Calibration]) -> dict[str, dict[str, Any]]:
    """Per pass, the setting that runs; with what it costs and errs by, where that was measured."""
    said = {}
    for layout in plan.passes:
        said[layout.name] = asdict(ExecutionSetting.of(layout))
        if layout.name in found:
            trial = found[layout.name].chosen
            said[layout.name] |= {
                "seconds_per_megapixel": round(trial.seconds_per_megapixel, 6),
                "mean_error": trial.mean_error,
                "label_agreement": trial.label_agreement,
                "tried": len(found[layout.name].trials),
            }
    return said


# --------------------------------------------------------------------------------- what is known


def cache_folder() -> Path | None:
    """Where this user's calibrations lie; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path("~/.cache").expanduser()
    return home / "saccade" / "calibration" if home.is_absolute() else None


def read_frozen(folder: Path, key: str) -> Calibration | None:
    """What a run has settled on; None where it has not yet.

    Raises:
        StoreError: it is there and can't be understood.
    """
    path = folder / f"{key}.json"
    try:
        return Calibration.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: a setting that images of this run were made with can't be understood "
            f"({error}); restore it, or use a new folder"
        ) from error


def freeze(folder: Path, key: str, calibration: Calibration) -> Calibration:
    """Settle a run on a calibration, unless another worker was first; returns the one that holds.

    Raises:
        StoreError: it can't be written.
    """
    path = folder / f"{key}.json"
    try:
        _put_first(path, calibration)
    except FileExistsError:
        pass  # the first wins
    except OSError as error:
        raise StoreError(f"{path}: the setting can't be written: {error}") from error
    held = read_frozen(folder, key)
    assert held is not None
    return held


def _put_first(path: Path, calibration: Calibration) -> None:
    """Write a whole file under a name that nobody has taken, or raise ``FileExistsError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        with draft.open("w") as file:
            json.dump(calibration.to_dict(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_cached(folder: Path | None, key: str) -> Calibration | None:
    """What the user's cache knows; None where it knows nothing, or nothing that makes sense."""
    if folder is None:
        return None
    try:
        return Calibration.from_dict(json.loads((folder / f"{key}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # measuring again costs seconds, and replaces it


def write_cached(folder: Path | None, key: str, calibration: Calibration) -> None:
    """Let later runs know; a cache that can't be written is none."""
    if folder is not None:
        with suppress(OSError):
            path = folder / f"{key}.json"
            path.unlink(missing_ok=True)
            _put_first(path, calibration)
