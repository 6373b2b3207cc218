"""What a worker keeps between units: models on the device, images that are open.

Everything here is opened lazily, shared between lanes, and closed when nobody uses it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from saccade.pipeline.answers import read_answers
from saccade.pipeline.area_files import area_place
from saccade.pipeline.errors import SourceError
from saccade.pipeline.features import check_features, read_features
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import AS_LOADED, Arithmetic, ModelForm, PassModel
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.loading import fingerprint, load_model
from saccade.pipeline.plan import Unit, Window
from saccade.pipeline.recipe import PassRecipe, Recipe
from saccade.pipeline.resampling import coarse_box_for, upsample
from saccade.pipeline.resolve import seen_by
from saccade.pipeline.selectors import Budget, Selector, inner
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.averaged import AveragedSource
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.pipeline.store import ImageStore
from saccade.workers.areas import tiles_in_area
from saccade.workers.averaging import as_passes_read, expect_levels
from saccade.workers.backing_off import PixelLimit
from saccade.workers.device import Predictor, torch_device
from saccade.workers.device_graphs import Graphs
from saccade.workers.device_meter import keep_to, most_held_nbytes
from saccade.workers.device_simulated import SimulatedModel, simulated_memory
from saccade.workers.facts import hash_of
from saccade.workers.folder import RunFolder
from saccade.workers.masking import allowed_by_mask, mask_identity
from saccade.workers.memory import Account
from saccade.workers.memory_book import MemoryBook, ProbeCase
from saccade.workers.memory_curve import is_simulated
from saccade.workers.reading import (
    WindowPixels,
    check_present,
    read_window,
)
from saccade.workers.resolving import (
    Resolved,
    Resolver,
    fastest_seconds,
    nbytes_per_px,
    probe_case,
)
from saccade.workers.settings_shelf import cache_folder
from saccade.workers.shared_answers import SharedAnswers
from saccade.workers.steps import finalise, freeze_image, select_next
from saccade.workers.tasks import ImageEntry, Task, WorkerSpec
from saccade.workers.tuning import Tuner, said_of

IDLE_IMAGES = 2
"""Images that stay open while nobody uses them."""


@dataclass
class ImageContext:
    """One image in a run, open."""

    plan: ImagePlan
    """Its frozen facts."""
    source: Source
    """Its pixels."""
    store: ImageStore
    """Its result."""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    """By pass, what a forward pass may hold and is expected to, where that is known."""
    predictors: dict[int, Predictor] = field(default_factory=dict)
    """By pass, once it has computed."""
    users: int = 0
    """Units that hold it."""
    _checked: set[int] = field(default_factory=set)
    """Passes of which the features that they take are known to be the right ones."""
    planes: tuple[Plane, ...] = field(init=False)
    """The source at each pass's resolution."""

    def __post_init__(self) -> None:
        passes = self.plan.passes
        self.planes = tuple(Plane(seen_by(one, self.source), one.plane) for one in passes)

    def read(self, unit: Unit, window: Window) -> WindowPixels:
        """A window's pixels, and what its pass is given of the previous one.

        Raises:
            StoreError: the features there are not those that were planned for.
        """
        layout = self.plan.passes[unit.pass_index]
        read = read_window(self.planes[unit.pass_index], layout, window)
        guidance = self._guidance(layout, window.read) if layout.guidance else None
        features = self._features(layout, window.read) if layout.takes else None
        return read.led_by(guidance, features)

    def _features(self, layout: PassLayout, box: Box) -> np.ndarray:
        if layout.index not in self._checked:
            check_features(self.store, self.plan, layout)
            self._checked.add(layout.index)
        return read_features(self.store, self.plan, layout, box)

    def _guidance(self, layout: PassLayout, box: Box) -> np.ndarray:
        before = self.plan.passes[layout.index - 1]
        ratio = before.score_downsample / layout.plane.downsample
        need = coarse_box_for(box, ratio, before.score_shape)
        scores, _ = read_answers(self.store, before, need)
        guidance = upsample(scores, (need.y0, need.x0), ratio, box, before.score_shape)
        np.nan_to_num(guidance, copy=False, nan=0.0)
        return guidance

    def memory_said(self, layout: PassLayout, device: str) -> dict[str, int | None]:
        """Allowed, reserved, projected and measured, as receipts hold them; what is known of it."""
        most_nbytes = most_held_nbytes(device)
        account = self.accounts.get(layout.name)
        if account is None:
            return {"measured_nbytes": most_nbytes}
        added = max(0, most_nbytes - account.reserved_nbytes)
        return replace(account, measured_nbytes=added).to_dict()

    def window_nbytes(self, unit: Unit, window: Window) -> int:
        """Host memory that a window's pixels will hold."""
        layout = self.plan.passes[unit.pass_index]
        return window.read.area * nbytes_per_px(self.plan, layout, self.source)


