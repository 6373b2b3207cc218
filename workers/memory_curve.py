"""What a simulated device holds, by size of a forward pass, and how it is named. Pure; no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Shape
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


def is_simulated(device: str) -> bool:
    """Whether a device's name is that of a simulated one."""
    return device.split(":")[0] == KIND
