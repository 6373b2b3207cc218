"""Which setting every pass of an image gets, where the recipe leaves it to measurement.

Looks in the run first, so that resumed runs and other workers compute as the first did, then in the
user's cache; measures only what neither knows. How is ``calibration``'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saccade.pipeline.capacity import Capacity
from saccade.pipeline.execution import Calibration, ExecutionSetting, SearchSpace, choose
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import ModelForm, PassModel
from saccade.pipeline.recipe import PassRecipe, Recipe
from saccade.pipeline.resolve import seen_by
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.workers.calibration import Subject, calibrate
from saccade.workers.device import device_name, kind_of, torch_device
from saccade.workers.facts import hash_of, own_version
from saccade.workers.settings_shelf import freeze, read_cached, read_frozen, write_cached
from saccade.workers.tasks import WorkerSpec

SECONDS = 8.0
"""Time for measuring all passes of an image, shared by those that are not known yet."""

LoadModel = Callable[[PassRecipe, ModelForm], PassModel]


@dataclass(frozen=True)
class Case:
    """One pass of one image, for which a setting is wanted."""

    recipe: Recipe
    """With the image's overrides."""
    one: PassRecipe
    """Of the pass."""
    plan: ImagePlan
    """Of the image, as a pinned float32 would have it."""
    layout: PassLayout
    """Of the pass, likewise."""
    source: Source
    """The image, open."""
    space: SearchSpace
    """What may be tried."""


@dataclass(frozen=True)
class Tuner:
    """Finds the settings of an image's passes: in the run, in the cache, or by measuring."""

    spec: WorkerSpec
    """Of the worker that measures."""
    frozen: Path
    """RUN/settings."""
    load: LoadModel
    """A pass's model in a form; kept by nobody else."""
    fingerprint: Callable[[PassRecipe], str]
    """Hash of a pass's model and its weights."""
    cache: Path | None = None
    """Of the user; None neither reads nor writes one."""
    fresh: bool = False
    """Whether to measure although the cache knows; the cache then learns."""
    seconds: float = SECONDS
    """Time for measuring all passes."""

    def tune(
        self, recipe: Recipe, plan: ImagePlan, source: Source, capacities: Sequence[Capacity]
    ) -> tuple[ImagePlan, dict[str, Calibration]]:
        """The plan with the settings that run, and how they came about, by pass.

        Args:
            recipe: with this image's overrides; unless its precision is 'auto', nothing is tuned.
            plan: as a pinned float32 would have it.
            source: the image, open.
            capacities: of the device, by pass.

        Raises:
            StoreError: what was measured can't be written to the run, or not understood there.
        """
        if recipe.precision != "auto":
            return plan, {}
        layouts, found = [], {}
        end = time.perf_counter() + self.seconds
        kind = kind_of(self.spec.device)
        for one, layout, capacity in zip(recipe.passes, plan.passes, capacities, strict=True):
            left = max(0.0, end - time.perf_counter()) / (len(plan.passes) - layout.index)
            space = SearchSpace.of(layout, one, kind, capacity)
            calibration = self._of_pass(Case(recipe, one, plan, layout, source, space), left)
            if calibration is not None:
                layout = calibration.chosen.setting.applied_to(layout)
                found[one.name] = calibration
            layouts.append(layout)
        return replace(plan, passes=tuple(layouts)), found

    def _of_pass(self, case: Case, seconds: float) -> Calibration | None:
        key = self._key(case)
        known = read_frozen(self.frozen, key, Calibration.from_dict)
        if known is not None:
            return known
        found = None if self.fresh else read_cached(self.cache, key, Calibration.from_dict)
        if found is None:
            found = self._measured(case, seconds)
            if found is None:
                return None
            write_cached(self.cache, key, found)
        return freeze(self.frozen, key, found, Calibration.from_dict)

    def _measured(self, case: Case, seconds: float) -> Calibration | None:
        since = time.perf_counter()
        tolerance = case.recipe.tolerance
        trials = calibrate(self._subject(case), case.space, tolerance, seconds)
        if not trials:
            return None
        spent = round(time.perf_counter() - since, 3)
        chosen = choose(trials, tolerance)
        return Calibration(trials, chosen, spent, device_name(self.spec.device), case.plan.name)

    def _subject(self, case: Case) -> Subject:
        held: dict[ModelForm, PassModel] = {}

        def models(form: ModelForm) -> PassModel:
            if form not in held:
                held.clear()  # one copy at a time: models can be large
                held[form] = self.load(case.one, form)
            return held[form]

        before = case.plan.passes[case.layout.index - 1]
        return Subject(
            plane=Plane(seen_by(case.layout, case.source), case.layout.plane),
            layout=case.layout,
            models=models,
            device=torch_device(self.spec.device),
            torch_threads=self.spec.torch_threads,
            guidance_classes=len(before.classes) if case.layout.guidance else 0,
            label_threshold=case.plan.label_threshold,
        )

    def _key(self, case: Case) -> str:
        """Hash of all that a choice depends on, but for the pixels and the moment."""
        seen = seen_by(case.layout, case.source)
        geometry = ("stride", "multiple", "halo_px", "tile_px", "blend", "context", "guidance")
        facts = {
            "model": self.fingerprint(case.one),
            "device": device_name(self.spec.device),
            "threads": self.spec.torch_threads,
            "saccade": own_version(),
            "tolerance": case.recipe.tolerance.model_dump(),
            "geometry": {name: getattr(case.layout, name) for name in geometry}
            | case.layout.flow.facts,
            "space": asdict(case.space),
            "samples": [str(seen.dtype), seen.channels],
        }
        return hash_of(facts)


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
