"""How every pass of a run lies over one image, within the memory that there is.

Drafts the passes as if memory were endless, learns what their forward passes hold, and lays them
out again so that they fit: the glance's resolution where the recipe leaves it open, tiles, windows
and batches; then has the tuner choose the fastest of what is left. Writes no plan.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from saccade.pipeline.capacity import WHOLE_PASS_PX, Capacity
from saccade.pipeline.errors import RecipeError
from saccade.pipeline.execution import Calibration
from saccade.pipeline.geometry import Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import AS_LOADED, ModelForm, PassModel
from saccade.pipeline.recipe import PassRecipe, Recipe, Resolution
from saccade.pipeline.resolve import locate_resolution, resolve_image, seen_by
from saccade.pipeline.sources.averaged import AveragedSource
from saccade.pipeline.sources.base import Identity, Source
from saccade.workers.areas import area_of, glance_in_area
from saccade.workers.averaging import expect_levels
from saccade.workers.backing_off import Lesson
from saccade.workers.device import Predictor, kind_of, torch_device
from saccade.workers.measuring import is_measured, with_inputs
from saccade.workers.memory import Account, Budget, MemoryModel
from saccade.workers.memory_book import MemoryBook, ProbeCase
from saccade.workers.memory_host import LaneBudgets
from saccade.workers.memory_schedule import (
    Work,
    check_each_fits,
    largest_whole,
    whole_candidates,
)
from saccade.workers.reading import WindowPixels
from saccade.workers.tasks import ImageEntry, WorkerSpec
from saccade.workers.tuning import Tuner

BATCH_PX = {"cpu": 512 * 512, "cuda": 16 * 512 * 512}
"""Pixels per forward pass that suit a kind of device, where the recipe leaves the batch open."""
COARSEST_SIDE_PX = 256
"""Where a glance may be as coarse as it takes to fit, its longer side keeps so many pixels."""
COARSER_THAN_NEXT = 4
"""A glance whose bounds the recipe leaves open is so many times coarser than the pass after it."""

TIMED, TIMED_MOST_PX = 3, 1024
"""Batches timed to tell a pass's seconds, and the longest side of a window among them."""

LoadModel = Callable[[PassRecipe, ModelForm], PassModel]


@dataclass(frozen=True, slots=True)
class Resolved:
    """One image's passes, and how they came to be as they are."""

    plan: ImagePlan
    """What runs."""
    settings: Mapping[str, Calibration]
    """By pass, where a setting was measured."""
    works: tuple[Work, ...]
    """What every pass runs at once; without those that can't be probed."""
    budget: Budget
    """Of the worker."""
    lessons: Mapping[str, Lesson]
    """By pass, what had run out of memory before and made it smaller."""

    @property
    def accounts(self) -> dict[str, Account]:
        """By pass: what its forward pass may hold and is expected to."""
        return accounts_of(self.works, self.budget)

    def said(self) -> dict[str, dict[str, Any]]:
        """What receipts hold: the accounts and, where there are any, the lessons."""
        accounts = {name: account.to_dict() for name, account in self.accounts.items()}
        lessons = {name: asdict(lesson) for name, lesson in self.lessons.items()}
        return {"memory": accounts} | ({"lessons": lessons} if lessons else {})


