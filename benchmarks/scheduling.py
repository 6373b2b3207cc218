"""How long devices wait: the dispatcher and the driver's rules, on simulated workers.

What decides is the package's own (``Dispatcher``, ``LargestFirst``, ``images_in_flight``); workers
are arithmetic: lanes that read, compute, write and do steps, each one thing after the other, fed as
the engine feeds them. Nothing waits for a clock: 10 000 images on 64 workers take seconds.

    python benchmarks/scheduling.py                     # every table, within two minutes
    python benchmarks/scheduling.py --images 1000 --workers 16

What a unit costs is in ``scheduling_world.py``, which ``borders.py --costs`` fits to the
receipts of a run. Sizes are lognormal (median 100 megapixels in the last pass, sigma 1); of each
image a share of its tiles is refined, 5 to 60 %, thickly in some shards and not at all in others.

*idle* is the share of the makespan in which nothing was on a device, from the first second to the
last; *tail* is the share after the first worker found nothing more to do; *over bound* compares the
makespan with all device seconds divided by all devices; *opens* counts how often a worker opened an
image, per image.

Very few images are played batch by batch (``scheduling_batches.py``), without help of idle workers
and with it. Their *bound* is a mean image's steps, one after the other, and all device seconds
divided by all devices.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from common import command, machine, table
from scheduling_batches import Batches
from scheduling_world import COSTS, Case, Simulation

from saccade.workers.helping import HELP_RULE, NO_HELP


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case came to."""

    case: Case
    makespan: float
    """Seconds from the first to the last."""
    idle: float
    """Share of the makespan in which nothing was on a device."""
    tail: float
    """Share of it after the first worker found nothing more to do."""
    over_bound: float
    """Makespan over that of devices that never wait, less one."""
    opens: float
    """Per image."""
    backups: int
    """Given."""

    def row(self) -> list[str]:
        """For the table."""
        shares = (f"{100 * share:.2f} %" for share in (self.idle, self.tail, self.over_bound))
        return [
            self.case.name,
            f"{self.makespan:.0f}",
            *shares,
            f"{self.opens:.2f}",
            f"{self.backups}",
        ]


HEAD = ("case", "makespan, s", "idle", "tail", "over bound", "opens", "backups")


def outcome(case: Case) -> Outcome:
    """Play one case through."""
    played = Simulation(case).run()
    workers = played.workers.values()
    end, count = played.now, case.workers
    busy = sum(min(stop, end) - min(start, end) for w in workers for start, stop in w.spans)
    return Outcome(
        case,
        makespan=end,
        idle=1 - busy / (count * end),
        tail=(end - (end if played.first_idle is None else played.first_idle)) / end,
        over_bound=end * count / played.bound - 1,
        opens=sum(worker.opens for worker in workers) / case.images,
        backups=played.backups,
    )


def ablations(case: Case) -> list[Case]:
    """A case, and the same without each feature."""
    return [
        case,
        replace(case, name="no affinity", affinity=False),
        replace(case, name="manifest's order", window=1),
        replace(case, name="no backup", backup=False),
        replace(case, name="none of them", affinity=False, window=1, backup=False),
        replace(case, name="all, last units in quarters", split=4),
    ]


def in_flight(case: Case) -> list[Case]:
    """How many images in flight it takes."""
    each = (1, 2, 3, 4)
    return [replace(case, name=f"{n} per worker", each=n) for n in each]


ARCHIVES = 5
"""Archives of very few images, over which makespans are averaged."""


def very_few(median_mp: float, images: int, workers: int) -> list[str]:
    """A row: makespans without help and with it, and what no schedule can beat."""
    case = Case(images=images, workers=workers, median_mp=median_mp, least_units=16)
    without, with_help = (
        [Batches(replace(case, help=rule, seed=n)).run() for n in range(ARCHIVES)]
        for rule in (NO_HELP, HELP_RULE)
    )
    before, after = (sum(p.now for p in played) / ARCHIVES for played in (without, with_help))
    return [
        f"{images} of {median_mp:g} MP on {workers}",
        f"{before:.1f}",
        f"{after:.1f}",
        f"{sum(p.least_seconds for p in without) / ARCHIVES:.1f}",
        f"{100 * (1 - after / before):.0f} %",
        f"{sum(p.helped for p in with_help) / ARCHIVES:.0f}",
    ]


FEW_HEAD = ("images", "alone, s", "with help, s", "bound, s", "less", "times helped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--few", type=int, default=300, help="images of a small archive")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n\n{COSTS}\n")
    whole = Case(images=options.images, workers=options.workers)
    few = replace(whole, images=options.few)
    slow = replace(whole, slow=0.01)
    tables = {
        f"{options.images} images, {options.workers} workers": [whole],
        "the same, and one attempt in a hundred takes ten times as long": ablations(slow)[:-1],
        f"{options.few} images, and such attempts": ablations(replace(few, slow=0.01)),
        f"{options.images // 10} images": in_flight(replace(whole, images=options.images // 10)),
    }
    apart = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=apart) as pool:
        answers = {title: pool.map(outcome, cases) for title, cases in tables.items()}
        for title, outcomes in answers.items():
            print(f"{title}:\n\n{table(HEAD, [one.row() for one in outcomes])}\n", flush=True)
        sizes = itertools.product((100.0, 1600.0), (1, 4, 20), (8, 64))
        rows = [pool.submit(very_few, *size) for size in sizes]
        few_table = table(FEW_HEAD, [row.result() for row in rows])
        print(f"very few images, means of {ARCHIVES} archives:\n\n{few_table}\n")
    print("Target: idle under 3 %, tail under 2 %.")


if __name__ == "__main__":
    main()
