"""How fast pixels come out of a slide: ours beside OpenSlide and tifffile, on the same boxes.

Two ways to read level 0: *aligned*, blocks of about 1024 pixels on the file's own tiles, each once;
and *windows*, cores of 512 pixels with a halo of 32, in the order in which a plan visits them. The
readers take turns within each repetition, every turn opens the file afresh, and the ratio to
OpenSlide is taken within a repetition, so that a busy machine disturbs all of them alike.

    python benchmarks/reading.py                 # the generated slide
    python benchmarks/reading.py slide.svs ...   # slides of your own
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import openslide
import tifffile
import zarr
from common import command, machine, table

from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.sources import open_source

Read = Callable[[Box], object]
Opener = Callable[[Path, ExitStack], Read]

BLOCK_PX, CORE_PX, HALO_PX = 1024, 512, 32
MIN_MEGAPIXELS, MAX_MEGAPIXELS = 50, 270
"""Read per turn; of a larger slide the middle, where its tissue is."""


def open_openslide(path: Path, stack: ExitStack) -> Read:
    slide = stack.enter_context(openslide.OpenSlide(path))
    return lambda box: slide.read_region((box.x0, box.y0), 0, (box.width, box.height))


def open_tifffile(path: Path, stack: ExitStack) -> Read:
    store = stack.enter_context(tifffile.imread(path, aszarr=True, level=0, series=0))
    node: Any = zarr.open(store, mode="r")
    return lambda box: node[box.slices]


def open_saccade(path: Path, stack: ExitStack) -> Read:
    source = stack.enter_context(closing(open_source(path)))
    return lambda box: source.read(0, box)


READERS: dict[str, Opener] = {
    "openslide": open_openslide,
    "tifffile": open_tifffile,
    "saccade": open_saccade,
}


def middle(shape: tuple[int, int], multiple: int) -> Box:
    """The part of a level that is read: whole blocks around its middle."""
    limit = int((MAX_MEGAPIXELS * 1e6) ** 0.5)
    sides = [max(1, min(side, limit) // multiple) * multiple for side in shape]
    y0, x0 = (
        (side - part) // 2 // multiple * multiple for side, part in zip(shape, sides, strict=True)
    )
    return Box(y0, x0, y0 + sides[0], x0 + sides[1]).clip(shape)


def aligned_boxes(path: Path) -> list[Box]:
    """Blocks of whole tiles, about 1024 pixels on a side."""
    with closing(open_source(path)) as source:
        level = source.levels[0]
    tile = max(level.tile or (256, 256))
    return _boxes(level.shape, max(1, round(BLOCK_PX / tile)) * tile, 0)


def window_boxes(path: Path) -> list[Box]:
    """Windows with halos, row by row."""
    with closing(open_source(path)) as source:
        return _boxes(source.levels[0].shape, CORE_PX, HALO_PX)


def _boxes(shape: tuple[int, int], core_px: int, halo_px: int) -> list[Box]:
    area = middle(shape, core_px)
    grid = Grid(area.shape, core_px)
    return [box.shift(area.y0, area.x0).grow(halo_px).clip(shape) for box in grid]


def megapixels_per_second(opener: Opener, path: Path, boxes: Sequence[Box], threads: int) -> float:
    """Pixels read by one turn, per second; a small slide is read several times, opened afresh."""
    megapixels = sum(box.area for box in boxes) / 1e6
    passes = math.ceil(MIN_MEGAPIXELS / megapixels)
    return passes * megapixels / sum(seconds(opener, path, boxes, threads) for _ in range(passes))


def seconds(opener: Opener, path: Path, boxes: Sequence[Box], threads: int) -> float:
    """Reading every box once; opening is not counted."""
    with ExitStack() as stack:
        read = opener(path, stack)
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        since = time.perf_counter()
        for _ in pool.map(lambda box: read(box) is None, boxes):
            pass
        return time.perf_counter() - since


def compare(path: Path, boxes: Sequence[Box], threads: int, repetitions: int) -> list[str]:
    """Medians per reader, then the median ratio of each to OpenSlide."""
    turns = [
        {name: megapixels_per_second(o, path, boxes, threads) for name, o in READERS.items()}
        for _ in range(repetitions)
    ]
    speeds = [f"{statistics.median(turn[name] for turn in turns):.0f}" for name in READERS]
    others = [name for name in READERS if name != "openslide"]
    ratios = [
        f"{statistics.median(turn[name] / turn['openslide'] for turn in turns):.1f}x"
        for name in others
    ]
    return [*speeds, *ratios]


def rows_of(path: Path, repetitions: int) -> list[list[str]]:
    """Both ways to read, on one and on two threads."""
    ways = {"aligned": aligned_boxes(path), "windows": window_boxes(path)}
    return [
        [f"{path.name}, {way}", str(threads), *compare(path, boxes, threads, repetitions)]
        for way, boxes in ways.items()
        for threads in (1, 2)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="*", type=Path, help="default: the generated slide")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as folder:
        slides = options.slides or [Path(folder) / "generated.tif"]
        if not options.slides:
            write_sample_slide(slides[0])
        rows = [row for slide in slides for row in rows_of(slide, options.repetitions)]
    head = ["MP/s", "threads", *READERS, "tifffile / openslide", "saccade / openslide"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
