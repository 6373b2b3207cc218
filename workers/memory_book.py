"""What a run knows of memory: measured once, frozen with the run, and taught by what ran out.

RUN/memory holds a budget per kind of device, a memory model per model and arithmetic, and beside it
the smallest forward pass that ran out of memory all the same. Decides nothing; what fits is decided
by ``memory`` and ``memory_schedule``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import ModelContract, UnitTooLarge
from saccade.pipeline.geometry import Shape
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel
from saccade.pipeline.models.onnx_file import sessions_in
from saccade.pipeline.recipe import PassRecipe
from saccade.workers.backing_off import Lesson, PixelLimit
from saccade.workers.device import Predictor, device_name, kind_of
from saccade.workers.device_meter import allowed_memory, meter_for, total_memory_nbytes
from saccade.workers.facts import hash_of, own_version
from saccade.workers.folder import write_whole
from saccade.workers.memory import Budget, MemoryKey, MemoryModel
from saccade.workers.memory_arena import ArenaMeter
from saccade.workers.memory_host import share_of
from saccade.workers.memory_probe import Meter, probe, probe_sizes
from saccade.workers.reading import WindowPixels
from saccade.workers.settings_shelf import freeze, read_cached, read_frozen, write_cached
from saccade.workers.tasks import WorkerSpec

PROBE_MOST_PX = {"cpu": 256, "cuda": 1024}
"""Longest side of a probe on a kind of device: tensors on a CPU grow by the pixel, but a GPU's
libraries choose what they do by size."""


@dataclass(frozen=True, slots=True)
class ProbeCase:
    """One pass as the memory of its forward pass depends on it."""

    one: PassRecipe
    """Of the pass."""
    layout: PassLayout
    """Of the pass: arithmetic, memory format, context views, the shape of its windows."""
    dtype: str
    """Of the image's samples."""
    channels: int
    """Of the image."""
    guidance_classes: int
    """Channels of guidance that the model is given; 0 where it takes none."""

    def sizes(self, kind: str) -> Iterator[tuple[tuple[int, Shape], ...]]:
        """What to probe: three windows, ever smaller ones where those run out of memory.

        Batches of its one size, where a model has but one.
        """
        height, width = self.layout.window_shape
        if self.layout.window_tiles and not self.layout.local:
            yield tuple((batch, (height, width)) for batch in (1, 2, 3))
            return
        least = 3 * self.layout.multiple
        side = max(least, min(max(height, width), PROBE_MOST_PX[kind]))
        while side >= least:
            yield probe_sizes(side, self.layout.multiple)
            side //= 2

    def blank(self, batch: int, shape: Shape) -> list[WindowPixels]:
        """Windows of a shape without content."""
        pixels = np.zeros((*shape, self.channels), self.dtype)
        guidance = np.zeros((self.guidance_classes, *shape), np.float32)
        context = (pixels,) * len(self.layout.context)
        given = guidance if self.guidance_classes else None
        window = WindowPixels(pixels, guidance=given, context=context, features=self._blank(shape))
        return [window] * batch

    def _blank(self, shape: Shape) -> np.ndarray | None:
        """Features of the previous pass without content, where the model takes some."""
        taken = self.layout.takes
        if taken is None:
            return None
        return np.zeros((taken.channels, *(side // taken.stride for side in shape)), np.float16)


@dataclass(frozen=True, slots=True)
class MemoryBook:
    """The memory of one run, as one of its workers reads and writes it."""

    spec: WorkerSpec
    """Of the worker."""
    folder: Path
    """RUN/memory."""
    fingerprint: Callable[[PassRecipe], str]
    """Hash of a pass's model and its weights."""
    cache: Path | None = None
    """Of the user, for models; None neither reads nor writes one."""

    # ---------------------------------------------------------------------------------- budgets

    def budget(self) -> Budget:
        """What one worker may hold on its device, and what it held before computing.

        Settled by the first worker that asks, once its models are loaded; the same for all that
        have such a device, as much memory, such a limit and as many beside them.
        """
        device = self.spec.device
        total_nbytes = total_memory_nbytes(device)
        facts = (device_name(device), total_nbytes, str(self.spec.limit), self.spec.sharing)
        key = f"budget-{hash_of(facts)}"
        known = read_frozen(self.folder, key, Budget.from_dict)
        return known or freeze(self.folder, key, self._budget_now(), Budget.from_dict)

    def _budget_now(self) -> Budget:
        everything = allowed_memory(self.spec.device, self.spec.limit)
        if self.spec.device == "cpu":
            return share_of(everything, self.spec.sharing, processes=self.spec.own_process)
        return everything.shared_by(self.spec.sharing)

    # ----------------------------------------------------------------------------------- models

    def model_for(
        self, case: ProbeCase, predictor: Callable[[], Predictor] | None
    ) -> MemoryModel | None:
        """What a pass's forward pass needs: from the run, from the cache, or from three probes.

        As it was measured; see ``taught``.

        Args:
            case: the pass.
            predictor: makes what is probed; None measures nothing.

        Returns:
            None where nothing is known and nothing can be measured: the model takes no other size.
        """
        key = self._key(case)
        name = hash_of(asdict(key))
        model = read_frozen(self.folder, name, MemoryModel.from_dict)
        if model is None and predictor is not None:
            model = read_cached(self.cache, name, MemoryModel.from_dict)
            if model is None:
                model = self._probed(key, case, predictor())
                if model is None:
                    return None
                write_cached(self.cache, name, model)
            model = freeze(self.folder, name, model, MemoryModel.from_dict)
        return model

    def _probed(self, key: MemoryKey, case: ProbeCase, predictor: Predictor) -> MemoryModel | None:
        def run(batch: int, shape: Shape) -> None:
            if predictor(case.blank(batch, shape)).splits:
                raise UnitTooLarge(f"a probe of {batch} x {shape} ran out of memory")

        meter = self._meter(predictor.model)
        if meter is None:
            return None
        repeats = 2 if self.spec.device.startswith("cuda") else 1
        for sizes in case.sizes(kind_of(self.spec.device)):
            try:
                return MemoryModel.fit(key, probe(run, meter, sizes, repeats))
            except UnitTooLarge:
                continue
            except (RuntimeError, ModelContract):  # a size that the model does not take
                return None
        return None

    def _meter(self, model: PassModel) -> Meter | None:
        """Counts what a model holds; None where nothing can: an ONNX graph on a GPU."""
        meter, sessions = meter_for(self.spec.device), sessions_in(model)
        if not sessions:
            return meter
        return ArenaMeter(meter, sessions) if kind_of(self.spec.device) == "cpu" else None

    def _key(self, case: ProbeCase) -> MemoryKey:
        facts = {
            "model": self.fingerprint(case.one),
            "saccade": own_version(),
            "samples": [case.dtype, case.channels, case.guidance_classes],
            "context": len(case.layout.context),
            "shape": None if case.layout.local else case.layout.window_shape,
            **case.layout.flow.facts,
        }
        memory = "channels_last" if case.layout.channels_last else "contiguous"
        memory += ", fused" * case.layout.fused
        device = f"{kind_of(self.spec.device)}: {device_name(self.spec.device)}"
        return MemoryKey(hash_of(facts), case.layout.precision, memory, device)

    # ---------------------------------------------------------------------------------- lessons

    def limit_for(self, case: ProbeCase) -> PixelLimit:
        """What is known not to fit; what is learned later is written down for the whole run."""
        name = hash_of(asdict(self._key(case)))
        known = self._lesson(name)
        return PixelLimit(known.pixels if known else None, partial(self._learn, name))

    def lesson_for(self, case: ProbeCase) -> Lesson | None:
        """The smallest forward pass of a pass's model that is known not to fit."""
        return self._lesson(hash_of(asdict(self._key(case))))

    def taught(self, case: ProbeCase, model: MemoryModel) -> MemoryModel:
        """What was measured for a pass, raised to what ran out of memory since."""
        lesson = self.lesson_for(case)
        return model.taught_by(self.budget(), lesson.batch, lesson.shape) if lesson else model

    def _lesson(self, name: str) -> Lesson | None:
        try:
            tree: Mapping[str, Any] = json.loads(self._lesson_path(name).read_text())
        except FileNotFoundError:
            return None
        height, width = tree["shape"]
        return Lesson(tree["batch"], (height, width))

    def _learn(self, name: str, batch: int, shape: Shape) -> None:
        lesson, known = Lesson(batch, shape), self._lesson(name)
        if known is None or lesson.pixels < known.pixels:
            write_whole(self._lesson_path(name), json.dumps(asdict(lesson)))

    def _lesson_path(self, name: str) -> Path:
        return self.folder / f"{name}.lesson.json"
