"""Weights drawn the same way in every process: a model without a weight file has a seed instead.

Workers build a pass's model each on their own, so what is drawn at random must not depend on what
else a process has drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers on the CPU follow from ``seed`` inside, and go on outside as if never asked.

    Args:
        seed: any integer from 0 on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
