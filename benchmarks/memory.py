"""Does memory stay flat while the image grows? Three passes over 1, 4 and 16 gigapixels.

The slides are generated (``sparse_slide.py``): their area grows 16 times, their tissue 4 times. The
finest of the three passes runs a U-Net of 0.5 million parameters over the busiest 30 % of the
tissue's tiles. Every run is a process of its own, begun afresh; what is shown is each process's own
high-water mark (``VmHWM``), which no sampling can miss: of the driver, and of the largest of its
workers. With local workers driver and worker are one process.

    python benchmarks/memory.py                          # 1, 4, 16 gigapixels, local and Ray
    python benchmarks/memory.py --gigapixels 100 --motifs 1 --workers local:1
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import command, machine, table
from sparse_slide import write_sparse_slide

POLL_SECONDS = 0.05
RUN = "from saccade.jobs.cli import main; main()"
RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {{mpp: 8}}
    model: builtin:tissue
  - name: focus
    resolution: {{mpp: 2}}
    model: {{source: builtin:hematoxylin, options: {{radius_px: 4}}}}
    tile: 128
    select: {{by: foreground, above: 0.5, share: 0.01}}
  - name: refine
    resolution: {{mpp: 0.5}}
    model: "{folder}/networks.py:UNet"
    tile: 256
    select: {{by: top_fraction, fraction: 0.3, signal: nuclei, statistic: mean}}
"""


@dataclass
class Watch:
    """High-water marks of one run's processes."""

    driver_nbytes: int = 0
    """Of the process that was started."""
    workers: dict[int, int] = field(default_factory=dict)
    """Of every actor, by process id; empty with local workers."""
    seconds: float = 0.0
    """From start to end."""

    @property
    def worker_nbytes(self) -> int:
        """Of the largest worker; the driver itself where it works on its own."""
        return max(self.workers.values(), default=self.driver_nbytes)


def watch(arguments: list[str]) -> Watch:
    """Run the command line in a process of its own, and note its memory until it ends.

    Raises:
        SystemExit: the run failed.
    """
    found, since = Watch(), time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            found.driver_nbytes = max(found.driver_nbytes, high_water(process.pid))
            for actor in actors_below(process.pid):
                found.workers[actor] = max(found.workers.get(actor, 0), high_water(actor))
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}: {' '.join(arguments)}")
    found.seconds = time.perf_counter() - since
    return found


def high_water(pid: int) -> int:
    """Most resident bytes of a process so far; 0 where it is gone."""
    for line in _proc(pid, "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def actors_below(pid: int) -> Iterator[int]:
    """Workers among a process's descendants, by the title that Ray gives them."""
    for child in _children(pid):
        if "UnitActor" in _proc(child, "cmdline"):
            yield child
        yield from actors_below(child)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    names = [one.name for one in tasks.iterdir()] if tasks.is_dir() else []
    return [int(one) for name in names for one in _proc(pid, f"task/{name}/children").split()]


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def measure(
    folder: Path, sizes: list[float], workers: list[str], motifs: int | None
) -> Iterator[list[str]]:
    """One row per kind of worker and size."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=Path(__file__).resolve().parent))
    slides = {size: folder / f"{size:g}.tif" for size in sizes}
    real = {size: write_sparse_slide(path, size, motifs) for size, path in slides.items()}
    for kind in workers:
        first: Watch | None = None
        for size in sizes:
            run = folder / f"run-{kind.replace(':', '-')}-{size:g}"
            now = watch(["run", str(recipe), str(slides[size]), "-o", str(run), "--workers", kind])
            first = first or now
            yield row(kind, real[size], now, first)


def row(kind: str, gigapixels: float, now: Watch, first: Watch) -> list[str]:
    """Memory in MB, and its growth since the smallest size."""
    return [
        kind,
        f"{gigapixels:.1f}",
        f"{now.driver_nbytes / 1e6:.0f}",
        f"{now.driver_nbytes / first.driver_nbytes - 1:+.0%}",
        str(max(1, len(now.workers))),
        f"{now.worker_nbytes / 1e6:.0f}",
        f"{now.worker_nbytes / first.worker_nbytes - 1:+.0%}",
        f"{now.seconds:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--workers", nargs="+", default=["local:1", "ray:2"])
    parser.add_argument("--motifs", type=int, help="tissue; default: grows with the slide's side")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for cells in measure(Path(folder), options.gigapixels, options.workers, options.motifs):
            print("  ", *cells, file=sys.stderr, flush=True)
            rows.append(cells)
    head = ["workers", "gigapixels", "driver, MB", "growth", "workers", "largest worker, MB"]
    print(table([*head, "growth", "seconds"], rows))


if __name__ == "__main__":
    main()
