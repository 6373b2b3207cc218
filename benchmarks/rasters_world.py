"""Coastal tiles of a land mask found by a glance: overviews as stored against averages.

The mask (one band, sea 0, land another value; here the world at a hundredth of a degree, 36000 x
18000, whose overviews were made by taking the nearest pixel) is written twice with land as 255 and
without nodata, because sea is an answer here: once with overviews by nearest, once without any, so
that the glance is averaged from level 0. ``examples/rasters/coast.yaml`` runs on both. The truth is
a scan of all of level 0: a tile of 512 pixels is coastal where it holds land and sea. Recall is the
share of coastal tiles that were refined; the figure shows those that were missed.

    python benchmarks/rasters_world.py WORLD.tif -o world       # world/coast.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from common import command, machine, table
from PIL import Image, ImageDraw
from rasterio.enums import Resampling
from rasterio.windows import Window

from saccade.jobs import RunOptions, run
from saccade.pipeline import load_recipe, open_result
from saccade.pipeline.recipe import Recipe, Resolution

RECIPE = Path(__file__).resolve().parents[1] / "examples" / "rasters" / "coast.yaml"
TILE_PX = 512
"""Of the recipe's second pass."""
STRIP_PX = 2048
"""Rows that are held at a time; whole tiles."""
GLANCE = 16
"""Downsample of the recipe's first pass."""
OVERVIEWS = [2, 4, 8, 16, 32, 64]
SEA, LAND, FOUND, MISSED = (
    np.array(c, np.uint8)
    for c in ((222, 232, 240), (176, 178, 166), (46, 125, 90), (214, 40, 40))
)  # fmt: skip
FIGURE_PX = 1800
"""Width of one map, at most."""


@dataclass(frozen=True, slots=True)
class Coast:
    """What a run chose."""

    name: str
    """How its overviews were made."""
    chosen: np.ndarray
    """``(tile rows, tile columns)`` bool."""
    seconds: float
    """CPU seconds of the run, imports not counted."""


