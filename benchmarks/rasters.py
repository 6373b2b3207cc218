"""A dense pass over a COG beside dask, MONAI and a rasterio loop: pixels per CPU second, memory.

A Cloud Optimized GeoTIFF of four uint16 bands is generated (tiles of 512, deflate, averaged
overviews). Every contender answers all of it with the same network (``rasters_network.py``) in a
process of its own and leaves a compressed raster of labels; saccade leaves scores, labels and the
pyramids of both, too. CPU seconds and the high-water mark of memory are the whole
process's, imports included. Contenders take turns in every round; medians are shown, and the
ratio to the best of the others is taken within a round. Afterwards labels of a crop are compared
with one forward pass over that crop and its surroundings.

    python benchmarks/rasters.py                                 # 8192, two rounds
    python benchmarks/rasters.py --sides 4096 8192 16384 --only saccade --rounds 1      # memory
    python benchmarks/rasters.py --python MONAI=venv/bin/python  # of a contender's own environment
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from common import command, machine, table
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.windows import Window
from rasters_contenders import CONTENDERS, PEAK, labels_of, whole
from rasters_network import BANDS, HALO_PX

from saccade.pipeline.geometry import Box, Grid

MOTIF_PX = 2048
"""Side of the ground that is drawn once and repeated, brighter or darker."""
CROP_PX = 1500
"""Side of what is compared with one forward pass; no multiple of any window."""
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender, once."""

    cpu_seconds: float
    """User and system, of the whole process."""
    wall_seconds: float
    """From its start to its end."""
    peak_nbytes: int
    """Most resident memory."""


