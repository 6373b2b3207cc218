"""``saccade`` with faults of its surroundings: python chaos_faulty.py '{"reads": 0.05}' run ...

*reads*    share of the places of a TIFF whose first read fails as a bad cable would
*writes*   share of the files whose first write fails likewise
*slow*     seconds that every write takes longer
*clock*    hours, at most, that the clock on the wall is wrong by; it jumps at every look
*memory*   share of the batches at which the device is said to have no memory left

What fails follows from the seed and from what is read or written, not from when.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import time
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.pipeline.sources.byte_source import LocalBytes
from saccade.pipeline.store_shelf import FileUpload

if TYPE_CHECKING:
    from saccade.pipeline.models.base import Prediction, Views


class Once:
    """Says yes to a share of all things, and to each at most once in a process."""

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed
        self._met: set[str] = set()
        self.yes = 0

    def __call__(self, thing: str) -> bool:
        """Whether this thing fails now."""
        met = thing in self._met
        self._met.add(thing)
        chosen = not met and random.Random(f"{self._seed}-{thing}").random() < self._share
        self.yes += chosen
        return chosen


def fail_reads(fails: Once) -> None:
    """The first read of some places ends with an error of the device."""
    read = LocalBytes.read

    def faulty(source: LocalBytes, offset: int, nbytes: int) -> bytes:
        if fails(f"{Path(source.name).name} {offset}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(source, offset, nbytes)

    LocalBytes.read = faulty  # type: ignore[method-assign]


def fail_writes(fails: Once, slow_seconds: float) -> None:
    """Every write takes its time; the first of some files ends with an error of the device."""
    opened = FileUpload._opened

    def faulty(upload: FileUpload) -> FileIO:
        if not upload.begun:
            time.sleep(slow_seconds)
        if fails(place_of(upload.path)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(upload)

    FileUpload._opened = faulty  # type: ignore[method-assign]


def place_of(path: Path) -> str:
    """Which file of which result, whatever folder the run lies in."""
    results = [at for at, part in enumerate(path.parts) if part.endswith(".ome.zarr")]
    return "/".join(path.parts[results[0] if results else -1 :])


def jump(hours: float, seed: int) -> None:
    """The time of day is another one at every look; monotonic clocks go on as they do."""
    now, chance = time.time, random.Random(seed)
    time.time = lambda: now() + chance.uniform(-3600, 3600) * hours


def exhaust(fails: Once) -> None:
    """Some batches find the device without memory."""
    import torch

    from saccade.workers.device import Predictor

    answer, count = Predictor._answer, iter(range(10**9))

    def faulty(device: Predictor, views: Views) -> Prediction:
        if fails(str(next(count))):
            raise torch.OutOfMemoryError("out of memory (injected)")
        return answer(device, views)

    Predictor._answer = faulty  # type: ignore[method-assign]


def inject(faults: dict[str, float]) -> list[Once]:
    """Arrange for the faults; returns what counts them."""
    seed = int(faults.get("seed", 1))
    counters = [Once(faults.get(kind, 0), seed) for kind in ("reads", "writes", "memory")]
    reads, writes, memory = counters
    fail_reads(reads)
    if "memory" in faults:
        exhaust(memory)
    fail_writes(writes, faults.get("slow", 0))
    if "clock" in faults:
        jump(faults["clock"], seed)
    return counters


if __name__ == "__main__":
    from saccade.jobs.cli import main

    counted = inject(json.loads(sys.argv.pop(1)))
    try:
        main()
    finally:
        told = os.environ.get("CHAOS_COUNT")
        if told:
            with Path(told).open("a") as file:
                file.write(f"{sum(counter.yes for counter in counted)}\n")
