"""A GPU under a dense run: how busy it is kept, how much memory a pass takes, what limits do.

Runs through the local worker, without Ray, on an image held in memory, so that no decoder limits
the device. Beside torch it needs numpy, pydantic, PyYAML, safetensors, fsspec and zarr (with
numcodecs, donfig, google-crc32c and packaging), and saccade itself: ``pip install --no-deps .``

* *Dense run*: a warm-up run, then one that is measured. The device is busy from the start to the
  end of each forward pass, by events on its own clock; the share is of the time between the first
  and the last. Forward-only is the same setting on windows that lie on the device already.
* *Memory*: three probes, the line through them, and what larger forward passes really took.
* *Limits*: the memory of this process is cut until a batch no longer fits, then a single window.

    python benchmarks/gpu.py                          # cuda, U-Net, bfloat16
    python benchmarks/gpu.py --precision auto         # with graphs, if calibration takes them
    python benchmarks/gpu.py --device simulated --side 1500     # without a GPU
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command, machine, table
from gpu_memory import cuda_limit, limit_rows, memory_rows, simulated_limit, views
from networks import NETWORKS

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import SaccadeError
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel, Prediction, Views
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources.array import ArraySource
from saccade.workers import context
from saccade.workers.context import WorkerContext
from saccade.workers.device import Predictor, device_name, set_threads
from saccade.workers.device_meter import meter_for
from saccade.workers.device_simulated import SimulatedMemory, SimulatedModel
from saccade.workers.folder import RunFolder
from saccade.workers.memory_curve import MemoryCurve
from saccade.workers.tasks import ImageEntry, WorkerSpec

MODELS = Path(__file__).parent
SIMULATED = MemoryCurve(2**50, base_nbytes=2**22, nbytes_per_px=900.0, noise_nbytes=2**16)
"""What a forward pass of the simulated device holds."""
FORWARDS = 20
"""Forward passes of the forward-only measure, after as many to warm up."""


# ------------------------------------------------------------------------------------ the clock


@dataclass
class Watch:
    """Start and end of every forward pass of a run, on the device's own clock."""

    device: str
    marks: list[tuple[Any, Any]] = field(default_factory=list)
    pixels: int = 0

    def mark(self) -> Any:
        """A moment: an event that the device passes by, or the time of day."""
        if self.device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, one: Any, other: Any) -> float:
        """Seconds from one moment to another."""
        if self.device == "cpu":
            return float(other - one)
        other.synchronize()
        return float(one.elapsed_time(other)) / 1000

    def summary(self) -> tuple[float, float]:
        """Share of time busy, and megapixels computed per second."""
        busy = sum(self.between(*pair) for pair in self.marks)
        whole = self.between(self.marks[0][0], self.marks[-1][1])
        return busy / whole, self.pixels / whole / 1e6


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Mark every forward pass for the length of a block."""
    answer = Predictor._answer

    def marked(self: Predictor, views: Views) -> Prediction:
        before = watch.mark()
        found = answer(self, views)
        watch.marks.append((before, watch.mark()))
        watch.pixels += views.pixels.shape[0] * views.pixels.shape[2] * views.pixels.shape[3]
        return found

    Predictor._answer = marked  # type: ignore[method-assign]
    try:
        yield
    finally:
        Predictor._answer = answer  # type: ignore[method-assign]


# ---------------------------------------------------------------------------------- the dense run


@contextmanager
def in_memory(side: int) -> Iterator[str]:
    """An image of smooth colours and some noise, by the name under which runs find it."""
    generator = np.random.default_rng(2027)
    coarse = generator.integers(0, 200, (side // 64 + 1, side // 64 + 1, 3), np.uint8)
    pixels = np.kron(coarse, np.ones((64, 64, 1), np.uint8))[:side, :side]
    pixels[::3, ::5] += generator.integers(0, 55, pixels[::3, ::5].shape, np.uint8)
    opened = context.open_source
    context.open_source = lambda uri: ArraySource(pixels, uri)  # type: ignore[assignment]
    try:
        yield f"memory-{side}.array"
    finally:
        context.open_source = opened


def recipe_of(options: argparse.Namespace) -> Recipe:
    """One pass over everything."""
    model = {"source": f"networks.py:{NETWORKS[options.network].__name__}"}
    dense = {"name": "dense", "resolution": {"level": 0}, "model": model, "tile": 256}
    sizes = {"window": options.window, "batch": options.batch}
    dense |= {name: value for name, value in sizes.items() if value}
    return Recipe.model_validate({"passes": [dense], "precision": options.precision})


@dataclass(frozen=True)
class Dense:
    """What a dense run left behind."""

    layout: PassLayout
    """With the setting that ran."""
    model: PassModel
    """In that setting."""
    watch: Watch
    """Its forward passes."""


def dense_run(options: argparse.Namespace, device: str, side: int) -> Dense:
    """Run the recipe over an image of this side."""
    recipe, watch = recipe_of(options), Watch(device)
    with tempfile.TemporaryDirectory() as scratch, in_memory(side) as uri:
        kinds = RunOptions(workers="local:1", device=device)
        with watching(watch):
            summary = run(
                recipe, [ImageEntry("image", uri)], Path(scratch), kinds, model_folder=MODELS
            )
        if summary.quarantined:
            raise SystemExit(f"the run failed: {summary.quarantined}")
        folder = RunFolder(Path(scratch))
        layout = folder.read_image_plan("image").passes[0]
        spec = WorkerSpec(folder.root, recipe.canonical_json(), MODELS, device=device)
        model = WorkerContext(spec).model(recipe.passes[0], layout.form)
    return Dense(layout, model, watch)


def forward_only(dense: Dense, device: str, forwards: int) -> float:
    """Megapixels per second of the same model and batch, with nothing to read or to write."""
    given, watch = views(dense.layout.batch, dense.layout.window_shape, device), Watch(device)
    with torch.inference_mode():
        for _ in range(forwards):
            dense.model(given)
        began = watch.mark()
        for _ in range(forwards):
            dense.model(given)
        seconds = watch.between(began, watch.mark())
    height, width = dense.layout.window_shape
    return forwards * dense.layout.batch * height * width / seconds / 1e6


# ------------------------------------------------------------------------------------------- main


def tables(options: argparse.Namespace) -> Iterator[str]:
    """One table per question."""
    simulated = options.device == "simulated"
    device = "cpu" if simulated else options.device
    set_threads(1)
    dense_run(options, device, max(512, options.side // 4))
    dense = dense_run(options, device, options.side)
    busy, pace = dense.watch.summary()
    alone = forward_only(dense, device, options.forwards)
    layout = dense.layout
    size = f"{layout.batch} x {layout.window_shape[0]} px, {layout.precision}"
    form = ", ".join(n for n in ("channels_last", "fused", "graphed") if getattr(layout, n))
    speeds = (f"{busy:.1%}", f"{pace:.1f}", f"{alone:.1f}", f"{pace / alone:.1%}")
    yield table(
        ["dense run", "setting", "busy", "MP/s computed", "MP/s forward-only", "share"],
        [[f"{options.network}, {size}", form, *speeds]],
    )
    model: PassModel = dense.model
    memory = SimulatedMemory(SIMULATED) if simulated else None
    if memory is not None:
        model = SimulatedModel(model, memory)
    meter = meter_for(device) if memory is None else memory
    fitted, rows = memory_rows(model, layout, meter, device)
    yield table(["memory", "projected", "measured", "projected / measured - 1"], rows)

    def limited(nbytes: int) -> Any:
        return cuda_limit(device, nbytes) if memory is None else simulated_limit(memory, nbytes)

    predictor = Predictor(model, replace(layout, batch=8), device)
    head = ["limit on top of what is held", "a batch of 8", "largest |dp|"]
    yield table(head, limit_rows(predictor, fitted, limited, 8))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="'cuda', 'cuda:1', 'cpu' or 'simulated'")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="U-Net")
    parser.add_argument("--precision", default="bfloat16", help="'auto' calibrates first")
    parser.add_argument("--side", type=int, default=30_000, help="of the image; 900 megapixels")
    parser.add_argument("--window", type=int, default=0, help="pixels; 0 leaves it to saccade")
    parser.add_argument("--batch", type=int, default=0, help="windows; 0 leaves it to saccade")
    parser.add_argument("--forwards", type=int, default=FORWARDS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    device = "cpu" if options.device == "simulated" else options.device
    print(f"{machine()}\n{device_name(device)}\n$ {command()}")
    try:
        for one in tables(options):
            print(f"\n{one}")
    except SaccadeError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