def strips(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """The mask from top to bottom: first row, and ``(rows, width)`` bool, True on land."""
    with rasterio.open(path) as file:
        for y0 in range(0, file.height, STRIP_PX):
            rows = min(STRIP_PX, file.height - y0)
            yield y0, file.read(1, window=Window(0, y0, file.width, rows)) > 0


def land_share(path: Path) -> np.ndarray:
    """Share of land of every tile, by a scan of all pixels."""
    parts = []
    for _, land in strips(path):
        rows = np.add.reduceat(land, np.arange(0, len(land), TILE_PX), 0, dtype=np.int64)
        count = np.add.reduceat(rows, np.arange(0, land.shape[1], TILE_PX), 1)
        ones = np.ones(land.shape[1], np.int64)
        width = np.add.reduceat(ones, np.arange(0, land.shape[1], TILE_PX))
        height = np.minimum(TILE_PX, len(land) - np.arange(len(rows)) * TILE_PX)
        parts.append(count / np.multiply.outer(height, width))
    return np.concatenate(parts)


def write_mask(path: Path, out: Path, nearest: bool) -> Path:
    """The mask with land as 255 and without nodata, with overviews by nearest or without any."""
    with rasterio.open(path) as file:
        profile = {
            "driver": "GTiff", "width": file.width, "height": file.height, "count": 1,
            "dtype": "uint8", "crs": file.crs, "transform": file.transform, "tiled": True,
            "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        }  # fmt: skip
    with rasterio.open(out, "w", **profile) as mask:
        for y0, land in strips(path):
            window = Window(0, y0, land.shape[1], len(land))
            mask.write(land.astype(np.uint8) * 255, 1, window=window)
    if nearest:
        with rasterio.open(out, "r+") as mask:
            mask.build_overviews(OVERVIEWS, Resampling.nearest)
    return out


def coast_of(name: str, mask: Path, folder: Path, recipe: Recipe) -> Coast:
    """The recipe on a mask: which tiles it refined."""
    since, options = time.process_time(), RunOptions(workers="local")
    done = run(recipe, [str(mask)], folder, options, model_folder=RECIPE.parent)
    seconds = time.process_time() - since
    if not done.complete:
        raise SystemExit(f"{mask}: a complete run expected; found {done}")
    result = open_result(folder / "results" / f"{done.complete[0]}.ome.zarr")
    return Coast(name, result.passes["refine"].status > 0, seconds)


def as_stored(recipe: Recipe) -> Recipe:
    """The recipe with the glance on a level of the file, taken as it is."""
    level = Resolution(level=1 + OVERVIEWS.index(GLANCE))
    glance = recipe.passes[0].model_copy(update={"resolution": level})
    passes = (glance, *recipe.passes[1:])
    return recipe.model_copy(update={"passes": passes, "overviews": "stored"})


def same_overviews(path: Path, mask: Path, factor: int) -> float:
    """Share of an overview's pixels that the two files agree on."""
    level = OVERVIEWS.index(factor)
    with (
        rasterio.open(path, OVERVIEW_LEVEL=level) as one,
        rasterio.open(mask, OVERVIEW_LEVEL=level) as other,
    ):
        return float(((one.read(1) > 0) == (other.read(1) > 0)).mean())


def row(coast: Coast, truth: np.ndarray, share: np.ndarray) -> list[str]:
    """Recall, precision and cost of one run, and the largest land that it missed."""
    missed = truth & ~coast.chosen
    return [
        coast.name,
        str(int(truth.sum())),
        str(int(missed.sum())),
        f"{(truth & coast.chosen).sum() / truth.sum():.3f}",
        f"{(truth & coast.chosen).sum() / coast.chosen.sum():.3f}",
        f"{coast.chosen.mean():.1%}",
        f"{np.minimum(share, 1 - share)[missed].max(initial=0) * TILE_PX**2:.0f}",
        f"{coast.seconds:.0f}",
    ]


def map_of(coast: Coast, truth: np.ndarray, share: np.ndarray, side_px: int) -> Image.Image:
    """The world by tiles: land and sea, tiles that were refined, coastal tiles that were missed."""
    pale = SEA + (LAND.astype(float) - SEA) * share[:, :, None]
    pale[coast.chosen] = FOUND
    pale[truth & ~coast.chosen] = MISSED
    return Image.fromarray(np.kron(pale.astype(np.uint8), np.ones((side_px, side_px, 1), np.uint8)))


def draw(coasts: list[Coast], truth: np.ndarray, share: np.ndarray, out: Path) -> None:
    """One map below the other, with a line of words above each."""
    side_px = max(1, FIGURE_PX // truth.shape[1])
    maps = [map_of(one, truth, share, side_px) for one in coasts]
    line_px = 34
    height = sum(one.height + line_px for one in maps)
    figure = Image.new("RGB", (maps[0].width, height), "white")
    pen, y = ImageDraw.Draw(figure), 0
    for coast, picture in zip(coasts, maps, strict=True):
        recall = (truth & coast.chosen).sum() / truth.sum()
        missed = int((truth & ~coast.chosen).sum())
        words = f"{coast.name}: {recall:.3f} of {truth.sum()} coastal tiles, {missed} missed (red)"
        pen.text((8, y + 6), words, "black", font_size=20)
        figure.paste(picture, (0, y + line_px))
        y += picture.height + line_px
    figure.save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path, help="a raster of one band: 0 sea, anything else land")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\n$ {command()}\n")
    share = land_share(options.world)
    truth = (share > 0) & (share < 1)
    coasts, recipe = [], load_recipe(RECIPE)
    for name in ("nearest overviews", "averages of level 0"):
        nearest = name.startswith("nearest")
        stem = name.split()[0]
        mask = write_mask(options.world, options.out / f"{stem}.tif", nearest)
        if nearest:
            print(f"overviews as in the file: {same_overviews(options.world, mask, GLANCE):.4f}\n")
        once = as_stored(recipe) if nearest else recipe
        coasts.append(coast_of(name, mask, options.out / stem, once))
    head = ["glance", "coastal", "missed", "recall", "precision", "refined"]
    rows = [row(one, truth, share) for one in coasts]
    print(table([*head, "largest missed, px", "CPU s"], rows))
    draw(coasts, truth, share, options.out / "coast.png")
    print(f"\n{options.out / 'coast.png'}")


if __name__ == "__main__":
    main()
