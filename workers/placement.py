"""Which worker computes on which device of one machine. Pure."""

from __future__ import annotations


def device_of(device: str, worker: int, gpus: int) -> str:
    """The device of one worker: those that leave the GPU open take turns over all there are.

    Args:
        device: of the run: 'cpu', 'cuda' or a certain one, 'cuda:1'.
        worker: its number, from 0.
        gpus: of this machine.
    """
    return f"cuda:{worker % gpus}" if device == "cuda" and gpus else device
