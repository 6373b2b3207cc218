"""A device that is only arithmetic: it counts bytes and runs out of them, always alike.

For tests, and for trying a budget without the device that it is for: ``--device simulated:8GiB``
computes on the CPU and keeps to the memory of a device of that size. Knows no real memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Shape
from saccade.pipeline.models.base import PassModel, Prediction, Views
from saccade.workers.memory import pixels_of
from saccade.workers.memory_size import MemoryLimit

KIND = "simulated"
NBYTES_PER_PX = 600.0
"""About what a small U-Net holds in float32."""


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """What a forward pass holds on a device, and how much the device has."""

    limit_nbytes: int
    """A forward pass that holds more runs out of memory."""
    base_nbytes: int = 0
    """Held whatever the input's size."""
    nbytes_per_px: float = NBYTES_PER_PX
    """Held per input pixel of the batch."""
    noise_nbytes: int = 0
    """The most that is held on top, by size."""

    @classmethod
    def parse(cls, device: str) -> MemoryCurve:
        """From 'simulated:8GiB', or with base and bytes per pixel: 'simulated:8GiB:64MiB:600'.

        Raises:
            UsageError: not of that form.
        """
        kind, *parts = device.split(":")
        if kind != KIND or not 1 <= len(parts) <= 3:
            raise UsageError(f"--device: 'simulated:8GiB' expected; found {device!r}")
        limit, base, slope = [*parts, *("0", str(NBYTES_PER_PX))[len(parts) - 1 :]]
        try:
            return cls(_nbytes(limit), 0 if base == "0" else _nbytes(base), float(slope))
        except ValueError as error:
            raise UsageError(
                f"--device: bytes per pixel expected at the end of {device!r}; found {slope!r}"
            ) from error

    def held_nbytes(self, batch: int, shape: Shape) -> int:
        """What a forward pass of this size holds."""
        slope = int(self.nbytes_per_px * pixels_of(batch, shape))
        return self.base_nbytes + slope + self._noise(batch, shape)

    def _noise(self, batch: int, shape: Shape) -> int:
        digest = hashlib.blake2b(repr((batch, *shape)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) % (self.noise_nbytes + 1)


def _nbytes(text: str) -> int:
    limit = MemoryLimit.parse(text)
    if limit.nbytes is None:
        raise UsageError(f"--device: bytes expected, such as '8GiB'; found {text!r}")
    return limit.nbytes


class SimulatedMemory:
    """The memory of one simulated device; the ``Meter`` of it, too."""

    def __init__(self, curve: MemoryCurve) -> None:
        self.curve = curve
        self._peak_nbytes = 0
        self.asked: list[tuple[int, Shape]] = []
        """Batch and shape of every forward pass tried, in order."""
        self.most_nbytes = 0
        """The most that any forward pass held."""
        self._lock = threading.Lock()

    def hold(self, batch: int, shape: Shape) -> None:
        """Hold what one forward pass holds, and let go of it again.

        Raises:
            torch.OutOfMemoryError: it is more than the device has.
        """
        nbytes = self.curve.held_nbytes(batch, shape)
        with self._lock:
            self.asked.append((batch, shape))
            if nbytes > self.curve.limit_nbytes:
                raise torch.OutOfMemoryError(
                    f"simulated device out of memory: {nbytes} bytes for a batch of {batch} of "
                    f"{shape[0]} x {shape[1]} px, where it has {self.curve.limit_nbytes}"
                )
            self.most_nbytes = max(self.most_nbytes, nbytes)
            self._peak_nbytes = max(self._peak_nbytes, nbytes)

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        """The most that a forward pass held meanwhile."""
        with self._lock:
            self._peak_nbytes = 0
        run()
        return self._peak_nbytes


class SimulatedModel:
    """A model on a device with so much memory; the model itself answers as it always does."""

    def __init__(self, model: PassModel, memory: SimulatedMemory) -> None:
        self.model, self.spec, self.memory = model, model.spec, memory

    def __call__(self, views: Views) -> Prediction:
        """Answer, if there is memory for it.

        Raises:
            torch.OutOfMemoryError: there is not.
        """
        batch, _, height, width = views.pixels.shape
        self.memory.hold(batch, (height, width))
        return self.model(views)


def is_simulated(device: str) -> bool:
    """Whether a device's name is that of a simulated one."""
    return device.split(":")[0] == KIND


@cache
def simulated_memory(device: str) -> SimulatedMemory:
    """The one memory of this process's simulated device of that name."""
    return SimulatedMemory(MemoryCurve.parse(device))
