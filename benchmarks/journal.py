"""What the journal costs a run, and how soon a run of thousands of images goes on.

*Overhead*: a real run in this process, in which every call that writes to the journal is counted
and timed, its fsync included. The driver spends that time while workers compute: as a share of the
run it is the most that the journal can cost. With the default shards; with small ones, which make
many more receipts; and with a model that costs what models cost, a U-Net, beside one that is nearly
free.

*Resume*: a run folder of so many images, every other one complete and the others partly done (see
``archive.py``), is resumed by the command. From outside it is seen when the first unit is given to
a worker and when the first new tile is in the journal; then the command is killed.

    python benchmarks/journal.py                    # 10 000 images: about four minutes
    python benchmarks/journal.py --images 200 --side 2048 --only local:1
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from archive import LOCAL, build
from common import command, machine, table
from starting import start_run

from saccade.jobs.driver import RunSummary, run
from saccade.jobs.journals.journal import Journal
from saccade.jobs.sample import write_sample_slide

DENSE = """\
version: 1
passes:
  - name: dense
    resolution: {{downsample: 1}}
    model: {model}
    tile: 256
output: {{shard: {shard_px}}}
"""
HEMATOXYLIN = "builtin:hematoxylin"
UNET = f"{{source: '{Path(__file__).with_name('networks.py')}:UNet'}}"


@dataclass(frozen=True, slots=True)
class Case:
    """One dense run."""

    name: str
    """For the table."""
    model: str
    """As in a recipe."""
    shard_px: int
    """Side of a unit's region; a small slide may make it smaller."""
    share: int
    """The slide is so many times smaller on a side."""


CASES = (
    Case("hematoxylin, default shards", HEMATOXYLIN, 4096, 1),
    Case("hematoxylin, shards of 512", HEMATOXYLIN, 512, 1),
    Case("U-Net, shards of 512", UNET, 512, 2),
)


@dataclass
class Spent:
    """Calls that wrote to a journal, and their seconds."""

    calls: int = 0
    """Of ``append`` and ``note``."""
    fsyncs: int = 0
    """Of ``append``: each makes everything before it durable."""
    seconds: list[float] = field(default_factory=list)
    """One per call."""


@contextmanager
def counted_journal() -> Iterator[Spent]:
    """Count and time what is written to journals for the length of a block."""
    spent = Spent()

    def timed(method: Callable[..., None], fsyncs: int) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            since = time.perf_counter()
            try:
                method(*arguments)
            finally:
                spent.seconds.append(time.perf_counter() - since)
                spent.calls, spent.fsyncs = spent.calls + 1, spent.fsyncs + fsyncs

        return call

    append, note = timed(Journal.append, 1), timed(Journal.note, 0)
    with mock.patch.object(Journal, "append", append), mock.patch.object(Journal, "note", note):
        yield spent


def overhead(case: Case, side_px: int, folder: Path) -> list[str]:
    """One real run, dense, on one local worker."""
    slide = folder / f"slide-{side_px // case.share}.tif"
    if not slide.exists():
        write_sample_slide(slide, side_px // case.share)
    folder = folder / case.name
    folder.mkdir()
    recipe = folder / "recipe.yaml"
    recipe.write_text(DENSE.format(model=case.model, shard_px=case.shard_px))
    with counted_journal() as spent:
        summary = run(recipe, [slide], folder / "run", LOCAL)
    return [case.name, *_told(spent, summary)]


def _told(spent: Spent, summary: RunSummary) -> list[str]:
    (image,) = summary.tally.images.values()
    total = sum(spent.seconds)
    return [
        f"{sum(done for done, _ in image.units.values())}",
        f"{summary.seconds:.1f}",
        f"{spent.calls}",
        f"{spent.fsyncs}",
        f"{1e3 * statistics.median(spent.seconds):.2f}",
        f"{total:.3f}",
        f"{total / summary.seconds:.2%}",
    ]


def resume(folder: Path, images: int, workers: str, repetitions: int) -> list[str]:
    """Medians over several resumes of one archive; each does a unit or two of the work."""
    recipe, pixels, output = build(folder, images)
    size = sum(path.stat().st_size for path in (output / "journal").iterdir())
    turns = [start_run(recipe, pixels, output, workers) for _ in range(repetitions)]
    return [
        f"{images} images, {workers}",
        f"{size / 1e6:.0f} MB",
        *(f"{statistics.median(getattr(turn, what) for turn in turns):.1f}" for what in TIMES),
        f"{max(turn.peak_nbytes for turn in turns) / 2**20:.0f} MiB",
    ]


TIMES = ("opened", "started", "answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=8192, help="of the slide run for the overhead")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", choices=["local:1", "ray"], help="kind of worker for the resume")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [overhead(case, options.side, folder) for case in CASES]
        print(table(OVERHEAD_HEAD, rows))
        print("\nTarget: less than 1 % of the run.\n", flush=True)
        kinds = [options.only] if options.only else ["local:1", "ray"]
        sizes = sorted({min(100, options.images), options.images})
        cases = [(size, kind) for kind in kinds for size in sizes]
        rows = [
            resume(folder / f"{size}-{kind[:3]}", size, kind, options.repetitions)
            for size, kind in cases
        ]
        print(table(RESUME_HEAD, rows))
        print("\nSeconds from the start of the process. Target: the first new tile in under 10 s.")


OVERHEAD_HEAD = [
    "journal in a run",
    "sweep units",
    "run s",
    "calls",
    "fsyncs",
    "median ms",
    "journal s",
    "share of run",
]
RESUME_HEAD = [
    "resume",
    "journal",
    "journal opened",
    "first unit given out",
    "first new tile",
    "driver's peak",
]

if __name__ == "__main__":
    main()
