"""What a forward pass holds of a device beside what was projected, and what cut memory does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from saccade.pipeline.errors import UnitTooLarge
from saccade.pipeline.geometry import Shape
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel, Views
from saccade.workers.answer import Answer
from saccade.workers.backing_off import PixelLimit
from saccade.workers.device import Predictor
from saccade.workers.device_simulated import SimulatedMemory
from saccade.workers.memory import MemoryKey, MemoryModel
from saccade.workers.memory_probe import Meter, probe, probe_sizes
from saccade.workers.memory_size import format_nbytes
from saccade.workers.reading import WindowPixels


def views(batch: int, shape: Shape, device: str) -> Views:
    """Pixels on the device, in memory as a run brings them there."""
    pixels = torch.rand((batch, *shape, 3), generator=torch.Generator().manual_seed(7))
    return Views(pixels.to(device).permute(0, 3, 1, 2))


def window_shape(layout: PassLayout) -> Shape:
    """Of a window with its halo, inside an image that is large enough."""
    side = layout.window_tiles * layout.tile_px + 2 * layout.halo_px
    return min(side, layout.padded_shape[0]), min(side, layout.padded_shape[1])


# ----------------------------------------------------------------------------------------- memory


def memory_rows(
    model: PassModel, layout: PassLayout, meter: Meter, device: str
) -> tuple[MemoryModel, list[list[str]]]:
    """The line through three probes, and how far larger forward passes are from it."""

    def forward(batch: int, shape: Shape) -> None:
        given = views(batch, shape, device)
        with torch.inference_mode():
            model(given)

    side = layout.window_shape[0]
    sizes = probe_sizes(2 * side, layout.multiple)
    key = MemoryKey("benchmark", layout.precision, "contiguous", device)
    fitted = MemoryModel.fit(key, probe(forward, meter, sizes))
    larger = [(4, (side, side)), (8, (side, side)), (12, (side, side))]
    rows = []
    for one in probe(forward, meter, larger, repeats=1):
        projected = fitted.predict(one.batch, one.shape)
        off = projected / one.measured_nbytes - 1
        what = f"{one.batch} x {side} x {side} px"
        rows.append(
            [what, format_nbytes(projected), format_nbytes(one.measured_nbytes), f"{off:+.1%}"]
        )
    return fitted, rows


# ----------------------------------------------------------------------------------------- limits


Limited = Callable[[int], Any]
"""A context in which a forward pass may hold so many bytes."""


@contextmanager
def cuda_limit(device: str, nbytes: int) -> Iterator[None]:
    """Cut this process's share of the GPU, for the length of a block."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    held = torch.cuda.memory_reserved(device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, (held + nbytes) / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def simulated_limit(memory: SimulatedMemory, nbytes: int) -> Iterator[None]:
    """Cut what a simulated device has, for the length of a block."""
    had = memory.curve
    memory.curve = replace(had, limit_nbytes=nbytes)
    try:
        yield
    finally:
        memory.curve = had


def limit_rows(
    predictor: Predictor, fitted: MemoryModel, limited: Limited, batch: int
) -> list[list[str]]:
    """A batch where it fits, where half and a quarter of it, a part of a window, nothing does."""
    shape = predictor.layout.window_shape
    generator = np.random.default_rng(11)
    windows = [
        WindowPixels(generator.integers(0, 255, (*shape, 3), np.uint8)) for _ in range(batch)
    ]
    whole = predictor(windows)
    counts = [batch, batch // 2, batch // 4]
    limits = [round(fitted.predict(count, shape) * 1.15) for count in counts]
    limits += [fitted.predict(1, (shape[0] // 2, shape[1])), 0]
    rows = []
    for nbytes in limits:
        with limited(nbytes):
            # what one limit teaches is not to be known under the next
            fresh = replace(predictor, limit=PixelLimit())
            rows.append([format_nbytes(nbytes), *_outcome(fresh, windows, whole)])
    return rows


def _outcome(
    predictor: Predictor, windows: Sequence[WindowPixels], whole: Answer
) -> tuple[str, str]:
    try:
        answer = predictor(windows)
    except UnitTooLarge:
        return "refused: a window is too large", ""
    off = float(np.abs(answer.scores - whole.scores).max())
    return f"{answer.splits} splits", f"{off:.1e}"
