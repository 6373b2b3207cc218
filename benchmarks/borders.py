"""Whether devices wait where one image ends and the next begins, by the receipts of a real run.

    python benchmarks/borders.py RECIPE IMAGE... --workers ray:2    # runs it, then reads it
    python benchmarks/borders.py --run RUN                          # of a run that has ended
    python benchmarks/borders.py --run RUN --costs                  # for scheduling_world.py

A receipt says from when to when each lane was at the unit, by the clock of its worker's machine. Of
every worker the device's spans are put in order: *at borders* is what lies between two of them that
belong to different images, *busy* is what the device lane worked of the time from the first span to
the last; what is in neither was spent waiting for pixels, or for a choice, within an image. Before
the first span and after the last are the run's beginning and end, not borders.

A run begins with glances alone, which have nothing to be read beside. So there are two tables: of
all units, and from each worker's first unit of the last pass on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from common import command, machine, table

from saccade.jobs.journals.journal import read_records
from saccade.pipeline.image_plan import ImagePlan
from saccade.workers.folder import RunFolder

Receipt = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """What one worker's device did between its first unit and its last."""

    worker: str
    """Its name."""
    seconds: float
    """From the first span's start to the last one's end."""
    busy: float
    """Seconds of work in the device lane."""
    at_borders: float
    """Seconds of gaps between units of different images."""
    borders: int
    """Pairs of neighbouring units of different images."""
    longest: float
    """The longest of those gaps."""

    def row(self) -> list[str]:
        """For the table."""
        return [
            self.worker,
            f"{self.seconds:.1f}",
            f"{100 * self.busy / self.seconds:.1f} %",
            f"{100 * self.at_borders / self.seconds:.1f} %",
            f"{self.borders}",
            f"{self.longest:.2f}",
        ]


HEAD = ("worker", "seconds", "busy", "at borders", "borders", "longest, s")


def receipts_of(run: Path) -> list[Receipt]:
    """The receipts of a run."""
    return [dict(r) for r in read_records(run / "journal") if r["kind"] == "receipt"]


def waits(worker: str, receipts: Iterable[Receipt]) -> Waits:
    """How long a worker's device waited, and where."""
    spans = sorted((*r["spans"]["device"], r["image"], r["seconds"]["device"]) for r in receipts)
    reached, gaps = spans[0][1], []
    for (_, _, image, _), (start, stop, following, _) in pairwise(spans):
        if image != following:
            gaps.append(max(0.0, start - reached))
        reached = max(reached, stop)
    busy = sum(seconds for *_, seconds in spans)
    seconds = reached - spans[0][0]
    return Waits(worker, seconds, busy, sum(gaps), len(gaps), max(gaps, default=0.0))


def begun(receipts: list[Receipt], last: str) -> list[Receipt]:
    """What a worker computed from its first unit of the last pass on."""
    firsts = [r["spans"]["device"][0] for r in receipts if r["pass"] == last]
    return [r for r in receipts if firsts and r["spans"]["device"][0] >= min(firsts)]


def by_worker(receipts: Iterable[Receipt], last: str | None = None) -> list[Waits]:
    """Every worker that computed anything, by name; from the first unit of a pass on, if named."""
    held: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        if "device" in receipt.get("spans", {}):
            held[receipt["worker"]].append(receipt)
    counted = {w: begun(held[w], last) if last else held[w] for w in sorted(held)}
    return [waits(worker, units) for worker, units in counted.items() if units]


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


def run_it(options: argparse.Namespace, folder: Path) -> Path:
    """Run the recipe over the images, as the command line does."""
    main = "from saccade.jobs.cli import main; main()"
    words = ["run", options.recipe, *options.images, "-o", str(folder / "run")]
    flags = ["--workers", options.workers]
    subprocess.run([sys.executable, "-c", main, *words, *flags], check=True)
    return folder / "run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--workers", default="local:2")
    parser.add_argument("--run", type=Path, help="a run that has ended, instead of a new one")
    parser.add_argument("--costs", action="store_true", help="also what each kind of work costs")
    options = parser.parse_args()
    if not (options.run or options.images):
        parser.error("a recipe and images are expected, or --run")
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or run_it(options, Path(folder))
        receipts = receipts_of(run)
        print(f"{machine()}\n$ {command()}\n")
        last = RunFolder(run).read_image_plan(receipts[0]["image"]).last.name
        print("All units:\n\n" + table(HEAD, [one.row() for one in by_worker(receipts)]))
        after = table(HEAD, [one.row() for one in by_worker(receipts, last)])
        print(f"\nFrom the first unit of {last!r} on:\n\n{after}")
        if options.costs:
            print(f"\n{table(COST_HEAD, cost_rows(run, receipts))}")


if __name__ == "__main__":
    main()
