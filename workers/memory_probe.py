"""Measuring what forward passes hold: a few sizes, tried from small to large.

Knows no model, no tensor and no device: what runs and what measures are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from saccade.pipeline.geometry import Shape, round_up
from saccade.workers.memory import Probe, pixels_of

REPEATS = 2
"""Forward passes per probe; the most counts, because allocators and libraries settle in."""


class Meter(Protocol):
    """Says the most that a forward pass held on a device, on top of what was held before."""

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        """Run something that keeps nothing, and say the most that it held; 0 or more."""
        ...


def probe(
    run: Callable[[int, Shape], object],
    meter: Meter,
    sizes: Sequence[tuple[int, Shape]],
    repeats: int = REPEATS,
) -> list[Probe]:
    """Run forward passes and measure each; from small to large, whatever the order given.

    Small ones first: what an allocator keeps of them is then used by the larger ones, and one that
    runs out of memory is the last.

    Args:
        run: does one forward pass over a batch of windows of a shape, and keeps nothing. What it
            raises goes through.
        meter: of the device that it runs on.
        sizes: batch and window shape of each probe.
        repeats: forward passes per probe.

    Returns:
        A probe per size, by number of pixels.
    """
    found = []
    for batch, shape in sorted(sizes, key=lambda size: pixels_of(*size)):
        again = (meter.peak_nbytes(partial(run, batch, shape)) for _ in range(repeats))
        found.append(Probe(batch, shape, max(again)))
    return found


def probe_sizes(side_px: int, multiple: int = 1) -> tuple[tuple[int, Shape], ...]:
    """Three windows to probe: a side, two thirds and a third of it; no two alike.

    Args:
        side_px: of the largest window that is to be run, or less to be quick.
        multiple: what the model's input sizes are multiples of.

    Raises:
        ValueError: less than three multiples.
    """
    sides = [round_up(max(1, side_px * third // 3), multiple) for third in (1, 2, 3)]
    if len(set(sides)) < len(sides):
        raise ValueError(f"a side of three times {multiple} px or more expected; found {side_px}")
    return tuple((1, (side, side)) for side in sides)