@dataclass(frozen=True, slots=True)
class Resolver:
    """Lays the passes of a recipe over one image, for the workers of one run."""

    spec: WorkerSpec
    """Of the worker."""
    book: MemoryBook
    """What is known of memory."""
    tuner: Tuner
    """What is known of speed."""
    load: LoadModel
    """A pass's model in a form."""
    entry: ImageEntry
    """The image."""
    recipe: Recipe
    """With the image's overrides."""
    source: Source
    """The image, open."""

    def resolve(self) -> Resolved:
        """Every pass of the recipe over the image.

        Raises:
            UnitTooLarge: a pass does not fit the memory; names the worst and what to do.
            PlanError: the whole image does not fit at the coarsest resolution permitted.
            SaccadeError: recipe and image do not fit each other; see ``resolve_image``.
        """
        candidates = self._candidates()
        recipe = self.recipe.glancing_at(max(candidates)) if candidates else self.recipe
        identity = self.source.identity()
        draft = self._lay_out(identity, recipe)
        memory = [self._memory(draft, layout) for layout in draft.passes]
        if candidates:
            finest = self._finest_glance(candidates, draft)
            recipe = self.recipe.glancing_at(finest)
        capacities = [self._capacity(draft, *one) for one in zip(draft.passes, memory, strict=True)]
        plan = self._lay_out(identity, recipe, capacities)
        base = self.spec.model_folder
        plan = replace(plan, area=area_of(self.recipe, base))
        self._average(plan)
        measured = is_measured(recipe, self.source)
        inside = glance_in_area(plan, self.recipe, base) if measured else None
        plan = with_inputs(plan, recipe, self.source, inside)
        plan, settings = self.tuner.tune(recipe, plan, self.source, capacities)
        # who held the memory when a lesson was learned may be gone: lessons make smaller, and only
        # what was measured refuses
        check_each_fits(self._works(plan, taught=False), self.book.budget())
        works = self._works(plan)
        return Resolved(plan, settings, works, self.book.budget(), self._lessons(plan))

    def _average(self, plan: ImagePlan) -> None:
        """Make the levels that passes read where the file's own won't do, in one sweep."""
        if not isinstance(self.source, AveragedSource):
            return
        self.source.make(expect_levels(self.source, plan, self.recipe, self.spec.model_folder))

    def accounts(self, plan: ImagePlan) -> dict[str, Account]:
        """By pass, what a forward pass may hold and is expected to, where that is known."""
        return accounts_of(self._works(plan, measure=False), self.book.budget())

    def _lessons(self, plan: ImagePlan) -> dict[str, Lesson]:
        known = ((one.name, self.book.lesson_for(self._case(plan, one))) for one in plan.passes)
        return {name: lesson for name, lesson in known if lesson is not None}

    def _works(
        self, plan: ImagePlan, *, measure: bool = True, taught: bool = True
    ) -> tuple[Work, ...]:
        known = (
            (one, self._memory(plan, one, measure=measure, taught=taught)) for one in plan.passes
        )
        return tuple(
            Work(one.name, model, one.batch, one.window_shape, self._lanes_nbytes(plan, one))
            for one, model in known
            if model is not None
        )

    def _lay_out(
        self, identity: Identity, recipe: Recipe, capacities: Sequence[Capacity] = ()
    ) -> ImagePlan:
        specs = [self.load(one, AS_LOADED).spec for one in recipe.passes]
        entry = self.entry
        hashes = [self.book.fingerprint(one) for one in recipe.passes]
        return resolve_image(
            entry.name, self.source, identity, recipe, specs, entry.pixel_size, capacities, hashes
        )

    def seconds_per_px(self, plan: ImagePlan, layout: PassLayout) -> float:
        """Of the device, per pixel computed: the fastest of a few batches without content."""
        case = self._case(plan, layout)
        height, width = (min(side, TIMED_MOST_PX) for side in layout.window_shape)
        windows = case.blank(layout.batch, (height, width))
        seconds = fastest_seconds(self._predictor(case), windows)
        return seconds / (layout.batch * height * width)

    # ----------------------------------------------------------------------------------- memory

    def _case(self, plan: ImagePlan, layout: PassLayout) -> ProbeCase:
        return probe_case(self.recipe.passes[layout.index], plan, layout, self.source)

    def _memory(
        self, plan: ImagePlan, layout: PassLayout, *, measure: bool = True, taught: bool = True
    ) -> MemoryModel | None:
        case = self._case(plan, layout)
        model = self.book.model_for(case, (lambda: self._predictor(case)) if measure else None)
        return self.book.taught(case, model) if taught and model else model

    def _predictor(self, case: ProbeCase) -> Predictor:
        layout = case.layout
        model = self.load(case.one, layout.form)
        return Predictor(model, layout, torch_device(self.spec.device))

    def _capacity(
        self, draft: ImagePlan, layout: PassLayout, model: MemoryModel | None
    ) -> Capacity:
        batch_px = BATCH_PX[kind_of(self.spec.device)]
        if model is None:
            return Capacity(batch_px)
        most_px = model.most_px(self._free(draft, layout))
        as_large_as_fits = self.recipe.passes[layout.index].resolution.auto
        return Capacity(batch_px, most_px, most_px if as_large_as_fits else WHOLE_PASS_PX)

    def _free(self, plan: ImagePlan, layout: PassLayout) -> Budget:
        return self.book.budget().reserving(self._lanes_nbytes(plan, layout))

    def _lanes_nbytes(self, plan: ImagePlan, layout: PassLayout) -> int:
        """What lanes and the source hold of a pass, where the device's memory is the host's."""
        if self.spec.device != "cpu":
            return 0
        height, width = layout.window_shape
        batch_px = layout.batch * height * width
        unit_nbytes = layout.unit_nbytes(np.dtype(plan.scores).itemsize)
        lanes = LaneBudgets(self.spec.read_nbytes, self.spec.write_nbytes)
        batch_nbytes = batch_px * nbytes_per_px(plan, layout, self.source)
        return lanes.held_nbytes(batch_nbytes, unit_nbytes) + self.source.cache_nbytes

    # ----------------------------------------------------------------------------------- glance

    def _candidates(self) -> dict[float, Shape]:
        """Resolutions that the glance may have, with the image's shape; none if it is stated."""
        bounds = self.recipe.passes[0].resolution.auto
        if bounds is None:
            return {}
        shape = self.source.levels[0].shape
        later = [self._downsample(one.resolution) for one in self.recipe.passes[1:2]]
        usual = later[0] * COARSER_THAN_NEXT if later else 1.0
        finest = self._downsample(bounds.finest) if bounds.finest else usual
        smallest = max(finest, max(shape) / COARSEST_SIDE_PX)
        coarsest = self._downsample(bounds.coarsest) if bounds.coarsest else smallest
        if finest > coarsest:
            raise RecipeError(
                f"pass {self.recipe.passes[0].name!r}: auto chooses between finest "
                f"(1/{finest:g} here) and coarsest (1/{coarsest:g}), which exclude each other"
            )
        multiple = self.load(self.recipe.passes[0], AS_LOADED).spec.multiple
        return whole_candidates(shape, finest, coarsest, multiple)

    def _downsample(self, resolution: Resolution) -> float:
        return locate_resolution(self.source, resolution, self.entry.pixel_size).downsample

    def _finest_glance(self, candidates: Mapping[float, Shape], draft: ImagePlan) -> float:
        glance = draft.passes[0]
        measured = self._memory(draft, glance, taught=False)
        if measured is None:  # it can't be tried in other sizes
            return max(candidates)
        # what is read of the whole image waits in memory beside the forward pass
        waiting = nbytes_per_px(draft, glance, self.source) if self.spec.device == "cpu" else 0
        budget = self._free(draft, glance)
        finest = largest_whole(glance.name, measured.with_more(waiting), budget, candidates)
        taught = self.book.taught(self._case(draft, glance), measured).with_more(waiting)
        allowed = {d: shape for d, shape in candidates.items() if taught.fits(budget, 1, shape)}
        return max(finest, min(allowed, default=max(candidates)))


