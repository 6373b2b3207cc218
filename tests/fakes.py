"""Images, and a place to run recipes over them, for tests of every folder.

The folder of tests is on pytest's path (``pythonpath`` in pyproject.toml), so tests write
``from fakes import ...``. Models that recipes can name stand in ``fake_models.py``, which the
fixture ``lab`` copies to a folder of its own.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.jobs.driver import RunSummary, run
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.array import ArraySource
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.workers.tasks import ImageEntry


def noise(height: int, width: int, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    """``(height, width, channels)`` of repeatable noise over the whole range of an integer type."""
    kind = np.dtype(dtype)
    generator = np.random.default_rng(height * 1009 + width)
    if kind.kind == "f":
        return generator.random((height, width, channels)).astype(kind)
    return generator.integers(0, np.iinfo(kind).max, (height, width, channels), kind, endpoint=True)


def coordinates(height: int, width: int) -> np.ndarray:
    """``(height, width, 2)`` float32: y and x of pixel centres, true after averaging too."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x], axis=-1).astype(np.float32) + np.float32(0.5)


class FakeSource(ArraySource):
    """An array, parts of which can't be read: for ever, or for the first few times."""

    def __init__(
        self,
        array: np.ndarray,
        *,
        broken: tuple[Box, ...] = (),
        hiccups: int = 0,
        error: Exception | None = None,
        pixel_size: PixelSize | None = None,
        nodata: float | None = None,
    ) -> None:
        super().__init__(array, "fake", pixel_size, nodata)
        self.broken = broken
        self.error = error or ReadError("the file is damaged there")
        self.reads: list[Box] = []
        self._hiccups = [hiccups]
        self._lock = threading.Lock()

    def opened(self) -> FakeSource:
        """The same image opened once more."""
        return copy.copy(self)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        with self._lock:
            self.reads.append(box)
            stumbles = self._hiccups[0] > 0
            self._hiccups[0] -= stumbles
        if stumbles or any(box.overlaps(part) for part in self.broken):
            raise self.error
        return super()._decode(level, box)


class Lab:
    """Where a test runs recipes over images that it made."""

    def __init__(self, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.models = folder, models
        self._sources: dict[str, FakeSource] = {}
        self._runs = 0
        monkeypatch.setattr("saccade.workers.context.open_source", self._open)

    def _open(self, uri: str) -> Any:
        known = self._sources.get(uri)
        return open_source(uri) if known is None else known.opened()

    def entry(self, name: str, image: np.ndarray | FakeSource) -> ImageEntry:
        """An image as a manifest would name it."""
        uri = f"fake:{len(self._sources)}"
        self._sources[uri] = image if isinstance(image, FakeSource) else FakeSource(image)
        self._sources[uri].uri = uri
        return ImageEntry(name, uri)

    def run_all(
        self,
        recipe: Mapping[str, Any],
        images: Mapping[str, np.ndarray | FakeSource],
        workers: str = "local:1",
        **options: Any,
    ) -> RunSummary:
        """Run a recipe over images in a folder of its own; ``options`` say how to run."""
        self._runs += 1
        entries = [self.entry(name, image) for name, image in images.items()]
        tree = Recipe.model_validate(recipe)
        how = RunOptions(workers=workers, **{"device": "cpu"} | options)
        folder = self.folder / f"run-{self._runs}"
        return run(tree, entries, folder, how, model_folder=self.models)

    def run(
        self,
        recipe: Mapping[str, Any],
        image: np.ndarray | FakeSource,
        workers: str = "local:1",
        **options: Any,
    ) -> Result:
        """Run a recipe over one image, which must succeed; ``options`` say how to run."""
        summary = self.run_all(recipe, {"one": image}, workers, **options)
        assert summary.complete == ("one",), summary.quarantined
        return open_result(summary.folder)

    def fused(
        self,
        recipe: Mapping[str, Any],
        image: np.ndarray | FakeSource,
        workers: str = "local:1",
        **options: Any,
    ) -> np.ndarray:
        """``(C, H, W)`` as stored, of one image."""
        return np.asarray(self.run(recipe, image, workers, **options).fused)


def one_pass(factory: str, scores: str = "float32", **details: Any) -> dict[str, Any]:
    """A recipe of one full pass; ``chunk`` goes to the output, the rest to the pass."""
    output = {"chunk": details.pop("chunk")} if "chunk" in details else {}
    return several_passes([pass_of("dense", factory, 1, **details)], scores, **output)


def pass_of(name: str, factory: str, downsample: float, **details: Any) -> dict[str, Any]:
    """One pass with a model of ``fake_models.py``; ``options`` and ``weights`` go to the model."""
    model = {"source": f"fake_models.py:{factory}"}
    model |= {k: details.pop(k) for k in ("options", "weights") if k in details}
    return {
        "name": name,
        "resolution": {"downsample": downsample},
        "model": model,
        **details,
    }


def several_passes(
    passes: list[dict[str, Any]], scores: str = "float32", **details: Any
) -> dict[str, Any]:
    """A recipe of passes; ``chunk``, ``shard`` and ``keep`` go to the output."""
    output = {"scores": scores, "chunk": 16, "shard": 64}
    output |= {k: details.pop(k) for k in ("chunk", "shard", "keep") if k in details}
    return {"passes": passes, "output": output, **details}


def plane_spec(height: int, width: int, downsample: float = 1.0) -> PlaneSpec:
    """A plane of this shape, of an image that states no pixel size."""
    return PlaneSpec(0, 1.0, (height, width), downsample, None)
