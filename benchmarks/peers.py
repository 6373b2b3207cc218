"""Against TIAToolbox, LazySlide, MONAI and a bare loop: same slide, same models, same tiles.

Every row is a process of its own, start to end: imports, start-up and descendants are counted in
its seconds and its memory. The peers run as their own scripts say, on tiles of 512 pixels that
overlap by 64, in float32, over the tissue that they are told of (MONAI and the bare loop find it
themselves). ``saccade`` runs a recipe with the same model file: a glance at 1/16 finds the tissue,
and the model looks there; with *same tiles* on theirs in float32, with *auto* in the arithmetic and
windows that measuring chose, which *first run* pays for and a later run of the same model does not.
Then the seams: the largest difference to one forward pass over a whole image.

    python benchmarks/peers.py FOLDER SLIDE        # a folder with bench_tia.py and the others,
                                                   # its .venv, and the slide of its mkslide.py
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
import zarr
from common import command, machine, table

from saccade.jobs import RunOptions, run
from saccade.pipeline import Recipe, open_result
from saccade.pipeline.geometry import Box
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.recipe import ModelRecipe
from saccade.pipeline.sources import open_source
from saccade.workers.folder import RunFolder

TILE_PX, STRIDE_PX = 512, 448
OVERLAP = 1 - STRIDE_PX / TILE_PX
SEAM_PX = 1024
"""Side of the image that also goes through the model at once."""
SACCADE = "from saccade.jobs.cli import main; main()"


@dataclass(frozen=True)
class Peer:
    """Another tool's script."""

    name: str
    """For the table."""
    script: str
    """In the peers' folder."""
    arguments: tuple[str, ...]
    """After the slide."""
    models: tuple[str, ...] = ("tiny", "unet")
    """That it can run."""


PEERS = (
    # It writes three classes, whatever the model.
    Peer("bare loop", "bench_raw.py", (str(TILE_PX), str(STRIDE_PX)), ("tiny",)),
    Peer("LazySlide", "bench_lazy.py", (str(TILE_PX), str(OVERLAP), "semantic")),
    Peer("MONAI", "bench_monai.py", (str(TILE_PX), str(OVERLAP), "stream-masked")),
    Peer("TIAToolbox", "bench_tia.py", (str(TILE_PX), str(STRIDE_PX), "ellipse")),
)


@dataclass(frozen=True)
class Measured:
    """What one process took."""

    name: str
    """For the table."""
    tiles: str
    """Windows that went through the model, with their side; empty where the tool does not say."""
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all its threads and descendants."""
    peak_nbytes: int
    """Resident memory of the largest of its processes."""

    def cells(self, other: Measured | None) -> list[str]:
        """A row of the table, compared with another row."""
        ratios = ["", ""]
        if other is not None:
            ratios = [f"{other.wall / self.wall:.1f}x", f"{self.cpu / other.cpu:.2f}"]
        own = [self.tiles, f"{self.wall:.1f}", f"{self.cpu:.1f}", f"{self.peak_nbytes / 1e9:.2f}"]
        return [self.name, *own, *ratios]


def timed(arguments: Sequence[str], folder: Path, **environment: str) -> tuple[Measured, str]:
    """Run a command in a folder until it ends; what it took, and what it printed."""
    log = folder / "printed.txt"
    since = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(
            list(map(str, arguments)),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - since
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = log.read_text()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{printed[-3000:]}")
    cpu = used.ru_utime + used.ru_stime
    return Measured("", "", wall, cpu, used.ru_maxrss * 1024), printed


# ---------------------------------------------------------------------------------- the tools


def peer_row(peer: Peer, options: argparse.Namespace, model: str, folder: Path) -> Measured:
    """One peer, as its script runs it."""
    script = options.folder.absolute() / peer.script
    called = [options.python, script, slide_in(folder, options.slide), *peer.arguments]
    took, printed = timed(called, folder, MODEL=model)
    found = re.search(r"tiles (\d+)|'coordinates': \(\((\d+),", printed)
    tiles = f"{found[1] or found[2]} of {TILE_PX}" if found else ""
    return Measured(peer.name, tiles, took.wall, took.cpu, took.peak_nbytes)


def slide_in(folder: Path, slide: Path) -> Path:
    """The slide under the name by which one of the scripts knows where its tissue is."""
    link = folder / "big.tif"
    link.unlink(missing_ok=True)
    link.symlink_to(slide.absolute())
    return link


SAME = {"tile": STRIDE_PX, "window": STRIDE_PX, "halo": (TILE_PX - STRIDE_PX) // 2}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "same tiles, float32": ("float32", SAME),
    "auto, first run": ("auto", {}),
    "auto": ("auto", {}),
}
"""Our own rows: precision, and sizes where they are not left open."""


def our_rows(options: argparse.Namespace, model: str, folder: Path) -> Iterator[Measured]:
    """Our own: on the peers' tiles, then as ``auto`` has it, twice."""
    for name in dict.fromkeys(options.ours):
        precision, sizes = OURS[name]
        recipe = recipe_of(our_model(options, model), precision, sizes)
        yield our_row(name, recipe, options, folder)


