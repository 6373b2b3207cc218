"""What a driver pays for images that it does not work on: bytes and seconds per row of a long list.

Nothing is computed. A list of so many images is written, and a journal in which every image but a
few is complete, with so many lines each as a run of two passes leaves. Then the driver's side is
gone through as ``saccade run`` does it, in a process of its own for each row of the table:

*list*     the rows of the list made entries, checked, spooled and indexed, as at the first start
*resume*   the same; then the journal read, rows and files compared with what they were, images
           chosen that are left, and the list merged into ``images.jsonl``
*status*   what ``saccade status`` reads

    python benchmarks/many_images.py                       # 10^5 and 10^6 rows
    python benchmarks/many_images.py --rows 10000 --phases list resume

Linux only: the peak of memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import command, machine, table

from saccade.jobs.identity import RunIdentity
from saccade.jobs.journals.journal import Journal
from saccade.jobs.journals.stock import Stock
from saccade.jobs.manifests.catalogue import Catalogue, gather
from saccade.jobs.manifests.manifest import entry_from_json, entry_to_json
from saccade.jobs.monitoring.status import read_tally
from saccade.jobs.options import RunOptions
from saccade.jobs.resuming import Asked, images_to_restart
from saccade.pipeline.recipe import Recipe
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

RECIPE = Recipe.model_validate(
    {"passes": [{"name": "one", "resolution": {"downsample": 2}, "model": "builtin:tissue"}]}
)
LEFT = 7
"""Images that are not complete."""
PHASES = ("list", "resume", "status")


def build(root: Path, rows: int, journal: bool) -> None:
    """A list of so many images; and the journal of a run in which nearly all are complete."""
    folder = RunFolder(root / "run")
    source = root / "pixels"
    source.touch()
    with (root / "list.jsonl").open("w") as listed:
        for number in range(rows):
            entry = ImageEntry(f"slide-{number:07d}", str(source), mpp=0.25)
            listed.write(entry_to_json(entry) + "\n")
    if journal:
        _write_journal(folder, rows, source.stat())


def _write_journal(folder: RunFolder, rows: int, stat: os.stat_result) -> None:
    with Journal.open(folder.journal) as journal, journal.path.open("a") as file:
        for number in range(rows - LEFT):
            lines = _records(f"slide-{number:07d}", stat.st_size, stat.st_mtime_ns)
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    shutil.copy(folder.root.parent / "list.jsonl", folder.images)


def _records(name: str, nbytes: int, modified_ns: int) -> Iterator[dict[str, object]]:
    """What a run of two passes writes of an image, with one unit in each."""
    identity = {"path": "p", "nbytes": nbytes, "modified_ns": modified_ns, "quick_hash": "0" * 32}
    tiles = {"done": 64, "degraded": 0, "failed": 0}
    chosen = {"selected": 64, "of": 1024}
    sweep = {"tiles": tiles, "pixels": 2**22, "errors": [], "seconds": {"read": 0.5, "device": 1.0}}
    step: dict[str, object] = {"step": "select", "units": 1}
    for unit, more in (
        ("prepare", step | {"plans": "glance", "tiles": {"selected": 64}, "identity": identity}),
        ("glance", {"pass": "glance", "keys": {"c/0/0": "0" * 16}} | sweep),
        ("select", step | {"plans": "refine", "tiles": chosen}),
        ("refine", {"pass": "refine", "keys": {"c/0/0": "0" * 16}} | sweep),
        ("finalise", {"step": "finalise", "passes": {}}),
    ):
        about = {"image": name, "unit": f"{unit}-{name}", "epoch": 1}
        yield {"kind": "started"} | about
        yield {"kind": "receipt"} | about | more
    yield {"kind": "image", "image": name, "epoch": 1}


def gathered(root: Path) -> Catalogue:
    """The list, as a call asks for it."""
    with (root / "list.jsonl").open() as lines:
        return gather(map(entry_from_json, lines), RECIPE)


def resumed(root: Path) -> tuple[Catalogue, Stock]:
    """What a driver holds once it knows what is left to do."""
    folder, asked = RunFolder(root / "run"), gathered(root)
    stock = Stock.taken(folder.journal, asked.names)
    now = RunIdentity({}, {}, "cpu")
    wanted = Asked(asked, Catalogue.opened(folder.images), RunOptions())
    assert not [*images_to_restart(folder, stock.history, now, now, wanted)]
    asked.merged_into(folder.images, wanted.known)
    left = asked.part(stock.tally.unfinished())
    assert len(left) == LEFT, len(left)
    return asked, stock


def measure(root: Path, phase: str) -> dict[str, float]:
    """Seconds, of the clock and of the processor, and by how much the peak of memory grew."""
    # from here on the system counts the peak anew
    Path("/proc/self/clear_refs").write_text("5")
    before, since, cpu = _peak_nbytes(), time.perf_counter(), time.process_time()
    phases: dict[str, Callable[[Path], object]] = {
        "list": gathered,
        "resume": resumed,
        "status": lambda root: read_tally(root / "run"),
    }
    held = phases[phase](root)
    seconds = time.perf_counter() - since
    del held
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "nbytes": _peak_nbytes() - before}


def _peak_nbytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _row(root: Path, rows: int, phase: str) -> list[str]:
    arguments = [sys.executable, __file__, "--measure", phase, "--root", str(root)]
    done = json.loads(subprocess.run(arguments, check=True, capture_output=True).stdout)
    return [
        f"{phase}, {rows} rows",
        f"{done['seconds']:.1f}",
        f"{done['cpu']:.1f}",
        f"{done['nbytes'] / 2**20:.0f} MiB",
        f"{done['nbytes'] / rows:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6])
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--measure", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.root, options.measure)))
        return
    print(f"{machine()}\n$ {command()}\n")
    lines = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as temporary:
            build(Path(temporary), rows, journal=options.phases != ["list"])
            lines += [_row(Path(temporary), rows, phase) for phase in options.phases]
    print(table(["driver", "s", "CPU s", "peak grew by", "bytes per row"], lines))


if __name__ == "__main__":
    main()
