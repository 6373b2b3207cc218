"""Measuring what a forward pass holds on this host: probes, and meters of resident memory.

The three meters differ in what the system lets them do; ``host_meter`` takes the best there is. A
meter says how much more was held than when it was made, so it is made once all that a worker
reserves (weights, libraries) is there. Knows no model and no tensor.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from saccade.pipeline.geometry import Shape, round_up
from saccade.workers.memory import Probe, pixels_of
from saccade.workers.memory_limits import (
    ROOT,
    most_resident_nbytes,
    parse_kilobytes,
    resident_nbytes,
)

REPEATS = 2
"""Forward passes per probe; the most counts, because allocators and libraries settle in."""
SAMPLE_SECONDS = 0.001
"""Between two looks of the meter that has to look again and again."""
CLEAR_PEAK = "5"
"""What /proc/self/clear_refs takes for 'forget the peak' (man 5 proc)."""


class Meter(Protocol):
    """Says the most that was held on a device, on top of what was held when it was made."""

    def reset(self) -> None:
        """Forget the peak; a measurement begins."""
        ...

    def peak_nbytes(self) -> int:
        """The most that was held since; 0 or more. The measurement ends."""
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
    return [
        Probe(batch, shape, max(_measure(run, meter, batch, shape) for _ in range(repeats)))
        for batch, shape in sorted(sizes, key=lambda size: pixels_of(*size))
    ]


def _measure(run: Callable[[int, Shape], object], meter: Meter, batch: int, shape: Shape) -> int:
    meter.reset()
    run(batch, shape)
    return meter.peak_nbytes()


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


# ----------------------------------------------------------------------------------------- meters


class ClearedPeak:
    """The kernel's own peak of resident memory, which it lets this process forget."""

    def __init__(self, root: Path = ROOT) -> None:
        self._status = root / "proc/self/status"
        self._clear = root / "proc/self/clear_refs"
        give_back()
        self._baseline = resident_nbytes(root)

    def reset(self) -> None:
        """Give freed memory back, then forget the peak."""
        give_back()
        self._clear.write_text(CLEAR_PEAK)

    def peak_nbytes(self) -> int:
        """As the kernel counted it; no moment is missed."""
        peak = parse_kilobytes(self._status.read_text())["VmHWM"]
        return max(0, peak - self._baseline)


class SampledPeak:
    """Resident memory, looked at every millisecond by a thread; may miss a short peak."""

    def __init__(self, root: Path = ROOT, seconds: float = SAMPLE_SECONDS) -> None:
        self._root, self._seconds = root, seconds
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None
        give_back()
        self._baseline = self._peak = resident_nbytes(root)

    def reset(self) -> None:
        """Begin to look."""
        self._stop()
        give_back()
        self._peak = resident_nbytes(self._root)
        self._done.clear()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._sampler.start()

    def peak_nbytes(self) -> int:
        """Look once more, and stop."""
        self._stop()
        self._peak = max(self._peak, resident_nbytes(self._root))
        return max(0, self._peak - self._baseline)

    def _sample(self) -> None:
        while not self._done.wait(self._seconds):
            self._peak = max(self._peak, resident_nbytes(self._root))

    def _stop(self) -> None:
        self._done.set()
        if self._sampler is not None:
            self._sampler.join()
            self._sampler = None


class HighWater:
    """The most that this process ever held: it only rises, so it tells from small to large only."""

    def __init__(self) -> None:
        self._baseline = most_resident_nbytes()

    def reset(self) -> None:
        """Nothing can be forgotten."""

    def peak_nbytes(self) -> int:
        """How far the process is above where it was when this meter was made."""
        return most_resident_nbytes() - self._baseline


def host_meter(root: Path = ROOT) -> Meter:
    """The most exact meter of resident memory that this system allows."""
    if not (root / "proc/self/status").is_file():
        return HighWater()
    try:
        (root / "proc/self/clear_refs").write_text(CLEAR_PEAK)
    except OSError:  # not permitted in some containers
        return SampledPeak(root)
    return ClearedPeak(root)


def give_back() -> None:
    """Return freed memory to the system, where the C library can be asked to."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
