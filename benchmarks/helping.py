"""What it gains on this machine that an idle worker helps with the last unit.

Two workers in this process, one image whose last pass has three units of one size: without help
one worker computes the third while the other waits. Runs with and without help take turns, so that
whatever else the machine does falls on both.

    python benchmarks/helping.py                      # some minutes on two cores
    python benchmarks/helping.py --side 1024 --rounds 3
    python benchmarks/helping.py --costs              # what storing and taking answers costs

The image is ``3 side`` wide and ``side`` high, of noise. With two workers the third unit bounds the
makespan of the pass: 2 units without help, 1.5 with help that begins at once and costs nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile
from common import command, machine, table

import saccade.jobs.driver as driver
from saccade.jobs.journals.replay import read_records
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe import Recipe
from saccade.workers.answer import Said
from saccade.workers.dispatch import Dispatcher
from saccade.workers.folder import RunFolder
from saccade.workers.helping import HELP_RULE, NO_HELP, HelpRule
from saccade.workers.reading import WindowPixels
from saccade.workers.shared_answers import Answered, SharedAnswers

WINDOW_PX = 640


def recipe(side: int, scores: str) -> Recipe:
    """A dense pass of one shard per unit."""
    model = {"source": "builtin:retina-lesions"}
    one = {"name": "dense", "resolution": {"downsample": 1}, "model": model, "tile": 256}
    return Recipe.model_validate(
        {"passes": [one], "output": {"scores": scores, "chunk": side // 2, "shard": side}}
    )


def write_image(path: Path, side: int) -> None:
    """Noise: every window costs the same."""
    pixels = np.random.default_rng(7).integers(0, 255, (side, 3 * side, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")


def sweep_of(records: list[dict[str, Any]]) -> tuple[float, int, int]:
    """Seconds from the pass's first window to its last byte, its batches, and those helped with."""
    swept = [r for r in records if r["kind"] == "receipt" and "pass" in r]
    spans = [span for r in swept for span in r["spans"].values()]
    seconds = max(stop for _, stop in spans) - min(start for start, _ in spans)
    return seconds, len(swept), sum(r["helped"] for r in swept)


def one_run(folder: Path, image: Path, tree: Recipe, rule: HelpRule) -> tuple[float, int, bytes]:
    """Seconds of the pass, batches that were helped with, and all that was stored."""
    driver.Dispatcher = partial(Dispatcher, help_rule=rule)  # type: ignore[misc, assignment]
    options = RunOptions(workers="local:2", device="cpu")
    summary = driver.run(tree, [image], folder, options)
    assert len(summary.complete) == 1, summary.quarantined
    seconds, units, helped = sweep_of(list(read_records(RunFolder(folder).journal)))
    assert units == 3, f"three units expected; found {units}"
    chunks = sorted(p for p in (folder / "results").rglob("c/**/*") if p.is_file())
    return seconds, helped, b"".join(path.read_bytes() for path in chunks)


def compare(side: int, rounds: int, scores: str) -> None:
    """Interleaved runs, as a table; the bytes must be the same."""
    rows, ratios, stored = [], [], set()
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "image.tif"
        write_image(image, side)
        for n in range(rounds):
            said = {}
            for label, rule in (("without", NO_HELP), ("with", HELP_RULE)):
                run_folder = Path(name) / f"{label}-{n}"
                said[label] = one_run(run_folder, image, recipe(side, scores), rule)
                stored.add(hash(said[label][2]))
            ratios.append(said["with"][0] / said["without"][0])
            cells = (f"{said['without'][0]:.1f}", f"{said['with'][0]:.1f}", f"{ratios[-1]:.2f}")
            rows.append([str(n), *cells, str(said["with"][1])])
    head = ("round", "without, s", "with help, s", "ratio", "batches by helpers")
    print(table(head, rows))
    assert len(stored) == 1, "a result depends on who computed it"
    print(f"\nMedian ratio {median(ratios):.2f}; without cost or delay it is 0.75. Same bytes.")


def costs(rounds: int = 30) -> None:
    """CPU seconds per megapixel of storing and taking answers of five classes."""
    scores = np.random.default_rng(7).random((5, WINDOW_PX, WINDOW_PX), np.float32)
    window = WindowPixels(np.zeros((WINDOW_PX, WINDOW_PX, 3), np.uint8))
    answered = Answered((window,), {0: Said(scores)})
    with tempfile.TemporaryDirectory() as name:
        shared = SharedAnswers(Path(name), lambda: "key")
        shared.begin()
        put = timed(rounds, lambda: shared.put(0, answered))
        get = timed(rounds, lambda: shared.get(0))
    mp = WINDOW_PX**2 / 1e6
    print(f"storing {put / mp:.3f} s, taking {get / mp:.3f} s per megapixel")


def timed(rounds: int, do: Callable[[], object]) -> float:
    """Median CPU seconds."""
    taken = []
    for _ in range(rounds):
        since = time.process_time()
        do()
        taken.append(time.process_time() - since)
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="of a unit, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scores", default="uint8", choices=["uint8", "float32"])
    parser.add_argument("--costs", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    if options.costs:
        costs()
    else:
        compare(options.side, options.rounds, options.scores)


if __name__ == "__main__":
    main()
