"""What a forward pass holds where a library of its own allocates beside torch.

Such a library takes memory for a forward pass and keeps it for the next one, so what is resident
afterwards tells the most that it held. Knows no model and no device.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Sequence
from typing import Protocol

from saccade.workers.memory_limits import resident_nbytes
from saccade.workers.memory_probe import Meter


class Releasable(Protocol):
    """Something that keeps memory, and takes it anew when it is used again."""

    def release(self) -> None:
        """Give back what is held."""
        ...


class ArenaMeter:
    """Tensors as another meter counts them, and what stays resident of a library's own memory.

    Weights that the library loads are counted with every forward pass, and blocks that the C
    library does not give back may be counted twice: the answer is rather too large than too small.

    Args:
        tensors: counts what torch holds.
        holders: what keeps the memory; released before each forward pass.
        resident: bytes that this process holds now.
    """

    def __init__(
        self,
        tensors: Meter,
        holders: Sequence[Releasable],
        resident: Callable[[], int] = resident_nbytes,
    ) -> None:
        self._tensors, self._holders, self._resident = tensors, holders, resident

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        """What a first forward pass takes."""
        for one in self._holders:
            one.release()
        gc.collect()
        _give_back_free_blocks()
        before = self._resident()
        counted = self._tensors.peak_nbytes(run)
        return counted + max(0, self._resident() - before)


def _give_back_free_blocks() -> None:
    """Have the C library return what it holds but nobody uses, where it can (glibc).

    Otherwise the library's memory may come out of such blocks, which were resident before.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
