"""How this process's tensors are allocated. Set before the first tensor; changes no result."""

from __future__ import annotations

import os


def keep_large_blocks() -> None:
    """Let large CPU tensors use huge pages, where the user has not said otherwise.

    The C library gives every large block back to the system after each forward pass, and the next
    pass faults it in again, page by page: half of a convolutional network's time at 1024 x 1024
    pixels. Huge pages make that cheap. Torch reads this switch at its first allocation (``c10``,
    *alignment and huge pages*); it has no effect where the system forbids huge pages.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
