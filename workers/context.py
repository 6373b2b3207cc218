"""What a worker keeps between units: models on the device, images that are open.

Everything here is opened lazily, shared between lanes, and closed when nobody uses it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.pipeline.answers import read_answers
from saccade.pipeline.errors import SourceError
from saccade.pipeline.execution import Calibration
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import ModelForm, PassModel
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.plan import Unit, Window
from saccade.pipeline.recipe import PassRecipe, Recipe
from saccade.pipeline.resampling import coarse_box_for, upsample
from saccade.pipeline.resolve import resolve_image
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.plane import Plane
from saccade.pipeline.store import ImageStore
from saccade.workers.device import Predictor
from saccade.workers.device_graphs import Graphs
from saccade.workers.folder import RunFolder
from saccade.workers.reading import WindowPixels, check_present, read_window
from saccade.workers.settings_shelf import cache_folder
from saccade.workers.steps import finalise, freeze_image, select_next
from saccade.workers.tasks import ImageEntry, Task, WorkerSpec
from saccade.workers.tuning import Tuner, said_of

IDLE_IMAGES = 2
"""Images that stay open while nobody uses them."""
BATCH_PX = {"cpu": 512 * 512, "cuda": 16 * 512 * 512}
"""Pixels per forward pass that suit a kind of device, where the recipe leaves the batch open."""
AS_LOADED = ModelForm()
"""The form that converts nothing."""
PROBES = 3
"""Forward passes timed for a budget in seconds; the fastest counts."""


@dataclass
class ImageContext:
    """One image in a run, open."""

    plan: ImagePlan
    """Its frozen facts."""
    source: Source
    """Its pixels."""
    store: ImageStore
    """Its result."""
    users: int = 0
    """Units that hold it."""
    planes: tuple[Plane, ...] = field(init=False)
    """The source at each pass's resolution."""

    def __post_init__(self) -> None:
        self.planes = tuple(Plane(self.source, layout.plane) for layout in self.plan.passes)

    def read(self, unit: Unit, window: Window) -> WindowPixels:
        """A window's pixels, and the previous pass's answer where the pass is guided by it."""
        layout = self.plan.passes[unit.pass_index]
        read = read_window(self.planes[unit.pass_index], layout, window)
        if not layout.guidance:
            return read
        return read.guided_by(self._guidance(layout, window.read))

    def _guidance(self, layout: PassLayout, box: Box) -> np.ndarray:
        before = self.plan.passes[layout.index - 1]
        ratio = before.score_downsample / layout.plane.downsample
        need = coarse_box_for(box, ratio, before.score_shape)
        scores, _ = read_answers(self.store, before, need)
        guidance = upsample(scores, (need.y0, need.x0), ratio, box, before.score_shape)
        np.nan_to_num(guidance, copy=False, nan=0.0)
        return guidance

    def window_nbytes(self, unit: Unit, window: Window) -> int:
        """Host memory that a window's pixels will hold."""
        layout = self.plan.passes[unit.pass_index]
        views = 1 + len(layout.context)
        pixel = self.source.dtype.itemsize * self.source.channels * views
        guidance = 4 * len(self.plan.passes[layout.index - 1].classes) if layout.guidance else 0
        return window.read.area * (pixel + guidance)


class WorkerContext:
    """Models and images of one worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.folder = RunFolder(spec.folder)
        self.recipe = Recipe.model_validate_json(spec.recipe_json)
        self._models: dict[tuple[str, ModelForm], PassModel] = {}
        self._graphs: dict[int, Graphs] = {}  # by the id of a model above
        self._images: dict[str, ImageContext] = {}
        self._images_lock = threading.Lock()
        self._models_lock = threading.RLock()  # a converted copy needs the model as loaded

    # ---------------------------------------------------------------------------------- models

    def model(self, one: PassRecipe, form: ModelForm = AS_LOADED) -> PassModel:
        """A pass's model, loaded once; in another form, a copy that is converted once."""
        key = (one.model.model_dump_json(), form)
        folder, device = self.spec.model_folder, self.spec.device
        with self._models_lock:
            if key not in self._models:
                self._models[key] = (
                    load_model(one.model, base_folder=folder, device=device)
                    if form == AS_LOADED
                    else self.converted(one, form)
                )
            return self._models[key]

    def converted(self, one: PassRecipe, form: ModelForm) -> PassModel:
        """A pass's model in another form, for the caller to keep or to drop."""
        return in_form(self.model(one), form, device=self.spec.device)

    def predictor(self, entry: ImageEntry, image: ImageContext, unit: Unit) -> Predictor:
        """A pass's model, ready for windows of one image."""
        one = self.recipe_for(entry).passes[unit.pass_index]
        layout = image.plan.passes[unit.pass_index]
        model = self.model(one, layout.form)
        graphs = self._graphs.setdefault(id(model), Graphs(model)) if layout.graphed else None
        return Predictor(model, layout, self.spec.device, graphs)

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
        source = open_present(entry.uri)
        check_unchanged(entry, plan, source)
        return ImageContext(plan, source, store)

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
        return select_next(self.folder, plan, recipe, task.unit.pass_index, pace)

    def _prepare(self, entry: ImageEntry) -> dict[str, Any]:
        plan, found = self.resolve(entry)
        counts = freeze_image(self.folder, plan, self.spec.provenance, fsync=self.spec.fsync)
        settings = said_of(plan, found)
        return {**counts, "identity": plan.identity.to_dict(), "settings": settings}

    def resolve(self, entry: ImageEntry, **tuning: Any) -> tuple[ImagePlan, dict[str, Calibration]]:
        """How every pass lies over an image, and what was measured for it; writes no plan.

        Args:
            entry: the image.
            tuning: other values for a ``Tuner``'s fields.
        """
        recipe = self.recipe_for(entry)
        specs = [self.model(one).spec for one in recipe.passes]
        batch_px = BATCH_PX[self.spec.device.split(":")[0]]
        settings = {"cache": cache_folder()} | tuning
        tuner = Tuner(self.spec, self.folder.settings, self.converted, batch_px, **settings)
        source = open_present(entry.uri)
        try:
            identity = source.identity()
            plan = resolve_image(
                entry.name, source, identity, recipe, specs, entry.pixel_size, batch_px
            )
            return tuner.tune(recipe, plan, source)
        finally:
            source.close()

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
            fastest = min(_seconds(predictor, pixels) for _ in range(PROBES))
        finally:
            self.release(image)
        return fastest / layout.tile_px**2


def open_present(uri: str) -> Source:
    """An image, open; one that is not there is told from one that is damaged."""
    try:
        return open_source(uri)
    except SourceError:
        check_present(uri)
        raise


def _seconds(predictor: Predictor, pixels: WindowPixels) -> float:
    since = time.perf_counter()
    predictor([pixels])
    return time.perf_counter() - since


def wants_seconds(selector: Any) -> bool:
    """Whether a selector, or one inside it, has a budget of seconds."""
    inner = getattr(selector, "of", ()) or ()
    parts = [*(inner if isinstance(inner, tuple) else (inner,)), getattr(selector, "within", None)]
    return getattr(selector, "seconds", None) is not None or any(
        wants_seconds(part) for part in parts if part is not None
    )


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