def motif() -> np.ndarray:
    """``(4, side, side)`` uint16 reflectances: fields of several sizes, and noise."""
    rng = np.random.default_rng(7)
    ground = np.zeros((BANDS, MOTIF_PX, MOTIF_PX), np.float32)
    for cell in (256, 64, 16, 4):
        coarse = rng.normal(0, 1, (BANDS, MOTIF_PX // cell, MOTIF_PX // cell))
        ground += np.kron(coarse, np.ones((cell, cell))).astype(np.float32)
    ground = 1500 + 350 * ground + rng.normal(0, 20, ground.shape)
    return ground.clip(1, 10_000).astype(np.uint16)


def write_cog(path: Path, side_px: int) -> None:
    """A COG of the motif; memory does not grow with its side."""
    profile = {
        "driver": "GTiff", "width": side_px, "height": side_px, "count": BANDS, "dtype": "uint16",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "pixel",
        "crs": "EPSG:32636", "transform": from_origin(500_000, 40_000, 10, 10), "nodata": 0,
    }  # fmt: skip
    plain, ground = path.with_suffix(".plain.tif"), motif()
    with rasterio.open(plain, "w", BIGTIFF="IF_SAFER", **profile) as file:
        for number, box in enumerate(Grid((side_px, side_px), MOTIF_PX)):
            window = Window(box.x0, box.y0, box.width, box.height)
            file.write(ground[:, : box.height, : box.width] + np.uint16(number % 7), window=window)
    with rasterio.open(plain, "r+") as file:
        file.build_overviews([2, 4, 8, 16], Resampling.average)
    copy(
        plain, path, driver="COG", compress="DEFLATE", level=6, blocksize=512, num_threads=2,
        bigtiff="IF_SAFER", overviews="AUTO",
    )  # fmt: skip
    plain.unlink()


def measure(name: str, raster: Path, out: Path, options: argparse.Namespace) -> Measured | None:
    """One contender in a process of its own; None where what it needs is not installed.

    Raises:
        SystemExit: it failed for another reason.
    """
    python = options.python.get(name, sys.executable)
    script, errors = str(HERE / "rasters_contenders.py"), out.with_suffix(".txt")
    sizes = ["--window", str(options.window), "--threads", str(options.threads)]
    since = time.perf_counter()
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [python, script, name, str(raster), str(out), *sizes],
            stdout=file, stderr=file, env=environment(options.threads),
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, said = time.perf_counter() - since, errors.read_text()
    if process.returncode:
        return _missing(name, said)
    peak = int(said.rpartition(PEAK)[2])
    return Measured(usage.ru_utime + usage.ru_stime, seconds, peak)


def environment(threads: int) -> dict[str, str]:
    """Of a contender: no library of it takes more threads than it is given."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "GDAL_NUM_THREADS": "1"}


def _missing(name: str, said: str) -> None:
    last = said.strip().splitlines()[-1] if said.strip() else "nothing said"
    if "ModuleNotFoundError" not in last:
        raise SystemExit(f"{name}: the contender failed:\n{said}")
    print(f"{name} left out: {last}", file=sys.stderr)


def equal_labels(name: str, raster: Path, out: Path, side_px: int) -> float:
    """Share of a crop's labels that one forward pass gives as well."""
    start = max(0, (side_px - CROP_PX) // 2 - 37)
    core = Box(start, start, start + CROP_PX, start + CROP_PX).clip((side_px, side_px))
    seen = core.grow(HALO_PX).clip((side_px, side_px))
    with rasterio.open(raster) as file:
        window = Window(seen.x0, seen.y0, seen.width, seen.height)
        pixels = np.moveaxis(file.read(window=window), 0, 2)
    expected = whole(pixels)[core.relative_to(seen).slices]
    return float((labels_of(name, out, core) == expected).mean())


def compare(raster: Path, side_px: int, folder: Path, options: argparse.Namespace) -> list[str]:
    """One table's rows as printed: every contender on one raster."""
    rounds: list[dict[str, Measured]] = []
    for number in range(options.rounds):
        names = options.only if number % 2 == 0 else options.only[::-1]
        turn = {name: measure(name, raster, folder / slug(name), options) for name in names}
        rounds.append({name: one for name, one in turn.items() if one is not None})
        options.only = [name for name in options.only if name in rounds[-1]]
    best = best_other(rounds)
    rows = []
    for name in options.only:
        same = equal_labels(name, raster, folder / slug(name), side_px)
        rows.append(row(name, side_px, [one[name] for one in rounds], same, rounds, best))
    return rows


def slug(name: str) -> str:
    """A contender's name as a file's."""
    return name.replace(" ", "-").replace(",", "")


def best_other(rounds: Sequence[Mapping[str, Measured]]) -> str | None:
    """Who of the others needs the fewest CPU seconds; None where there are none."""
    others = [name for name in rounds[0] if not name.startswith("saccade")]
    return min(
        others, key=lambda n: statistics.median(one[n].cpu_seconds for one in rounds), default=None
    )


def row(
    name: str,
    side_px: int,
    times: Sequence[Measured],
    same: float,
    rounds: Sequence[Mapping[str, Measured]],
    best: str | None,
) -> list[str]:
    """Medians of one contender, and its speed over the best other's, round by round."""
    cpu = statistics.median(one.cpu_seconds for one in times)
    ratio = "" if best is None else _median_ratio(name, best, rounds)
    return [
        f"{name}, {side_px}",
        f"{side_px**2 / 1e6 / cpu:.2f}",
        f"{cpu:.1f}",
        f"{statistics.median(one.wall_seconds for one in times):.1f}",
        f"{max(one.peak_nbytes for one in times) / 1e6:.0f}",
        ratio,
        f"{same:.5f}",
    ]


def _median_ratio(name: str, best: str, rounds: Sequence[Mapping[str, Measured]]) -> str:
    ratios = [one[best].cpu_seconds / one[name].cpu_seconds for one in rounds]
    return f"{statistics.median(ratios):.2f}x"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[8192], help="of the rasters, px")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--window", type=int, default=1024, help="of the others; ours is planned")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--folder", type=Path, help="keep the rasters here; default: temporary")
    options = parser.parse_args()
    options.python = dict(pair.split("=", 1) for pair in options.python)
    return options


def main() -> None:
    options = arguments()
    print(f"{machine()}\n$ {command()}\n")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for side_px in options.sides:
            raster = (options.folder or Path(temporary)) / f"raster-{side_px}.tif"
            if not raster.is_file():
                write_cog(raster, side_px)
            rows += compare(raster, side_px, Path(temporary), options)
    head = ["contender, side", "MP / CPU-s", "CPU s", "wall s", "peak, MB"]
    print(table([*head, "of the best other", "equal labels"], rows))


if __name__ == "__main__":
    main()
