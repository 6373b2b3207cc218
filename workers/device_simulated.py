"""A device that is only arithmetic: it counts bytes and runs out of them, always alike.

For tests, and for trying a budget without the device that it is for: ``--device simulated:8GiB``
computes on the CPU and keeps to the memory of a device of that size. Knows no real memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

import torch

from saccade.pipeline.geometry import Shape
from saccade.pipeline.models.base import PassModel, Prediction, Views
from saccade.workers.memory_curve import MemoryCurve


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


@cache
def simulated_memory(device: str) -> SimulatedMemory:
    """The one memory of this process's simulated device of that name."""
    return SimulatedMemory(MemoryCurve.parse(device))
