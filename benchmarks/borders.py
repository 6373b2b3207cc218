"""Whether devices wait where one image ends and the next begins, by the receipts of a real run.

    python benchmarks/borders.py RECIPE IMAGE... --workers ray:2    # runs it, then reads it
    python benchmarks/borders.py --pace 0.3 --crops 24 IMAGE...     # a stand-in for GPUs, crops
    python benchmarks/borders.py --run RUN                          # of a run that has ended
    python benchmarks/borders.py --run RUN --costs                  # for scheduling_world.py

A receipt says from when to when each lane was at the unit, by the clock of its worker's machine. Of
every worker the device's spans are put in order: *at borders* is what lies between two of them that
belong to different images, *busy* is what the device lane worked of the time from the first span to
the last; what is in neither was spent waiting for pixels, or for a choice, within an image. Before
the first span and after the last are the run's beginning and end, not borders.

Where a processor is the device, what lies between images is seldom idle: the processor decodes,
chooses and writes meanwhile. *Cores idle* is the part of *at borders* in which the lanes of all
workers together had less to do than there are processors.

With ``--pace`` no recipe is given: the model of ``borders_device`` sleeps so many seconds per
megapixel, as if it computed beside the processors, and every gap counts. The pace is to be such
that devices are the bottleneck; what an image takes of each is printed, to show that they are.
``--crops`` cuts so many images of different sizes from those that are given.

A run begins with glances alone, which have nothing to be read beside. So there are two tables: of
all units, and from each worker's first unit of the last pass on. Another says what was waited for.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from borders_crops import DEVICE, recipe_text, write_crops
from borders_spans import CAUSES, History, Receipt, Waits, by_worker
from common import command, machine, table

from saccade.jobs.journals.journal import read_records
from saccade.pipeline.image_plan import ImagePlan
from saccade.workers.folder import RunFolder

HEAD = ("worker", "seconds", "busy", "at borders", "cores idle", "borders", "longest, s")


def row(one: Waits, history: History, cores: int) -> list[str]:
    """Of one worker, for the table."""
    idle = sum(history.idle_seconds(gap, cores) for gap in one.gaps)
    shares = (one.busy, one.at_borders, idle)
    return [
        one.worker,
        f"{one.seconds:.1f}",
        *(f"{100 * seconds / one.seconds:.1f} %" for seconds in shares),
        f"{one.borders}",
        f"{one.longest:.2f}",
    ]


def cause_rows(workers: Sequence[Waits], history: History) -> list[list[str]]:
    """Of every cause, its share of all gaps, and the longest wait for it."""
    waited: dict[str, list[float]] = defaultdict(list)
    for one in workers:
        for gap in one.gaps:
            for cause, seconds in history.causes(gap).items():
                waited[cause].append(seconds)
    total = sum(one.seconds for one in workers)
    return [
        [cause, f"{100 * sum(waited[cause]) / total:.2f} %", f"{max(waited[cause]):.2f}"]
        for cause in CAUSES
        if cause in waited
    ]


CAUSE_HEAD = ("waited for", "of the time", "longest, s")


def bottleneck(receipts: Sequence[Receipt]) -> str:
    """Seconds of the device and of the other lanes, per image."""
    images = len({receipt["image"] for receipt in receipts})
    lanes: dict[str, float] = defaultdict(float)
    for receipt in receipts:
        for lane, seconds in receipt["seconds"].items():
            lanes[lane] += seconds / images
    others = ", ".join(f"{lane} {s:.2f}" for lane, s in lanes.items() if lane != "device")
    return f"{images} images; seconds per image: device {lanes['device']:.2f}, {others}"


# ------------------------------------------------------------------------------------------- costs


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope through points, neither below 0, by the median of slopes (Theil, Sen)."""
    slopes = [
        (y1 - y0) / (x1 - x0)
        for (x0, y0), (x1, y1) in combinations(sorted(points), 2)
        if x1 > 1.2 * x0
    ]
    slope = max(0.0, statistics.median(slopes)) if slopes else 0.0
    return max(0.0, statistics.median(y - slope * x for x, y in points)), slope