def our_model(options: argparse.Namespace, model: str) -> dict[str, Any]:
    source = f"{options.folder.absolute() / 'model.py'}:build"
    return {"source": source, "options": {"name": model}}


def recipe_of(model: dict[str, Any], precision: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """A glance that finds the tissue, and the model where it is."""
    glance = {"name": "glance", "resolution": {"downsample": 16}, "model": "builtin:tissue"}
    dense = {"name": "model", "resolution": {"downsample": 1}, "model": model}
    chosen = {"select": {"by": "foreground", "above": 0.5, "share": 0.02}}
    return {"version": 1, "precision": precision, "passes": [glance, dense | chosen | sizes]}


def our_row(
    name: str, recipe: dict[str, Any], options: argparse.Namespace, folder: Path
) -> Measured:
    """One run from the command line, on local workers."""
    output = folder / name
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    slide = slide_in(folder, options.slide)
    called = [sys.executable, "-c", SACCADE, "run", file, slide, "-o", output]
    cache = str(folder / "cache")
    took, _ = timed(
        [*called, "--workers", "local", "--device", "cpu"], folder, XDG_CACHE_HOME=cache
    )
    return Measured(f"saccade, {name}", windows_of(output), took.wall, took.cpu, took.peak_nbytes)


def windows_of(output: Path) -> str:
    """How many windows a run's last pass computed, and in what."""
    kept = RunFolder(output)
    plan = kept.read_image_plan("big")
    layout = plan.last
    windows = [w for unit in kept.read_units("big", layout) for w in unit.windows]
    areas = sum(w.read.area for w in windows) / TILE_PX**2
    side = layout.window_tiles * layout.tile_px + 2 * layout.halo_px
    return f"{len(windows)} of up to {side} (as {areas:.0f} of {TILE_PX}), {layout.precision}"


# ---------------------------------------------------------------------------------- the seams


def seam_rows(options: argparse.Namespace, model: str, folder: Path) -> Iterator[list[str]]:
    """Largest difference to one forward pass over a whole image, ours and TIAToolbox's."""
    path = folder / "crop.tif"
    pixels = write_crop(options.slide, path)
    expected = whole(our_model(options, model), pixels, folder)
    yield [f"saccade, {model}", seam(tiled(our_model(options, model), path, folder), expected)]
    script = options.folder.absolute() / "bench_tia.py"
    called = [options.python, script, path, str(TILE_PX // 2), str(STRIDE_PX // 2), "nomask"]
    timed(called, folder, MODEL=model)
    (found,) = (folder / "tia_out").glob("*.zarr")
    node: Any = zarr.open(str(found), mode="r")
    theirs = np.asarray(node["probabilities"][:SEAM_PX, :SEAM_PX]).transpose(2, 0, 1)
    yield [f"TIAToolbox, {model}", seam(theirs, expected)]


def seam(found: np.ndarray, expected: np.ndarray) -> str:
    return f"{np.abs(found - expected).max():.1e}"


def write_crop(slide: Path, path: Path) -> np.ndarray:
    """A piece of the slide's tissue as a slide of its own; returns its pixels."""
    with closing(open_source(slide)) as source:
        height, width = source.levels[0].shape
        y, x = int(height * 0.45) - SEAM_PX // 2, int(width * 0.4) - SEAM_PX // 2
        pixels = source.read(0, Box(y, x, y + SEAM_PX, x + SEAM_PX))
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **resolution)
    return pixels


def whole(model: dict[str, Any], pixels: np.ndarray, folder: Path) -> np.ndarray:
    """Scores of one forward pass."""
    loaded: Any = load_model(ModelRecipe.model_validate(model), base_folder=folder)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        scores: np.ndarray = loaded.module(x)[0].numpy()
    return scores


def tiled(model: dict[str, Any], path: Path, folder: Path) -> np.ndarray:
    """Scores of a dense run in windows with the halo that was measured."""
    dense = {"name": "model", "resolution": {"downsample": 1}, "model": model}
    recipe = Recipe.model_validate({"passes": [dense], "output": {"scores": "float32"}})
    options = RunOptions(workers="local", device="cpu")
    output = folder / f"seam-{model['options']['name']}"
    run(recipe, [path], output, options, model_folder=folder)
    return np.asarray(open_result(output / "results" / "crop.ome.zarr").fused.compute())


# ---------------------------------------------------------------------------------- the tables


def told(model: str, rows: Iterable[Measured]) -> Iterator[Measured]:
    """The same rows, each mentioned when it is there."""
    for row in rows:
        said = f"{model}: {row.name}: {row.wall:.1f} s, {row.cpu:.1f} CPU-s"
        print(said, file=sys.stderr, flush=True)
        yield row


def rows_of(options: argparse.Namespace, model: str, folder: Path) -> list[list[str]]:
    """Every tool with one model, compared with TIAToolbox where that is among them."""
    chosen = [p for p in PEERS if p.name in options.tools and model in p.models]
    theirs = (peer_row(peer, options, model, folder) for peer in chosen)
    rows = list(told(model, chain(theirs, our_rows(options, model, folder))))
    toolbox = next((row for row in rows if row.name == "TIAToolbox"), None)
    return [[f"{model}: {first}", *rest] for first, *rest in (r.cells(toolbox) for r in rows)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the peers' scripts")
    parser.add_argument("slide", type=Path, help="as their mkslide.py makes it")
    parser.add_argument("--python", help="of the peers' environment; default FOLDER/.venv")
    parser.add_argument("--models", nargs="+", default=["tiny", "unet"])
    parser.add_argument("--tools", nargs="*", default=[peer.name for peer in PEERS])
    parser.add_argument("--ours", nargs="*", default=list(OURS), choices=list(OURS))
    parser.add_argument("--no-seams", action="store_true", help="leave the second table out")
    options = parser.parse_args()
    options.python = options.python or options.folder.absolute() / ".venv" / "bin" / "python"
    return options


def main() -> None:
    options = parsed()
    print(f"{machine()}\n$ {command()}\n")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            print(table(HEAD, rows_of(options, model, Path(folder))) + "\n", flush=True)
    if options.no_seams:
        return
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            head = ["seams", "largest difference to one forward pass"]
            print(table(head, list(seam_rows(options, model, Path(folder)))) + "\n", flush=True)


HEAD = [
    "model: tool",
    "windows computed",
    "wall s",
    "CPU-s",
    "peak RSS, GB",
    "faster than TIAToolbox",
    "of its CPU-s",
]

if __name__ == "__main__":
    main()
