"""What it gains on this machine that an idle worker helps with the last unit.

Two workers in this process, one image whose last pass has three units of one size: without help
one worker computes the third while the other waits. Runs with and without help take turns, so that
whatever else the machine does falls on both.

    python benchmarks/helping.py                      # some minutes on two cores
    python benchmarks/helping.py --side 1024 --rounds 3
    python benchmarks/helping.py --waits 0.25         # devices that are only waited for
    python benchmarks/helping.py --costs              # what storing and taking answers costs

The image is ``3 side`` wide and ``side`` high, of noise. Two workers that are twice as fast as one
take 2 units' time without help, and 1.5 with help that begins at once and costs nothing. Often they
are not: they share a processor, memory and Python's lock. So the *bound* is measured, too: three
quarters of what four units take, two per worker, without help. With ``--waits`` each batch, of one
tile then, waits for so many seconds instead of computing, as for a device of the worker's own: on a
machine that others use this says what the engine, the driver and the files cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from saccade.workers.shared_answers import AnsweredBatch, SharedAnswers

WINDOW_PX = 640


WAITING = """
import time

import torch

from saccade.pipeline.models.base import ModelSpec, Prediction


class Waiting:
    spec = ModelSpec(tuple("abcde"), halo_px=64)

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, views):
        time.sleep(self.seconds)
        return Prediction(views.pixels[:, :1].expand(-1, 5, -1, -1))
"""


def recipe(side: int, scores: str, waits: float) -> Recipe:
    """A dense pass of one shard per unit."""
    one: dict[str, Any] = {"name": "dense", "resolution": {"downsample": 1}, "tile": 256}
    one["model"] = {"source": "builtin:retina-lesions"}
    chunk = side // 2  # in scores, of which the network has one per two pixels
    if waits:
        chunk = side
        one["model"] = {"source": "waiting.py:Waiting", "options": {"seconds": waits}}
        one |= {"window": 256, "batch": 1}
    return Recipe.model_validate(
        {"passes": [one], "output": {"scores": scores, "chunk": chunk, "shard": chunk}}
    )


def write_image(path: Path, side: int, units: int) -> None:
    """Noise: every window costs the same."""
    pixels = np.random.default_rng(7).integers(0, 255, (side, units * side, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")


@dataclass(frozen=True, slots=True)
class Swept:
    """The only pass of a run."""

    seconds: float
    """From its first window to its last byte."""
    helped: int
    """Batches that were answered by who helped."""
    stored: bytes
    """All chunks."""


def one_run(folder: Path, image: Path, tree: Recipe, rule: HelpRule) -> Swept:
    """A run by two workers, by its receipts."""
    driver.Dispatcher = partial(Dispatcher, help_rule=rule)  # type: ignore[misc, assignment]
    options = RunOptions(workers="local:2", device="cpu")
    summary = driver.run(tree, [image], folder, options, model_folder=image.parent)
    assert len(summary.complete) == 1, summary.quarantined
    records = read_records(RunFolder(folder).journal)
    swept = [r for r in records if r["kind"] == "receipt" and "pass" in r]
    assert len(swept) in (3, 4), f"three units or four expected; found {len(swept)}"
    spans = [span for r in swept for span in r["spans"].values()]
    chunks = sorted(p for p in (folder / "results").rglob("c/**/*") if p.is_file())
    return Swept(
        max(stop for _, stop in spans) - min(start for start, _ in spans),
        sum(r["helped"] for r in swept),
        b"".join(path.read_bytes() for path in chunks),
    )


def compare(side: int, rounds: int, tree: Recipe) -> None:
    """Interleaved runs, as a table; the bytes must be the same."""
    rows, ratios, stored = [], [], set()
    contenders = ((3, NO_HELP), (3, HELP_RULE), (4, NO_HELP))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "waiting.py").write_text(WAITING)
        images = {units: Path(name) / f"{units}.tif" for units in (3, 4)}
        for units, image in images.items():
            write_image(image, side, units)
        for n in range(rounds):
            alone, helped, four = (
                one_run(Path(name) / f"{n}-{m}", images[units], tree, rule)
                for m, (units, rule) in enumerate(contenders)
            )
            stored |= {hash(alone.stored), hash(helped.stored)}
            seconds = alone.seconds, helped.seconds, 3 / 4 * four.seconds
            ratios.append([one / alone.seconds for one in seconds[1:]])
            cells = [*(f"{one:.1f}" for one in seconds), *(f"{one:.2f}" for one in ratios[-1])]
            rows.append([str(n), *cells, str(helped.helped)])
    print(table(HEAD, rows))
    assert len(stored) == 1, "a result depends on who computed it"
    ratio, bound = (median(column) for column in zip(*ratios, strict=True))
    print(f"\nMedians: {ratio:.2f}, bound {bound:.2f}. Same bytes.")


HEAD = ("round", "alone, s", "with help, s", "bound, s", "ratio", "ratio of bound", "by helpers")


def costs(rounds: int = 30) -> None:
    """CPU seconds per megapixel of storing and taking answers of five classes."""
    scores = np.random.default_rng(7).random((5, WINDOW_PX, WINDOW_PX), np.float32)
    window = WindowPixels(np.zeros((WINDOW_PX, WINDOW_PX, 3), np.uint8))
    answered = AnsweredBatch((window,), {0: Said(scores)})
    with tempfile.TemporaryDirectory() as name:
        shared = SharedAnswers(Path(name), lambda: "key")
        shared.begin()
        put = timed(rounds, lambda n: shared.put(n, answered))
        get = timed(rounds, shared.get)
    mp = WINDOW_PX**2 / 1e6
    print(f"storing {put / mp:.3f} s, taking {get / mp:.3f} s per megapixel")


def timed(rounds: int, do: Callable[[int], object]) -> float:
    """Median CPU seconds of doing something to each of several batches."""
    taken = []
    for n in range(rounds):
        since = time.process_time()
        do(n)
        taken.append(time.process_time() - since)
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="of a unit, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scores", default="uint8", choices=["uint8", "float32"])
    parser.add_argument("--waits", type=float, default=0.0, help="seconds per batch")
    parser.add_argument("--costs", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    if options.costs:
        costs()
    else:
        tree = recipe(options.side, options.scores, options.waits)
        compare(options.side, options.rounds, tree)


if __name__ == "__main__":
    main()
