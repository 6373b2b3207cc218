"""How the dispatcher carries a million units: seconds and memory of the pure state machine alone.

Every unit goes the whole way (stage announced, assigned, done, committed) with no worker behind it:
what is timed is deciding, which a driver does between a receipt and the next assignment. Each shape
of archive runs in a process of its own, so that its peak memory is its own; what the interpreter
and the imports held before is counted in.

    python benchmarks/dispatch.py                    # a million units, about half a minute
    python benchmarks/dispatch.py --units 100000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from common import command, machine, table

from saccade.workers import events
from saccade.workers.dispatch import Dispatcher

SLOTS = 3
"""Units in flight per worker, as workers announce them."""
RECEIPT: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Archive:
    """How a number of units is spread over images."""

    name: str
    """For the table."""
    images: int
    """Images in all."""
    images_open: int
    """Images in flight at once."""
    workers: int
    """Workers that join before the first image."""


ARCHIVES = (
    Archive("one image", 1, 1, 2),
    Archive("100 images, 17 in flight", 100, 17, 16),
    Archive("10 000 images, 129 in flight", 10_000, 129, 128),
)


class Loop:
    """A run loop without workers: whatever is assigned is done, whatever is done is durable."""

    def __init__(self, archive: Archive, units: int) -> None:
        self.dispatcher = Dispatcher()
        self.done = 0
        self._archive = archive
        self._units_each = units // archive.images
        self._images = iter(range(archive.images))
        self._waiting: deque[events.Event] = deque()

    def run(self) -> None:
        """Every image from its first unit to its last."""
        workers = (f"worker-{number}" for number in range(self._archive.workers))
        self._waiting.extend(events.WorkerJoined(name, SLOTS) for name in workers)
        for _ in range(self._archive.images_open):
            self._open_next()
        while self._waiting:
            for told in self.dispatcher.handle(self._waiting.popleft()):
                self._obey(told)

    def _open_next(self) -> None:
        for number in self._images:
            name = f"image-{number:05d}"
            self._waiting.append(events.StageReady(name, 1, tuple(self._refs(name, number))))
            return

    def _refs(self, name: str, number: int) -> Iterator[events.UnitRef]:
        first = number * self._units_each
        for order in range(self._units_each):
            yield events.UnitRef(f"{first + order:016x}", name, "sweep", order=order)

    def _obey(self, told: events.Instruction) -> None:
        match told:
            case events.Assign(worker, unit, attempt):
                self._waiting.append(events.UnitDone(worker, unit, attempt, RECEIPT))
            case events.Commit(unit):
                self.done += 1
                self._waiting.append(events.Committed(unit))
            case events.StageComplete(image):
                self._waiting.append(events.ImageDone(image))
                self._open_next()
            case _:
                raise AssertionError(f"nothing failed, and yet {told}")


def measure(archive: Archive, units: int) -> list[str]:
    """Seconds, and the peak of the process, of one archive."""
    before = peak_nbytes()
    loop = Loop(archive, units)
    since = time.perf_counter()
    loop.run()
    seconds = time.perf_counter() - since
    if loop.done != units // archive.images * archive.images or not loop.dispatcher.idle:
        raise AssertionError(f"{loop.done} of {units} units done")
    cells = seconds, 1e6 * seconds / loop.done
    nbytes = peak_nbytes()
    return [
        archive.name,
        f"{loop.done}",
        *(f"{cell:.1f}" for cell in cells),
        mib(nbytes - before),
        mib(nbytes),
    ]


def peak_nbytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def mib(nbytes: int) -> str:
    """Whole mebibytes."""
    return f"{nbytes / 2**20:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=1_000_000, help="at least 10 000")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    apart = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=apart, max_tasks_per_child=1) as pool:
        rows = [pool.submit(measure, archive, options.units).result() for archive in ARCHIVES]
    head = ["archive", "units", "seconds", "us per unit", "peak over start", "peak of process"]
    print(table(head, rows))
    print("\nTarget: a million units in under 60 s and 1 GB.")


if __name__ == "__main__":
    main()
