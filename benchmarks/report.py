"""What a report of thousands of images costs: seconds, memory, bytes; and the page in a browser.

The journal is made up, with receipts as a run writes them: three passes, three thousandths of the
images set aside, some tried again, a pause in the middle. Results are those of one small slide,
really run, under the names of the first images. The page is opened in a headless Chromium where
there is one: seconds until its cards stand, and how many elements it has then.

    python benchmarks/report.py                     # 10 000 images: about two minutes
    python benchmarks/report.py --images 500 --results 20
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from archive import LOCAL, write_image
from common import command, machine, table

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import Journal
from saccade.jobs.manifests.manifest import entry_to_json
from saccade.jobs.reports.pictures import Limits
from saccade.jobs.reports.report import write_report
from saccade.workers.folder import RunFolder, write_whole
from saccade.workers.tasks import ImageEntry

RECIPE = """\
version: 1
passes:
  - {name: glance, resolution: {downsample: 8}, model: builtin:tissue, tile: 16}
  - name: focus
    resolution: {downsample: 4}
    model: builtin:hematoxylin
    tile: 32
    select: {by: top_fraction, fraction: 0.6}
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    tile: 64
    select: {by: top_fraction, fraction: 0.3}
output: {chunk: 64, shard: 256}
"""
PASSES = (("glance", 1, 0.4), ("focus", 3, 1.5), ("refine", 8, 2.0))
"""Name, units of an image, and busy seconds of a unit."""
REASONS = (
    "a .svs file expected, but it begins with b'IJrEr1vV'; the file is damaged or is no image: "
    "copy it again",
    "mpp is asked for, which needs the image's pixel size, and the file states none; give it in "
    "the `mpp` column of the manifest or with `--mpp`, or ask for `downsample` or `level` instead",
    "212 of 2048 tiles of pass 'focus' could not be read; the recipe allows 5% (max_bad_tiles); "
    "check the file, or allow more",
)
PAUSE_SECONDS = 9 * 3600.0
BATCH = 500
"""Images whose records are made durable together."""


def make_run(root: Path, images: int, results: int) -> Path:
    """A run's folder of so many images, of which so many have a result."""
    root.mkdir(parents=True)
    (root / "recipe.yaml").write_text(RECIPE)
    write_image(root / "slide.tif", seed=11)
    made = run(root / "recipe.yaml", [root / "slide.tif"], root / "one", LOCAL).folder
    folder = RunFolder(root / "archive")
    names = [f"slide-{number:05d}" for number in range(images)]
    folder.root.mkdir()
    shutil.copy(RunFolder(made).recipe, folder.root)
    entries = (entry_to_json(ImageEntry(name, f"/archive/{name}.svs")) for name in names)
    write_whole(folder.images, "".join(f"{line}\n" for line in entries))
    with Journal.open(folder.journal) as journal:
        for first in range(0, images, BATCH):
            batch = range(first, min(images, first + BATCH))
            journal.append([one for n in batch for one in records(names[n], n, images)])
    for name in names[:results]:
        _repeat(RunFolder(made), folder, name)
    return folder.root


