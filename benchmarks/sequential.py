"""What sequential passes hold: the current one and what it is given, however many there are.

One image, all passes at its finest resolution over all of its tiles (the case in which holding
earlier passes would cost most), each pass after the first given the scores and the features of the
one before. Every row is a run in a process of its own. *tensors* is the most that the tensors of
one batch held, from its pixels to its answer, as torch records them. *resident* is the process's
high-water mark (``VmHWM``) from its first batch on, *before* what it held then: the interpreter,
its libraries, the models. Rows take turns, and the least of the repeats is shown, because what a
heap keeps between tensors can only add to what is held. *if kept* is what the scores and features
of all passes would hold besides, did they stay in memory.

    python benchmarks/sequential.py                            # 1, 2, 3 and 5 passes: four minutes
    python benchmarks/sequential.py --side 1024 --passes 1 2 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import command, machine, table

RESET_HIGH_WATER = "5"
"""Written to ``/proc/self/clear_refs``, has the high-water mark begin at what is held (proc(5))."""
NETWORK = "saccade.pipeline.models.multipass:MultiPassNet"


def recipe_of(passes: int, tile_px: int) -> dict[str, Any]:
    """So many passes at one resolution; all but the first guided, and given features."""
    return {
        "passes": [
            {
                "name": f"pass{index}",
                "resolution": {"downsample": 1},
                "model": {
                    "source": NETWORK,
                    "options": {"guidance": int(index > 0), "features": index > 0, "depth": 2},
                },
                "tile": tile_px,
                "window": tile_px,
                "batch": 1,
                "guidance": index > 0,
                "features": index > 0,
            }
            for index in range(passes)
        ]
    }


# ----------------------------------------------------------------------- one run, in its process


def run_and_tell(passes: int, image: Path, folder: Path, tile_px: int) -> dict[str, int]:
    """Run, and say the most that this process and its batches held."""
    from saccade.jobs import RunOptions, run
    from saccade.pipeline import open_result
    from saccade.pipeline.recipe import Recipe

    told = Metered().installed()
    recipe = Recipe.model_validate(recipe_of(passes, tile_px))
    summary = run(recipe, [image], folder, RunOptions(workers="local:1", device="cpu"))
    if not summary.complete:
        raise SystemExit(f"the run failed: {dict(summary.quarantined)}")
    plan = open_result(summary.folder).plan
    kept = sum(one.unit_nbytes(1) * len(one.shards) for one in plan.passes)
    return {
        "tensors": told.tensor_nbytes,
        "before": told.before_nbytes,
        "resident": of_this_process("VmHWM"),
        "kept": kept,
    }


@dataclass
class Metered:
    """What was seen of a run's batches: not of those that only probe memory before it."""

    tensor_nbytes: int = 0
    """The most that the tensors of one batch held."""
    before_nbytes: int = 0
    """Resident when the first batch began."""

    def installed(self) -> Metered:
        """See every batch of this process from now on."""
        from saccade.workers.device import Predictor
        from saccade.workers.device_lane import DeviceLane
        from saccade.workers.device_meter import TensorMeter

        begin, compute, meter = Predictor._begin, DeviceLane._compute, TensorMeter()

        def metered(predictor: Predictor, windows: Any) -> Any:
            answers: list[Any] = []
            nbytes = meter.peak_nbytes(lambda: answers.append(begin(predictor, windows)))
            self.tensor_nbytes = max(self.tensor_nbytes, nbytes)
            return answers[0]

        def metered_batch(lane: DeviceLane, ready: Any) -> None:
            if not self.before_nbytes:
                self.before_nbytes = of_this_process("VmRSS")
                Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER)
            # probes are metered themselves, and nothing can be metered twice at once
            Predictor._begin = metered  # type: ignore[method-assign]
            try:
                compute(lane, ready)
            finally:
                Predictor._begin = begin  # type: ignore[method-assign]

        DeviceLane._compute = metered_batch  # type: ignore[method-assign]
        return self


def of_this_process(name: str) -> int:
    """Bytes under a name in this process's status: 'VmRSS' now held, 'VmHWM' the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {name} in /proc/self/status: this benchmark needs Linux")


# ------------------------------------------------------------------------------------- all the rows


def measured(passes: int, image: Path, folder: Path, tile_px: int) -> dict[str, int]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        told = subprocess.run(
            [
                *(sys.executable, __file__, "--passes", str(passes)),
                *("--tell", str(image), str(Path(run) / "run"), "--tile", str(tile_px)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if told.returncode:
        raise SystemExit(told.stderr)
    found: dict[str, int] = json.loads(told.stdout.splitlines()[-1])
    return found


def rows(folder: Path, options: argparse.Namespace) -> Iterator[list[str]]:
    """One per number of passes; the first one given is what the others are compared with."""
    from saccade.jobs.sample import write_sample_slide

    image = folder / "image.tif"
    write_sample_slide(image, options.side)
    found: dict[int, list[dict[str, int]]] = {count: [] for count in options.passes}
    for turn in range(options.repeats):
        for count, tellings in found.items():
            print(f"  {count} passes, repeat {turn + 1}", file=sys.stderr, flush=True)
            tellings.append(measured(count, image, folder, options.tile))
    first: tuple[int, int] | None = None
    for count, tellings in found.items():
        tensors, kept = (min(one[name] for one in tellings) for name in ("tensors", "kept"))
        before = min(one["before"] for one in tellings)
        added = min(one["resident"] - one["before"] for one in tellings)
        first = first or (tensors, added)
        yield [
            str(count),
            f"{tensors / 1e6:.1f}",
            f"{tensors / first[0]:.2f}",
            f"{before / 1e6:.0f}",
            f"{added / 1e6:.0f}",
            f"{added / first[1]:.2f}",
            f"{kept / 1e6:.0f}",
        ]


def main() -> None:
    """Print the machine, the command and the table; or, told to, run once and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--side", type=int, default=4096, help="of the image, in pixels")
    parser.add_argument("--tile", type=int, default=512, help="side of a tile, in pixels")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tell", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tell:
        print(json.dumps(run_and_tell(options.passes[0], *options.tell, options.tile)))
        return
    print(f"{machine()}\n$ {command()}\n")
    head = ["passes", "tensors, MB", "ratio", "before, MB", "resident, + MB", "ratio"]
    with tempfile.TemporaryDirectory() as folder:
        print(table([*head, "if kept, MB"], list(rows(Path(folder), options))))


if __name__ == "__main__":
    main()
