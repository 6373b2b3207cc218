"""Seconds and peak memory of exports, on a result that is drawn, at several sizes.

Blobs of three classes, some of which reach across the whole image, with holes and specks. Each
export runs in a process of its own; its peak memory is compared with that of one that imports the
same and exports nothing.

    python benchmarks/exports.py --sides 16384 32768
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import command, machine, table

from saccade.pipeline.geometry import Box
from saccade.pipeline.georeference import Affine, Crs, Georeference
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.scores import label
from saccade.pipeline.sources.base import Identity, PixelSize
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.store import ImageStore

CLASSES = ("background", "a", "b")
EXPORTS = {
    "geojson, QuPath": {"to": "geojson", "object_type": "annotation"},
    "geojson, lon/lat": {"to": "geojson"},
    "geoparquet": {"to": "geoparquet"},
    "cog, labels": {"to": "cog"},
    "cog, scores": {"to": "cog", "content": "scores"},
    "ome-tiff, labels": {"to": "ome-tiff"},
    "ome-tiff, scores": {"to": "ome-tiff", "content": "scores"},
    "ome-zarr-0.4": {"to": "ome-zarr-0.4"},
}
IMPORTS = (
    "import sys, json; from pathlib import Path;"
    "from saccade.jobs.exports.exporting import export;"
    "from saccade.jobs.exports.options import ExportOptions;"
    "import saccade.pipeline.exports.ome_tiff, saccade.pipeline.exports.cog;"
    "import rasterio.warp, pyarrow.parquet;"
)
RUN = "list(export(Path(sys.argv[1]), ExportOptions(**json.loads(sys.argv[2]))));"
PEAK = "print([one for one in open('/proc/self/status') if one.startswith('VmHWM')][0].split()[1])"
"""A child's resource usage would count the memory that its parent had when it was forked."""


def plan_of(side: int) -> ImagePlan:
    """One pass at full resolution."""
    size = PixelSize(0.5, 0.5, "um")
    plane = PlaneSpec(0, 1.0, (side, side), 1.0, size)
    only = PassLayout("only", 0, plane, CLASSES, 1, 1, 0, 256, 1, 1, 512, 4096)
    return ImagePlan(
        name=f"drawn-{side}",
        uri="drawn",
        identity=Identity("drawn", 1, 1, "drawn"),
        format="drawn",
        level_shapes=((side, side),),
        pixel_size=size,
        passes=(only,),
        classes=CLASSES,
        fuse="finest",
        scores="uint8",
        keep=("only",),
        label_threshold=0.5,
        georeference=Georeference(Crs(32633), Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)),
    )


def scores_at(box: Box) -> np.ndarray:
    """``(3, h, w)`` uint8: waves of many lengths, the same at every size, and specks."""
    y, x = np.ogrid[box.y0 : box.y1, box.x0 : box.x1]
    coarse = bent(x / 701, y / 907) + bent(y / 593, x / 1009)
    fine = bent(x / 41, y / 53) * bent(y / 37, x / 61)
    scores = np.empty((3, *box.shape), np.uint8)
    scores[1] = np.clip(110 + 45 * coarse + 40 * fine, 0, 255)
    scores[2] = np.clip(90 - 50 * coarse + 60 * fine, 0, 255)
    random = np.random.default_rng(box.y0 * 131_071 + box.x0)
    for place in random.integers(0, box.height - 8, (200, 2)):
        scores[2, place[0] : place[0] + 3, place[1] : place[1] + 5] = 240
    scores[0] = 120
    return scores


def bent(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """``sin(along + sin(across))`` of a row and a column, from sines of each."""
    one, other = along.astype(np.float32), np.sin(across.astype(np.float32))
    wave: np.ndarray = np.sin(one) * np.cos(other) + np.cos(one) * np.sin(other)
    return wave


def draw(root: Path, side: int) -> Path:
    """A complete result of this side; returns its folder."""
    plan = plan_of(side)
    path = root / f"{plan.name}.ome.zarr"
    store = ImageStore.create(path, plan, {"recipe": {}})
    for box in plan.last.shards:
        scores = scores_at(box)
        store.write("0", box, scores)
        store.write("labels/classes/0", box, label(scores, 0.5))
    store.finish({"timing": {}})
    return path


def measured(code: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds by the clock, seconds of processors, and peak memory (MiB) of a process."""
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "-c", code + PEAK, *arguments]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after, seconds = os.times(), time.perf_counter() - began
    busy = sum(after[2:4]) - sum(before[2:4])
    return seconds, busy, int(said.stdout) / 1024


def rows(root: Path, sides: list[int], names: list[str]) -> Iterator[list[str]]:
    seconds, busy, peak = measured(IMPORTS)
    yield ["imports alone", "", f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.0f}", "", ""]
    for side in sides:
        path = draw(root, side)
        for name in names:
            options = EXPORTS[name]
            seconds, busy, peak = measured(IMPORTS + RUN, str(path), json.dumps(options))
            wrote = max((root / "exports").iterdir(), key=lambda one: one.stat().st_mtime)
            files = [wrote, *wrote.rglob("*")]
            size = sum(one.stat().st_size for one in files if one.is_file()) / 2**20
            rate = side**2 / 1e6 / busy
            told = (f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.0f}", f"{rate:.0f}", f"{size:.1f}")
            print(name, side, *told, file=sys.stderr, flush=True)
            yield [name, str(side), *told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[16384, 32768])
    parser.add_argument("--exports", nargs="+", default=list(EXPORTS), choices=EXPORTS)
    parser.add_argument("--folder", type=Path, help="where results are drawn; a temporary one")
    arguments = parser.parse_args()
    print(machine(), command(), sep="\n\n", end="\n\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        head = ["export", "side", "seconds", "CPU-s", "peak MiB", "MP/CPU-s", "file MiB"]
        print(table(head, list(rows(Path(folder), arguments.sides, arguments.exports))))


if __name__ == "__main__":
    main()
