"""What a dense run costs beyond what it can't do without: decoding its windows, or computing them.

Every row is a process of its own, in which a run, decoding its windows, and the model on those
windows take turns, all three on as many threads as the run has workers. Decoding fills the arrays
that the run would be given; computing starts from float32 tensors that lie ready and drops what it
answers. The ratio is that of the run to the larger of the two, taken within a repetition. A run is
counted from the call that begins it to the call's return: model and plan, opening, reading,
computing, writing, pyramid, metadata. Imports are not in it, nor are, with ``auto``, the seconds
that are spent on measuring once per model and machine: those are in the column of the first run.

On a CPU decoding and computing share the processors, so the least a run can take is their sum, not
the larger; the CPU columns tell what a run spends on top of both, and hardly move with whatever
else the machine does.

    python benchmarks/dense.py                   # a generated slide of 8192 x 8192 pixels
    python benchmarks/dense.py slide.svs         # a slide of your own
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

from common import command, machine, table

from saccade.jobs import RunOptions, run
from saccade.jobs.hardware import cpus, memory_nbytes, threads_per_worker
from saccade.jobs.manifests.manifest import name_of
from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.plan import Batch, Window
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.plane import Plane
from saccade.workers.device import Predictor, set_threads
from saccade.workers.folder import RunFolder
from saccade.workers.reading import read_window

Item = TypeVar("Item")

HERE = Path(__file__).parent
SIDE_PX = 8192
"""Of the generated slide."""
READY_NBYTES = 3 << 30
"""Tensors that lie ready at once; a larger slide is computed in several rounds."""
GLANCE = {"name": "glance", "resolution": {"downsample": 16}, "model": "builtin:tissue"}


@dataclass(frozen=True)
class Row:
    """What one process measures."""

    slide: Path
    """The image."""
    model: str
    """A class of ``networks.py``."""
    precision: str
    """As in a recipe."""
    masked: bool
    """Whether a glance at tissue comes first, and only tissue is computed."""
    workers: str
    """As in ``RunOptions``, with their count."""
    repetitions: int
    """Turns."""

    @property
    def recipe(self) -> Recipe:
        """One dense pass, after a glance where only tissue is wanted."""
        dense = {
            "name": "dense",
            "resolution": {"downsample": 1},
            "model": {"source": f"networks.py:{self.model}"},
        }
        passes = [GLANCE, dense | {"select": {"by": "foreground"}}] if self.masked else [dense]
        return Recipe.model_validate({"precision": self.precision, "passes": passes})

    @property
    def count(self) -> int:
        """Workers, and threads of what is compared."""
        return int(self.workers.partition(":")[2])

    def said_with(self, layout: PassLayout) -> str:
        """The row's name, with what the run settled on."""
        order = ", channels last" if layout.channels_last else ""
        order += ", fused" if layout.fused else ""
        window_px = layout.window_tiles * layout.tile_px + 2 * layout.halo_px
        setting = f"{layout.precision}{order}, {layout.batch} x {window_px} px"
        return f"{self.model}, {'tissue' if self.masked else 'all'}, {self.workers}: {setting}"


class Took(NamedTuple):
    """Seconds of this process."""

    wall: float
    """By the clock."""
    cpu: float
    """Of all its threads."""


class Turn(NamedTuple):
    """What one repetition took."""

    run: Took
    """The run."""
    decode: Took
    """Decoding its windows."""
    forward: Took
    """Computing its windows."""

    @property
    def ratio(self) -> float:
        """The run over the larger of what it can't do without."""
        return self.run.wall / max(self.decode.wall, self.forward.wall)

    @property
    def cpu_ratio(self) -> float:
        """The run over the sum of both: what is neither decoding nor computing."""
        return self.run.cpu / (self.decode.cpu + self.forward.cpu)


