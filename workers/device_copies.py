"""Pixels to a device and answers back, beside what it computes.

A GPU copies on streams of its own, from and to memory that the host keeps in place, so that it
computes one batch while it is given the next. On a CPU nothing is copied and nothing is waited for.
Knows no window and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Copies(Protocol):
    """The ways to one device and back."""

    def upload(self, host: Tensor) -> Tensor:
        """The same values on the device; what is asked of it from now on finds them there."""
        ...

    def download(self, given: Tensor) -> Tensor:
        """Where the values will be on the host, once ``arrival`` has been waited for."""
        ...

    def arrival(self) -> Callable[[], object] | None:
        """Waits for all downloads so far; None where there is nothing to wait for."""
        ...


class NoCopies:
    """The host is the device."""

    def upload(self, host: Tensor) -> Tensor:
        """The tensor itself."""
        return host

    def download(self, given: Tensor) -> Tensor:
        """The tensor itself."""
        return given

    def arrival(self) -> None:
        """Everything is there."""
        return


class CudaCopies:
    """A CUDA device with one stream in each direction."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._up, self._down = (_stream(self._device) for _ in range(2))

    def upload(self, host: Tensor) -> Tensor:
        """The copy waits for no kernel, kernels that follow wait for the copy."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            there = host.pin_memory().to(self._device, non_blocking=True)
        computing.wait_stream(self._up)
        # its memory is the upload stream's: not to be given away before the kernels have read it
        there.record_stream(computing)
        return there

    def download(self, given: Tensor) -> Tensor:
        """The copy waits for the kernels so far, none waits for the copy."""
        given = given.contiguous()
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host = torch.empty(given.shape, dtype=given.dtype, pin_memory=True)
            host.copy_(given, non_blocking=True)
        given.record_stream(self._down)
        return host

    def arrival(self) -> Callable[[], object]:
        """An event behind the last copy."""
        wait: Callable[[], object] = self._down.record_event().synchronize
        return wait


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


@lru_cache
def copies_for(device: str) -> Copies:
    """The ways to a device and back, one set for everybody in this process."""
    return NoCopies() if device == "cpu" else CudaCopies(device)
