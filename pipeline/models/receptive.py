"""Measuring how far a model sees, by changing pixels and looking where the answer changes.

A pixel that is not a number marks every output that depends on it, however weakly, through
convolution, pooling and rectifiers alike; large finite changes catch models that hide such pixels.
Knows no module internals: it only calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.geometry import round_up
from saccade.pipeline.models.base import ModelSpec

RawFunction = Callable[[Tensor], Tensor]
"""Pixels ``(N, C, H, W)`` to raw scores ``(N, K, h, w)``."""

WINDOWS_PX = (256, 512, 1024)
"""Sides of the windows tried, smallest first."""
PROBES_PER_CELL = 8
"""Positions tried inside one cell of ``multiple`` pixels; larger cells are probed in blocks."""
LARGE = 1e3
"""Deviation of loud noise: far outside [0, 1], both signs, so that rectifiers can't swallow it."""


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """How far a model sees around each output pixel."""

    halo_px: int
    """Context that makes the answer exact, a multiple of the model's ``multiple``; where not
    ``local``, the largest that was looked at."""
    local: bool
    """Whether the field ends inside the largest window; False for pooling or attention over all."""

    def __post_init__(self) -> None:
        if self.halo_px < 0:
            raise ValueError(f"a halo is 0 or more; found {self.halo_px}")


def measure_halo(
    model_fn: RawFunction,
    spec: ModelSpec,
    *,
    device: str = "cpu",
    windows_px: tuple[int, ...] = WINDOWS_PX,
) -> ReceptiveField:
    """How far a core of whole cells of ``multiple`` pixels sees, rounded up to ``multiple``.

    Tiles and windows begin and end at multiples of the cell, and between two of them a model that
    pools sees further than at them: only a pixel's distance to the furthest core that lies wholly
    beyond it and depends on it counts. The halo is the largest such distance over both axes, both
    directions, and all positions inside a cell (for ``multiple`` above 8, over blocks of the cell:
    at most one eighth of a cell too large before rounding). A lone tap more than half of the
    smallest window away from all others is not seen.

    Args:
        model_fn: raw scores, before any activation that could saturate.
        spec: its stride, multiple and channels; other fields are not read.
        device: where the model is.
        windows_px: sides of the windows to try, smallest first.

    Raises:
        ModelContract: the model's answer for ordinary noise is not finite.
    """
    side = 0
    for side in sorted({round_up(w, _cell(spec)) for w in windows_px}):
        probe = _Probe(model_fn, spec, side, device)
        if probe.is_clear():
            snug = (2 * probe.reach_cells() + 5) * _cell(spec)
            probe = _Probe(model_fn, spec, snug, device) if snug < side else probe
            return ReceptiveField(round_up(probe.radius_px(), spec.multiple), True)
    return ReceptiveField(side // 2 // spec.multiple * spec.multiple, False)


def halo_is_exact(
    model_fn: RawFunction, spec: ModelSpec, halo_px: int, *, device: str = "cpu"
) -> bool:
    """Whether a core made of whole cells of ``multiple`` pixels sees no further than ``halo_px``.

    Three answers for one window not much larger than the halo; a halo that ``measure_halo`` found
    passes.
    """
    cells = -(-halo_px // _cell(spec))
    side = max(WINDOWS_PX[0], 3 * cells * _cell(spec))
    probe = _Probe(model_fn, spec, round_up(side, _cell(spec)), device)
    return probe.is_clear() and probe.reach_cells() <= cells


def _cell(spec: ModelSpec) -> int:
    """Period of a model's behaviour in input pixels."""
    return spec.multiple if spec.multiple % spec.stride == 0 else spec.multiple * spec.stride


class _Probe:
    """One window of noise, the model's answer for it, and what changes when pixels do."""

    def __init__(self, model_fn: RawFunction, spec: ModelSpec, side_px: int, device: str) -> None:
        self.model_fn, self.stride, self.cell = model_fn, spec.stride, _cell(spec)
        generator = torch.Generator().manual_seed(1801)
        shape = (1, spec.channels or 3, side_px, side_px)
        self.noise = torch.rand(shape, generator=generator).to(device)
        self.loud = (torch.randn(shape, generator=generator) * LARGE).to(device)
        self.origin_px = side_px // 2 // self.cell * self.cell
        self.base = self._call(self.noise)
        if not torch.isfinite(self.base).all():
            raise ModelContract(
                "finite scores expected for an input of noise in [0, 1]; the model gave NaN or "
                "infinity: check its weights, mean and std"
            )
        whole = slice(self.origin_px, self.origin_px + self.cell)
        by_nan, by_size = self._changed_by_nan(whole), self._changed_by_size(whole)
        self.changed = by_nan | by_size
        self.hides_nan = bool((by_size & ~by_nan).any())

    def is_clear(self) -> bool:
        """Whether the field of the whole cell ends before the window's edge.

        Dilated kernels see every n-th pixel: the free border has to be wider than any gap inside.
        """
        return all(self._ends_inside(self.changed.any(axis)) for axis in (1, 0))

    def _ends_inside(self, line: Tensor) -> bool:
        own, last = self.origin_px // self.stride, len(line) - 1
        changed: list[int] = line.nonzero().flatten().tolist()
        marks = sorted({own, *changed})
        gap = max((after - before for before, after in pairwise(marks)), default=1)
        return marks[0] >= gap and marks[-1] <= last - gap

    def reach_cells(self) -> int:
        """Largest distance, in cells, at which an output depends on the whole cell."""
        own, per_cell = self.origin_px // self.cell, self.cell // self.stride
        ends = [end // per_cell for pair in self._extent(self.changed) for end in pair]
        return max(abs(end - own) for end in ends)

    def radius_px(self) -> int:
        """Largest distance between a pixel and a core of whole cells that depends on it."""
        step = -(-self.cell // PROBES_PER_CELL)
        starts = range(self.origin_px, self.origin_px + self.cell, step)
        stop = self.origin_px + self.cell
        return max(self._reach(slice(s, min(s + step, stop))) for s in starts)

    def _reach(self, block: slice) -> int:
        changed = self._changed_by_nan(block)
        if self.hides_nan:
            changed |= self._changed_by_size(block)
        reach = 0
        for first, last in self._extent(changed):
            core_stop = round_up((first + 1) * self.stride, self.cell)
            core_start = last * self.stride // self.cell * self.cell
            before, after = block.stop - core_stop, core_start - block.start
            reach = max(reach, before, after)
        return reach

    def _changed_by_nan(self, block: slice) -> Tensor:
        touched = self.noise.clone()
        touched[..., block, block] = float("nan")
        return self._changed(touched)

    def _changed_by_size(self, block: slice) -> Tensor:
        touched = self.noise.clone()
        touched[..., block, block] = self.loud[..., block, block]
        return self._changed(touched)

    def _changed(self, touched: Tensor) -> Tensor:
        """``(h, w)`` bool: outputs that differ in any class; NaN differs from everything."""
        return (self._call(touched) != self.base).any(1)[0]

    def _extent(self, changed: Tensor) -> list[tuple[int, int]]:
        """First and last changed row, then column; the cell's own output where nothing changed."""
        own, extent = self.origin_px // self.stride, []
        for axis in (1, 0):
            found = changed.any(axis).nonzero()
            extent.append((int(found[0]), int(found[-1])) if len(found) else (own, own))
        return extent

    def _call(self, pixels: Tensor) -> Tensor:
        # cuDNN may choose Winograd or Fourier kernels, which mix pixels that are independent.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=False):
            return self.model_fn(pixels)