def fastest_seconds(predictor: Predictor, windows: Sequence[WindowPixels]) -> float:
    """What a batch takes, the fastest of a few times."""
    spent = []
    for _ in range(TIMED):
        since = time.perf_counter()
        predictor(windows)
        spent.append(time.perf_counter() - since)
    return min(spent)


def accounts_of(works: Sequence[Work], budget: Budget) -> dict[str, Account]:
    """By pass, before it runs."""
    return {work.name: Account.of(budget, work.projected_nbytes) for work in works}


def probe_case(one: PassRecipe, plan: ImagePlan, layout: PassLayout, source: Source) -> ProbeCase:
    """One pass of one image as its memory depends on it."""
    before = plan.passes[layout.index - 1]
    guidance = len(before.classes) if layout.guidance else 0
    seen = seen_by(layout, source)
    return ProbeCase(one, layout, str(seen.dtype), seen.channels, guidance)


def nbytes_per_px(plan: ImagePlan, layout: PassLayout, source: Source) -> int:
    """Host memory that a pixel of a window holds while it waits: views, guidance, features."""
    views = 1 + len(layout.context)
    guidance = 4 * len(plan.passes[layout.index - 1].classes) if layout.guidance else 0
    features = layout.takes.nbytes_per_px(4) if layout.takes else 0
    seen = seen_by(layout, source)
    return seen.dtype.itemsize * seen.channels * views + guidance + math.ceil(features)
