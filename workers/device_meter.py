"""What a device has, and what a forward pass holds on it: one way for every kind of device.

A GPU tells through torch's allocator. On a CPU the tensors themselves are counted, which is exact
and the same every time, where resident memory depends on what a C library's heap keeps. Knows
tensors' devices; knows no model, pass or window.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy
from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig

from saccade.workers.device_simulated import simulated_memory
from saccade.workers.memory import Budget
from saccade.workers.memory_curve import is_simulated
from saccade.workers.memory_limits import (
    HostMemory,
    host_memory,
    most_resident_nbytes,
    resident_nbytes,
)
from saccade.workers.memory_probe import Meter
from saccade.workers.memory_size import MemoryLimit

SHARE = 0.9
"""Of what is available, where nobody sets a limit: others live on the device too."""


def allowed_memory(device: str, limit: MemoryLimit | None = None) -> Budget:
    """What one process may hold on a device, and what it holds already.

    A limit beyond what is available is cut down to that. Processes that share a device share this:
    see ``Budget.shared_by``.

    Args:
        device: 'cpu', 'cuda', 'cuda:1', 'simulated:8GiB'...
        limit: the user's; a share is one of all the device has, or all the container is granted.
    """
    if device == "cpu":
        return budget_of(host_memory(), resident_nbytes(), limit)
    if is_simulated(device):
        total = simulated_memory(device).curve.limit_nbytes
        return Budget(total if limit is None else limit.of(total))
    free, total = torch.cuda.mem_get_info(device)
    # what the allocator has cached is ours to use again
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    memory = HostMemory(total, free + cached)
    return budget_of(memory, torch.cuda.memory_allocated(device), limit)


def total_memory_nbytes(device: str) -> int:
    """All that a device has, or that this container is granted of it; the same at any time."""
    if device == "cpu":
        return host_memory().total_nbytes
    if is_simulated(device):
        return simulated_memory(device).curve.limit_nbytes
    return int(torch.cuda.mem_get_info(device)[1])


def budget_of(memory: HostMemory, held_nbytes: int, limit: MemoryLimit | None) -> Budget:
    """Allowed and reserved, from what there is, what this process holds, and the user's limit."""
    if limit is None:
        return Budget(held_nbytes + int(memory.available_nbytes * SHARE), held_nbytes)
    most = held_nbytes + memory.available_nbytes
    return Budget(min(limit.of(memory.total_nbytes), most), held_nbytes)


def keep_to(device: str, limit: MemoryLimit | None, sharing: int = 1) -> None:
    """Have a GPU's allocator refuse what is beyond one process's part of a limit."""
    if limit is None or device == "cpu" or is_simulated(device):
        return
    _, total = torch.cuda.mem_get_info(device)
    share = min(1.0, limit.of(total) / sharing / total)
    torch.cuda.set_per_process_memory_fraction(share, torch.device(device))


def most_held_nbytes(device: str) -> int:
    """The most that this process ever held on a device."""
    if device == "cpu":
        return most_resident_nbytes()
    if is_simulated(device):
        return simulated_memory(device).most_nbytes
    return int(torch.cuda.max_memory_reserved(device))


def meter_for(device: str) -> Meter:
    """A meter of forward passes on a device."""
    if device == "cpu":
        return TensorMeter()
    return simulated_memory(device) if is_simulated(device) else CudaMeter(device)


class TensorMeter:
    """The most bytes that the tensors of one thread held at once, as torch itself records them.

    Scratch memory of kernels is among them. What the heap keeps between tensors is not.
    """

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        """The highest sum of what was taken and given back by the calling thread."""
        # the newer profiler does not start in a thread that did not import torch, and says so on
        # stderr; this one records each thread by itself
        _enable_profiler_legacy(_RECORD_MEMORY)
        try:
            run()
        finally:
            threads = _disable_profiler_legacy()
        return max(map(_highest_sum, threads), default=0)


_RECORD_MEMORY = ProfilerConfig(
    ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig()
)


def _highest_sum(records: Iterable[Any]) -> int:
    changes = (one.cpu_memory_usage() for one in records if one.kind() == "memory_alloc")
    return max(accumulate(changes), default=0)


class CudaMeter:
    """The peak of what torch's allocator took from a GPU, blocks that it caches included."""

    def __init__(self, device: str) -> None:
        self._device = device

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        """Once the device has done all it was asked to; begins with what is cached given back."""
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_reserved(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return max(0, torch.cuda.max_memory_reserved(self._device) - before)