def cost_rows(run: Path, receipts: Iterable[Receipt]) -> list[list[str]]:
    """Seconds of each kind of work: a constant, and per megapixel."""
    folder = RunFolder(run)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    plans: dict[str, ImagePlan] = {}
    for receipt in receipts:
        name = receipt["image"]
        plan = plans.setdefault(name, folder.read_image_plan(name))
        height, width = plan.last.plane.shape
        if "step" in receipt:
            points[receipt["step"]].append((height * width / 1e6, receipt["seconds"]["step"]))
            continue
        for lane in ("read", "device") if receipt["pixels"] else ():
            points[lane].append((receipt["pixels"] / 1e6, receipt["seconds"][lane]))
        if receipt["pass"] == plan.last.name:
            regions = {unit.id: unit.region for unit in folder.read_units(name, plan.last)}
            owned = regions[receipt["unit"]].area * plan.last.stride**2
            points["write"].append((owned / 1e6, receipt["seconds"]["write"]))
    return [
        [kind, str(len(seen)), *(f"{number:.4f}" for number in line(seen))]
        for kind, seen in points.items()
    ]


COST_HEAD = ("work", "receipts", "s", "s per MP")


def run_it(recipe: Path, images: Sequence[Path], workers: str, run: Path) -> str:
    """Run a recipe as the command line does; what it took of the processors."""
    main = "from saccade.jobs.cli import main; main()"
    words = ["run", str(recipe), *map(str, images), "-o", str(run), "--workers", workers]
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", main, *words], check=True)
    seconds, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(after[:2]) - sum(before[:2])
    return f"{seconds:.1f} s, {cpu:.1f} of processors: {cpu / len(images):.2f} per image"


def begin(options: argparse.Namespace, folder: Path) -> Path:
    """What is run, where it is not there: by the recipe, or by that of the stand-in."""
    if options.run:
        return Path(options.run)
    words = list(map(Path, options.words))
    if options.pace is None:
        recipe, images = words[0], words[1:]
    else:
        recipe, images = folder / "recipe.yaml", words
        recipe.write_text(recipe_text(options.pace))
    if options.crops:
        images = write_crops(images, options.crops, folder)
    print(run_it(recipe, images, options.workers, folder / "run"))
    return folder / "run"


def show(run: Path) -> None:
    """The tables of one run."""
    folder, cores = RunFolder(run), len(os.sched_getaffinity(0))
    sleeping = DEVICE.name in folder.recipe.read_text()
    history = History(read_records(run / "journal"), sleeping=sleeping)
    last = folder.read_image_plan(history.receipts[0]["image"]).last.name
    print(f"{bottleneck(history.receipts)}{' (devices are a stand-in)' if sleeping else ''}\n")
    whole, after = by_worker(history.receipts), by_worker(history.receipts, last)
    print("All units:\n\n" + table(HEAD, [row(one, history, cores) for one in whole]))
    rows = [row(one, history, cores) for one in after]
    print(f"\nFrom the first unit of {last!r} on:\n\n{table(HEAD, rows)}")
    print(f"\nWhat its gaps waited for:\n\n{table(CAUSE_HEAD, cause_rows(after, history))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="RECIPE IMAGE", help="no recipe with --pace")
    parser.add_argument("--workers", default="local:2")
    parser.add_argument("--pace", type=float, help="seconds per megapixel of a stand-in device")
    parser.add_argument("--crops", type=int, default=0, help="images to cut from those given")
    parser.add_argument("--run", type=Path, help="a run that has ended, instead of a new one")
    parser.add_argument("--costs", action="store_true", help="also what each kind of work costs")
    options = parser.parse_args()
    if not (options.run or len(options.words) > (options.pace is None)):
        parser.error("a recipe and images are expected, or --pace and images, or --run")
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as folder:
        run = begin(options, Path(folder))
        show(run)
        if options.costs:
            receipts = [dict(r) for r in read_records(run / "journal") if r["kind"] == "receipt"]
            print(f"\n{table(COST_HEAD, cost_rows(run, receipts))}")


if __name__ == "__main__":
    main()