def records(name: str, number: int, images: int) -> Iterator[dict[str, Any]]:
    """What a journal says of one image."""
    luck = random.Random(number)
    base = {"image": name, "attempt": 1}
    at = 1.7e9 + 0.9 * number + (PAUSE_SECONDS if number > images / 2 else 0)
    unit = iter(range(100))
    if luck.random() < 0.003:
        reason = f"/archive/{name}.svs: {luck.choice(REASONS)}"
        told = {**base, "unit": f"{name}-{next(unit)}", "reason": reason, "at": at}
        yield {**told, "kind": "failure"}
        yield {**told, "kind": "quarantine", "failures": 1}
        return
    if luck.random() < 0.01:
        again = "worker w3 died: the process was killed (signal 9)"
        yield {**base, "kind": "failure", "unit": f"{name}-1", "reason": again, "at": at}
    share = luck.betavariate(2, 6)
    for index, (one, units, seconds) in enumerate(PASSES):
        of = 64 * 4**index
        chosen = of if index == 0 else max(1, round(of * share))
        yield {
            **base,
            "kind": "receipt",
            "unit": f"{name}-{next(unit)}",
            "step": "prepare" if index == 0 else "select",
            "plans": one,
            "units": units,
            "tiles": {"selected": chosen, **({"of": of} if index else {})},
            "seconds": {"step": 0.05},
            "at": at,
        }
        for part in range(units):
            yield {
                **base,
                "kind": "receipt",
                "unit": f"{name}-{next(unit)}",
                "pass": one,
                "tiles": {
                    "done": chosen * (part + 1) // units - chosen * part // units,
                    "degraded": 0,
                    "failed": 0,
                },
                "pixels": round(4e5 * seconds * luck.uniform(0.7, 1.3)),
                "nbytes": 90_000,
                "errors": [],
                "splits": 0,
                "seconds": {"read": seconds / 4, "device": seconds, "write": seconds / 8},
                "keys": {f"passes/{one}/scores/c/0/{part}/0": "0" * 32},
                "at": at + index + part / units,
            }
    if number % 1000 != 999:
        yield {"kind": "image", "image": name, "at": at + 4}


def _repeat(made: RunFolder, folder: RunFolder, name: str) -> None:
    """The one result once more, under another name; hard links where no name stands inside."""
    shutil.copytree(made.result("slide"), folder.result(name), copy_function=os.link)
    root = folder.result(name) / "zarr.json"
    text = root.read_text().replace('"slide"', f'"{name}"')
    root.unlink()
    root.write_text(text)


def measure(root: Path, output: Path, limits: Limits) -> tuple[float, float, int, int]:
    """Seconds, processor seconds, bytes, and peak memory of a process that writes one report."""
    with get_context("spawn").Pool(1) as pool:
        seconds, processor, peak = pool.apply(_write, (root, output, limits))
    return seconds, processor, output.stat().st_size, peak


def _write(root: Path, output: Path, limits: Limits) -> tuple[float, float, int]:
    since, worked = time.perf_counter(), time.process_time()
    write_report(root, output, limits)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - since, time.process_time() - worked, peak


def in_browser(page: Path) -> tuple[str, str, str]:
    """Seconds of a browser that starts, draws the page and ends; elements; cards."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "no browser", "", ""
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}")
        since = time.perf_counter()
        done = subprocess.run(
            [browser, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True
        )
    elements = len(
        re.findall(
            r"<[a-zA-Z]", re.sub(r"<script.*?</script>", "<script>", done.stdout, flags=re.S)
        )
    )
    cards = done.stdout.count('<article class="card"')
    return f"{time.perf_counter() - since:.1f}", f"{elements:,}", str(cards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--results", type=int, default=1000, help="images that have a result")
    parser.add_argument("--keep", type=Path, help="leave the run and its pages in this folder")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        root = make_run(folder / "made", options.images, options.results)
        journal = sum(path.stat().st_size for path in (root / "journal").iterdir())
        print(
            f"{options.images:,} images, {options.results:,} results, "
            f"journal {journal / 1e6:.0f} MB\n"
        )
        rows = []
        for name, limits in CASES.items():
            page = folder / f"{name.replace(' ', '-')}.html"
            seconds, processor, nbytes, peak = measure(root, page, limits)
            row = (
                f"{seconds:.1f}",
                f"{processor:.1f}",
                f"{nbytes / 1e6:.1f}",
                f"{peak / 2**20:.0f}",
            )
            rows.append([name, *row, *in_browser(page)])
        print(table(HEAD, rows))


CASES = {
    "no pictures": Limits(0, 0),
    "as by default": Limits(),
    "1000 thumbnails": Limits(24, 1000),
}
HEAD = ["report", "s", "CPU s", "MB", "peak MiB", "browser s", "elements", "cards"]

if __name__ == "__main__":
    main()
