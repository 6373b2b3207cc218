"""Lanes against threads: the same processors as many lanes of one thread, or as one lane of many.

Lanes are threads of this process that each compute windows of their own, as local workers do; the
threads of a forward pass are torch's. Both ways take turns within each repetition on the same
windows, and the ratio is taken within a repetition. The second table is what one forward pass over
a whole image gains from threads, while a lane would have the other processors idle.

    python benchmarks/lanes.py
    python benchmarks/lanes.py --processors 8 --megapixels 200
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import torch
from common import command, machine, table
from networks import NETWORKS, ready

from saccade.jobs.hardware import cpus
from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelForm, PassModel, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.wrap import TorchModel
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.device import set_threads

WINDOW_PX = 512
GLANCE_PX = 2000
"""Side of the largest image that goes through the model at once."""


def model_of(name: str, precision: str) -> PassModel:
    """A network as a run of this arithmetic computes it."""
    module = ready(name)
    loaded = TorchModel(module, module.saccade)  # type: ignore[arg-type]
    form = ModelForm(precision, channels_last=True, fused=True)  # type: ignore[arg-type]
    try:
        return in_form(loaded, form)
    except ModelContract:
        return in_form(loaded, ModelForm(form.precision, form.channels_last))


def views(side: int) -> Views:
    """Pixels in memory as they are read: channels last."""
    pixels = torch.rand((1, side, side, 3), generator=torch.Generator().manual_seed(side))
    return Views(pixels.permute(0, 3, 1, 2))


def spread(model: PassModel, lanes: int, threads: int, windows: int) -> tuple[float, float]:
    """Wall seconds and processor seconds of so many windows by so many lanes."""
    given = views(WINDOW_PX)

    def lane(count: int) -> None:
        set_threads(threads)
        for _ in range(count):
            model(given)

    shares = [windows // lanes + (i < windows % lanes) for i in range(lanes)]
    workers = [threading.Thread(target=lane, args=(share,)) for share in shares]
    wall, busy = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - wall, time.process_time() - busy


def row_of(name: str, precision: str, options: argparse.Namespace) -> list[str]:
    """Medians of both ways, and the median of their ratio."""
    model = model_of(name, precision)
    count, area = options.processors, WINDOW_PX**2 / 1e6
    spread(model, count, 1, count)
    pace, _ = spread(model, count, 1, 2 * count)
    windows = max(
        2 * count, min(int(options.megapixels / area), int(options.seconds / pace * count))
    )
    windows = windows // count * count
    turns = [
        (spread(model, count, 1, windows), spread(model, 1, count, windows))
        for _ in range(options.repetitions)
    ]
    megapixels = windows * area
    speeds = [statistics.median(megapixels / turn[way][0] for turn in turns) for way in (0, 1)]
    costs = [statistics.median(turn[way][1] / megapixels for turn in turns) for way in (0, 1)]
    ratio = statistics.median(one[0] / many[0] for many, one in turns)
    cells = [f"{value:.1f}" for value in speeds] + [f"{value:.3f}" for value in costs]
    return [f"{name}, {precision}", *cells, f"{ratio:.2f}x"]


def glance_row(name: str, precision: str, processors: int, repetitions: int) -> list[str]:
    """Seconds of one forward pass over a whole image on one thread and on all; they take turns."""
    model, given = model_of(name, precision), views(GLANCE_PX // 16 * 16)
    turns = []
    for _ in range(repetitions):
        turns.append([_seconds(model, given, threads) for threads in (1, processors)])
    one, many = (statistics.median(turn[way] for turn in turns) for way in (0, 1))
    ratio = statistics.median(a / b for a, b in turns)
    return [f"{name}, {precision}", f"{one:.2f}", f"{many:.2f}", f"{ratio:.2f}x"]


def _seconds(model: PassModel, given: Views, threads: int) -> float:
    set_threads(threads)
    since = time.perf_counter()
    model(given)
    return time.perf_counter() - since


def rows(of: Callable[[str, str], list[str]]) -> Sequence[list[str]]:
    """Every network in both arithmetics."""
    return [of(name, precision) for name in NETWORKS for precision in ("float32", "bfloat16")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processors", type=int, default=cpus(), help="default: all there are")
    parser.add_argument("--megapixels", type=float, default=60, help="computed per turn, at most")
    parser.add_argument("--seconds", type=float, default=4, help="of a turn, at most about")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    keep_large_blocks()
    count = options.processors
    print(f"{machine()}\n$ {command()}\n")
    ways = [f"{count} lanes x 1 thread", f"1 lane x {count} threads"]
    head = ["MP/s", *ways, *(f"CPU s/MP, {way}" for way in ways), "lanes / threads"]
    print(table(head, rows(lambda name, precision: row_of(name, precision, options))))
    print(f"\nOne forward pass over {GLANCE_PX} x {GLANCE_PX} px:\n")
    head = ["seconds", "1 thread", f"{count} threads", "gain"]
    least = min(3, options.repetitions)
    print(table(head, rows(lambda name, precision: glance_row(name, precision, count, least))))


if __name__ == "__main__":
    main()