class WorkerContext:
    """Models and images of one worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.folder = RunFolder(spec.folder)
        self.recipe = Recipe.model_validate_json(spec.recipe_json)
        self._models: dict[tuple[str, ModelForm], PassModel] = {}
        self._graphs: dict[int, Graphs] = {}  # by the id of a model above
        # workers of one process have one allocator, and its limit is that of all of them
        keep_to(spec.device, spec.limit, spec.sharing if spec.own_process else 1)
        self._fingerprints: dict[str, str] = {}
        self.book = MemoryBook(spec, self.folder.memory, self.fingerprint, cache_folder("memory"))
        self._limits: dict[tuple[str, Arithmetic, int], PixelLimit] = {}
        self._images: dict[str, ImageContext] = {}
        self._images_lock = threading.Lock()
        self._models_lock = threading.RLock()  # a converted copy needs the model as loaded

    # ---------------------------------------------------------------------------------- models

    def model(self, one: PassRecipe, form: ModelForm = AS_LOADED) -> PassModel:
        """A pass's model, loaded once; in another form, a copy that is converted once."""
        key = (one.model.model_dump_json(), form)
        folder, device = self.spec.model_folder, torch_device(self.spec.device)
        with self._models_lock:
            if key not in self._models:
                self._models[key] = (
                    self._on_device(load_model(one.model, base_folder=folder, device=device))
                    if form == AS_LOADED
                    else self.converted(one, form)
                )
            return self._models[key]

    def fingerprint(self, one: PassRecipe) -> str:
        """Hash of a pass's model and its weights; files are read once, as the model is."""
        key = one.model.model_dump_json()
        if key not in self._fingerprints:
            self._fingerprints[key] = fingerprint(one.model, self.spec.model_folder)
        return self._fingerprints[key]

    def converted(self, one: PassRecipe, form: ModelForm) -> PassModel:
        """A pass's model in another form, for the caller to keep or to drop."""
        return in_form(self.model(one), form, device=torch_device(self.spec.device))

    def _on_device(self, model: PassModel) -> PassModel:
        """The model itself, unless the device is but a simulation."""
        if not is_simulated(self.spec.device):
            return model
        return SimulatedModel(model, simulated_memory(self.spec.device))

    def shared(self, image: ImageContext, unit: Unit) -> SharedAnswers:
        """Where answers of one unit lie that several workers give."""
        run = [self.spec.recipe_json, dict(self.spec.provenance)]
        folder = self.folder.scratch(unit.image, unit.id)
        return SharedAnswers(folder, lambda: hash_of([run, image.plan.to_json(), unit.to_dict()]))

    def predictor(self, entry: ImageEntry, image: ImageContext, unit: Unit) -> Predictor:
        """A pass's model, ready for windows of one image; made once as long as that is open."""
        index = unit.pass_index
        if index not in image.predictors:
            one = self.recipe_for(entry).passes[index]
            image.predictors[index] = self._predictor(one, image, image.plan.passes[index])
        return image.predictors[index]

    def _predictor(self, one: PassRecipe, image: ImageContext, layout: PassLayout) -> Predictor:
        model = self.model(one, layout.form)
        graphs = self._graphs.setdefault(id(model), Graphs(model)) if layout.graphed else None
        limit = self._limit(probe_case(one, image.plan, layout, image.source))
        return Predictor(model, layout, torch_device(self.spec.device), limit, graphs)

    def _limit(self, case: ProbeCase) -> PixelLimit:
        """What is known not to fit the device, shared by all that run this pass's model here."""
        with self._models_lock:
            key = (case.one.model.model_dump_json(), case.layout.precision, case.layout.index)
            if key not in self._limits:
                self._limits[key] = self.book.limit_for(case)
            return self._limits[key]

    def recipe_for(self, entry: ImageEntry) -> Recipe:
        """The recipe with one image's overrides."""
        return self.recipe.overridden(dict(entry.overrides))

    # ---------------------------------------------------------------------------------- images

    def image(self, entry: ImageEntry) -> ImageContext:
        """An image that was prepared, open; give it back with ``release``."""
        with self._images_lock:
            image = self._images.get(entry.name)
            if image is None:
                image = self._images[entry.name] = self._open(entry)
            image.users += 1
            return image

    def release(self, image: ImageContext) -> None:
        """One user less; images that nobody uses are closed, but for the last few."""
        with self._images_lock:
            image.users -= 1
            idle = [i for i in self._images.values() if i.users == 0]
            for one in idle[: max(0, len(idle) - IDLE_IMAGES)]:
                self._images.pop(one.plan.name).source.close()

    def _open(self, entry: ImageEntry) -> ImageContext:
        plan = self.folder.read_image_plan(entry.name)
        store = ImageStore.open(self.folder.result(entry.name), fsync=self.spec.fsync)
        source = self.opened(entry)
        check_unchanged(entry, plan, source)
        if isinstance(source, AveragedSource):
            expect_levels(source, plan, self.recipe_for(entry), self.spec.model_folder)
        accounts = self.resolver(entry, source).accounts(plan)
        return ImageContext(plan, source, store, accounts)

    def close(self) -> None:
        """Close every image."""
        with self._images_lock:
            for image in self._images.values():
                image.source.close()
            self._images.clear()

    # ----------------------------------------------------------------------------------- steps

    def step(self, task: Task) -> dict[str, Any]:
        """Do a unit that is not a sweep; returns what its receipt says."""
        if task.unit.kind == "prepare":
            return self._prepare(task.entry)
        recipe = self.recipe_for(task.entry)
        plan = self.folder.read_image_plan(task.entry.name)
        if task.unit.kind == "finalise":
            return finalise(self.folder, plan, recipe, task.timing, fsync=self.spec.fsync)
        pace = self._pace(task.entry, recipe, task.unit.pass_index)
        index, base = task.unit.pass_index, self.spec.model_folder
        allowed, met = allowed_by_mask(plan, recipe, index, base), tiles_in_area(plan, recipe, base)
        return select_next(self.folder, plan, recipe, index, pace, allowed, met)

    def _prepare(self, entry: ImageEntry) -> dict[str, Any]:
        with closing(self.opened(entry)) as source:
            resolved = self.resolver(entry, source).resolve()
        recipe, base = self.recipe_for(entry), self.spec.model_folder
        plan = replace(resolved.plan, mask=mask_identity(recipe, base))
        met, fsync = tiles_in_area(plan, recipe, base), self.spec.fsync
        counts = freeze_image(self.folder, plan, self._provenance(recipe), met, fsync=fsync)
        settings = said_of(plan, resolved.settings)
        facts = {"identity": plan.identity.to_dict(), "settings": settings}
        notes = {"notes": list(source.notes)} if source.notes else {}
        return {**counts, **facts, **notes, **resolved.said()}

    def _provenance(self, recipe: Recipe) -> dict[str, Any]:
        """What an image's result says of its making: that of the run, and where its area lies."""
        said = dict(self.spec.provenance)
        if recipe.area is not None:
            said["area"] = area_place(self.spec.model_folder, recipe.area.file)
        return said

    def resolve(self, entry: ImageEntry, **tuning: Any) -> Resolved:
        """How every pass lies over an image, and what was measured for it; writes no plan.

        Args:
            entry: the image.
            tuning: other values for a ``Tuner``'s fields.
        """
        with closing(self.opened(entry)) as source:
            return self.resolver(entry, source, **tuning).resolve()

    def opened(self, entry: ImageEntry) -> Source:
        """An image, open, with the coarser levels that the recipe wants of it."""
        overviews = self.recipe_for(entry).overviews
        return as_passes_read(open_present(entry.uri), overviews, self.folder.cache(entry.name))

    def resolver(self, entry: ImageEntry, source: Source, **tuning: Any) -> Resolver:
        """What lays passes over an image; ``tuning`` are other values for a ``Tuner``'s fields."""
        fields = {"cache": cache_folder()} | tuning
        tuner = Tuner(self.spec, self.folder.settings, self.converted, self.fingerprint, **fields)
        recipe = self.recipe_for(entry)
        return Resolver(self.spec, self.book, tuner, self.model, entry, recipe, source)

    def _pace(self, entry: ImageEntry, recipe: Recipe, index: int) -> float | None:
        """Seconds per pixel of a pass, measured, where its selection has a budget of seconds."""
        if not wants_seconds(recipe.passes[index].select):
            return None
        image = self.image(entry)
        try:
            layout = image.plan.passes[index]
            side = min(layout.tile_px + 2 * layout.halo_px, *layout.padded_shape)
            window = Window(Box(0, 0, layout.tile_px, layout.tile_px), Box(0, 0, side, side))
            unit = Unit("probe", entry.name, "sweep", index)
            predictor = self.predictor(entry, image, unit)
            pixels = image.read(unit, window)
            seconds = fastest_seconds(predictor, [pixels])
        finally:
            self.release(image)
        return seconds / layout.tile_px**2


def open_present(uri: str) -> Source:
    """An image, open; one that is not there is told from one that is damaged."""
    try:
        return open_source(uri)
    except SourceError:
        check_present(uri)
        raise


def wants_seconds(selector: Selector) -> bool:
    """Whether a selector, or one inside it, has a budget of seconds."""
    stated = isinstance(selector, Budget) and selector.seconds is not None
    return stated or any(wants_seconds(part) for part in inner(selector))


def check_unchanged(entry: ImageEntry, plan: ImagePlan, source: Source) -> None:
    """Refuse an image that is not the one the run was planned for.

    Raises:
        SourceError: size, time or content differ.
    """
    now, then = source.identity(), plan.identity
    if (now.nbytes, now.quick_hash) != (then.nbytes, then.quick_hash):
        raise SourceError(
            f"{entry.uri}: changed while the run was going on (it was {then.nbytes} bytes, it is "
            f"{now.nbytes}); put the old file back, or run again with --force"
        )
