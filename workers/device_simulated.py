"""A device that is only arithmetic: it counts bytes and runs out of them, always alike.

For tests, and for trying a budget without the device that it is for. Knows no real memory.
"""

from __future__ import annotations

import hashlib
import threading

import torch

from saccade.pipeline.geometry import Shape
from saccade.pipeline.models.base import PassModel, Prediction, Views
from saccade.workers.memory import pixels_of


class SimulatedDevice:
    """A model on a device with so much memory; the model itself answers as it always does.

    A forward pass holds ``base + k * batch * height * width`` bytes and some noise that depends on
    the size alone. It is a ``PassModel``, and the ``Meter`` of its own device.

    Args:
        model: what answers.
        base_nbytes: held whatever the input's size.
        nbytes_per_px: held per input pixel.
        limit_nbytes: a forward pass that holds more runs out of memory.
        noise_nbytes: the most that is held on top, by size.
    """

    def __init__(
        self,
        model: PassModel,
        base_nbytes: int,
        nbytes_per_px: float,
        limit_nbytes: int,
        noise_nbytes: int = 0,
    ) -> None:
        self.model, self.spec = model, model.spec
        self.base_nbytes, self.nbytes_per_px = base_nbytes, nbytes_per_px
        self.limit_nbytes, self.noise_nbytes = limit_nbytes, noise_nbytes
        self.asked: list[tuple[int, Shape]] = []
        """Batch and shape of every forward pass tried, in order."""
        self._peak_nbytes = 0
        self._lock = threading.Lock()

    def __call__(self, views: Views) -> Prediction:
        """Answer, if there is memory for it.

        Raises:
            torch.OutOfMemoryError: there is not.
        """
        batch, _, height, width = views.pixels.shape
        self.allocate(batch, (height, width))
        return self.model(views)

    def allocate(self, batch: int, shape: Shape) -> None:
        """Hold what one forward pass holds, and let go of it again.

        Raises:
            torch.OutOfMemoryError: it is more than the device has.
        """
        nbytes = self.held_nbytes(batch, shape)
        with self._lock:
            self.asked.append((batch, shape))
            if nbytes > self.limit_nbytes:
                raise torch.OutOfMemoryError(
                    f"simulated device out of memory: {nbytes} bytes for a batch of {batch} of "
                    f"{shape[0]} x {shape[1]} px, where it has {self.limit_nbytes}"
                )
            self._peak_nbytes = max(self._peak_nbytes, nbytes)

    def held_nbytes(self, batch: int, shape: Shape) -> int:
        """What a forward pass of this size holds."""
        slope = int(self.nbytes_per_px * pixels_of(batch, shape))
        return self.base_nbytes + slope + self._noise(batch, shape)

    def _noise(self, batch: int, shape: Shape) -> int:
        digest = hashlib.blake2b(repr((batch, *shape)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) % (self.noise_nbytes + 1)

    def reset(self) -> None:
        """Forget the peak."""
        with self._lock:
            self._peak_nbytes = 0

    def peak_nbytes(self) -> int:
        """The most that a forward pass held since."""
        return self._peak_nbytes
