"""What a device has, and what is held on it: CUDA through its allocator, a CPU through the host.

Knows tensors' devices; knows no model, pass or window.
"""

from __future__ import annotations

import gc

import torch

from saccade.workers.memory import Budget
from saccade.workers.memory_limits import HostMemory, host_memory, resident_nbytes
from saccade.workers.memory_probe import Meter, host_meter
from saccade.workers.memory_size import MemoryLimit

SHARE = 0.9
"""Of what is available, where nobody sets a limit: others live on the device too."""


def allowed_memory(device: str, limit: MemoryLimit | None = None) -> Budget:
    """What one process may hold on a device, and what it holds already.

    A limit beyond what is available is cut down to that. Processes that share a device share this:
    see ``Budget.shared_by`` and ``placement.sharers``.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'...
        limit: the user's; a share is one of all the device has, or all the container is granted.
    """
    if device == "cpu":
        return budget_of(host_memory(), resident_nbytes(), limit)
    free, total = torch.cuda.mem_get_info(device)
    # what the allocator has cached is ours to use again
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    memory = HostMemory(total, free + cached)
    return budget_of(memory, torch.cuda.memory_allocated(device), limit)


def budget_of(memory: HostMemory, held_nbytes: int, limit: MemoryLimit | None) -> Budget:
    """Allowed and reserved, from what there is, what this process holds, and the user's limit."""
    if limit is None:
        return Budget(held_nbytes + int(memory.available_nbytes * SHARE), held_nbytes)
    most = held_nbytes + memory.available_nbytes
    return Budget(min(limit.of(memory.total_nbytes), most), held_nbytes)


def meter_for(device: str) -> Meter:
    """A meter of a device; made once what a worker reserves is there."""
    return host_meter() if device == "cpu" else CudaMeter(device)


class CudaMeter:
    """The peak of what torch's allocator took from a GPU, blocks that it caches included."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.reset()
        self._baseline = torch.cuda.memory_reserved(device)

    def reset(self) -> None:
        """Give cached blocks back, then forget the peak."""
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_nbytes(self) -> int:
        """Once the device has done all it was asked to."""
        torch.cuda.synchronize(self._device)
        return max(0, torch.cuda.max_memory_reserved(self._device) - self._baseline)
