"""Which worker computes on which device of one machine, and how many share one. Pure."""

from __future__ import annotations


def device_of(device: str, worker: int, gpus: int) -> str:
    """The device of one worker: those that leave the GPU open take turns over all there are.

    Args:
        device: of the run: 'cpu', 'cuda' or a certain one, 'cuda:1'.
        worker: its number, from 0.
        gpus: of this machine.
    """
    return f"cuda:{worker % gpus}" if device == "cuda" and gpus else device


def sharers(device: str, workers: int, gpus: int) -> int:
    """How many workers the fullest device carries, each with that part of its memory.

    Args:
        device: of the run.
        workers: on this machine.
        gpus: of this machine.
    """
    spread = gpus if device == "cuda" and gpus else 1
    return max(1, -(-workers // spread))