def measure(row: Row) -> list[str]:
    """One row of the table, measured in this process."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what is calibrated here stays here
        first = timed_run(row, Path(folder) / "first")
        peak_nbytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        turns = [one_turn(row, Path(folder) / str(i)) for i in range(row.repetitions)]
        plan, batches = planned(row, Path(folder) / "first")
    megapixels = sum(window.read.area for batch in batches for window in batch) / 1e6
    parts = [medians(parts) for parts in zip(*turns, strict=True)]
    here = row.workers.startswith("local")
    return [
        row.said_with(plan.last),
        f"{megapixels:.0f}",
        *(f"{wall:.2f}" for wall, _ in (first, *parts)),
        f"{statistics.median(turn.ratio for turn in turns):.2f}",
        *(f"{cpu:.1f}" if here or i else "" for i, (_, cpu) in enumerate(parts)),
        f"{statistics.median(turn.cpu_ratio for turn in turns):.2f}" if here else "",
        f"{peak_nbytes / 1e9:.2f}" if here else "",
    ]


def medians(parts: Sequence[Took]) -> Took:
    return Took(*map(statistics.median, zip(*parts, strict=True)))


def one_turn(row: Row, folder: Path) -> Turn:
    """The run, then its windows decoded, then its windows computed."""
    run_took = timed_run(row, folder)
    plan, batches = planned(row, folder)
    decode = timed_decode(row, plan, batches)
    return Turn(run_took, decode, timed_forward(row, plan, batches))


def planned(row: Row, folder: Path) -> tuple[ImagePlan, list[Batch]]:
    """What a run computed in its last pass."""
    kept = RunFolder(folder)
    plan = kept.read_image_plan(name_of(row.slide))
    return plan, [b for unit in kept.read_units(plan.name, plan.last) for b in unit.batches]


# --------------------------------------------------------------------------------- what is timed


def timed_run(row: Row, folder: Path) -> Took:
    """A run from beginning to end."""
    options = RunOptions(workers=row.workers, device="cpu")
    since = now()
    summary = run(row.recipe, [row.slide], folder, options, model_folder=HERE)
    took = elapsed(since)
    if summary.quarantined:
        raise SystemExit(f"the run failed: {summary.quarantined}")
    return took


def now() -> Took:
    return Took(time.perf_counter(), time.process_time())


def elapsed(since: Took) -> Took:
    return Took(*(end - start for end, start in zip(now(), since, strict=True)))


def timed_decode(row: Row, plan: ImagePlan, batches: Sequence[Batch]) -> Took:
    """Reading every window of the pass."""
    windows = [window for batch in batches for window in batch]
    with closing(open_source(plan.uri)) as source:
        plane = Plane(source, plan.last.plane)

        def decode(window: Window) -> None:
            read_window(plane, plan.last, window)

        return in_threads(decode, windows, row.count)


def timed_forward(row: Row, plan: ImagePlan, batches: Sequence[Batch]) -> Took:
    """The model alone, on every window of the pass."""
    layout = plan.last
    loaded = load_model(row.recipe.passes[-1].model, base_folder=HERE)
    model = in_form(loaded, layout.form)
    predictor, took = Predictor(model, layout, "cpu"), Took(0.0, 0.0)
    with closing(open_source(plan.uri)) as source:
        plane = Plane(source, layout.plane)
        for some in rounds(batches):
            ready = [predictor.views([read_window(plane, layout, w) for w in b]) for b in some]
            took = Took(*map(sum, zip(took, in_threads(model, ready, row.count), strict=True)))
    return took


def rounds(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """The batches in parts whose float32 pixels fit the limit."""
    largest = max((sum(12 * window.read.area for window in b) for b in batches), default=1)
    rest = iter(batches)
    while some := list(islice(rest, max(1, READY_NBYTES // largest))):
        yield some


def in_threads(work: Callable[[Item], object], items: Sequence[Item], threads: int) -> Took:
    """All items, each on one of so many threads; answers are dropped at once."""

    def drop(item: Item) -> None:
        work(item)

    torch_threads = (threads_per_worker(cpus(), memory_nbytes()),)
    with ThreadPoolExecutor(threads, initializer=set_threads, initargs=torch_threads) as pool:
        since = now()
        for _ in pool.map(drop, items):
            pass
        return elapsed(since)


# ------------------------------------------------------------------------------------- the table


def rows_of(options: argparse.Namespace, slide: Path) -> Iterator[Row]:
    """Both models, each precision, over all of the slide and over tissue alone."""
    count = max(1, cpus() // threads_per_worker(cpus(), memory_nbytes()))
    kinds = ("local", "ray") if options.ray else ("local",)
    every = product(options.models, options.precisions, options.areas, kinds)
    for model, precision, area, kind in every:
        workers = f"{kind}:{count}"
        yield Row(slide, model, precision, area == "tissue", workers, options.repetitions)


def in_own_process(row: Row) -> list[str]:
    """A row whose memory and warm caches are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, row).result()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: a generated one")
    parser.add_argument("--side", type=int, default=SIDE_PX, help="of the generated slide")
    parser.add_argument("--models", nargs="+", default=["UNet", "TinyCNN"], help="of networks.py")
    parser.add_argument("--precisions", nargs="+", default=["auto", "float32"])
    parser.add_argument("--areas", nargs="+", default=["all", "tissue"], choices=["all", "tissue"])
    parser.add_argument("--ray", action="store_true", help="also with actors, start included")
    parser.add_argument("--repetitions", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or Path(folder) / "generated.tif"
        if options.slide is None:
            write_sample_slide(slide, options.side)
        rows = [in_own_process(row) for row in rows_of(options, slide)]
    print(table(HEAD, rows))


HEAD = [
    "model, area, workers, setting",
    "Mpx computed",
    "first run, s",
    "run, s",
    "decode only, s",
    "forward only, s",
    "run / larger",
    "run, CPU-s",
    "decode, CPU-s",
    "forward, CPU-s",
    "run / sum, CPU",
    "peak RSS, GB",
]

if __name__ == "__main__":
    main()
