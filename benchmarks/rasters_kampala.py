"""Buildings in one aerial photograph: trained on its left half, answered on its right third.

One georeferenced raster and one raster of building footprints on the same grid (here Kampala:
OpenAerialMap, CC BY 4.0; labels of OpenStreetMap, ODbL). Columns are cut into three files that do
not overlap: half of them to learn from, a sixth for the threshold, a third that nothing else sees.
``saccade train`` makes the weights (``examples/training/buildings.yaml``; a quarter of an hour
on one core); ``examples/rasters/buildings.yaml`` then runs as it is, with its finest pass
everywhere, and with shares of it. Intersection over union counts pixels of level 0; a result's
pixel stands for all pixels of level 0 under it, and the threshold is the best one of validation.

    python benchmarks/rasters_kampala.py RGB.tif BUILDINGS.tif -o buildings
    python benchmarks/rasters_kampala.py RGB.tif BUILDINGS.tif -o buildings --shares 0.2 0.4
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from common import command, machine, table
from PIL import Image
from rasterio.windows import Window

from saccade.jobs import RunOptions, run
from saccade.pipeline import load_recipe, open_result
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.selectors import AllTiles, Uncertainty

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "rasters"
SACCADE = "from saccade.jobs.cli import main; main()"
PASSES, FINEST = 3, 2
"""Of the recipe: how many, and the downsample of the last one."""
STEPS = 256
"""Values of a stored score."""
PARTS = {"train": (0, 6), "validation": (6, 8), "test": (8, 12)}
"""Of each part the columns, in twelfths of the width."""


def cut(raster: Path, folder: Path) -> dict[str, Path]:
    """The raster's parts as files of their own, each in its place on the ground."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(raster) as whole:
        return {part: _cut(whole, part, folder / f"{part}.tif") for part in PARTS}


def _cut(whole: rasterio.DatasetReader, part: str, path: Path) -> Path:
    first, last = (twelfths * whole.width // 12 for twelfths in PARTS[part])
    window = Window(first, 0, last - first, whole.height)
    profile = whole.profile | {
        "width": last - first,
        "transform": whole.window_transform(window),
        "photometric": None,
    }
    profile = {key: value for key, value in profile.items() if value is not None}
    with rasterio.open(path, "w", **profile) as file:
        file.write(whole.read(window=window))
    return path


def prepare(raster: Path, truth: Path, out: Path) -> None:
    """The parts, ``images.csv``, ``split.csv`` and ``truth.yaml`` in a folder."""
    images = cut(raster, out / "images")
    cut(truth, out / "truth")
    _write(out / "images.csv", ("image", "name"), [(f"images/{p}.tif", p) for p in images])
    _write(out / "split.csv", ("name", "part"), [(part, part) for part in images])
    text = "path: truth/{name}.tif\nclasses:\n  building: {above: 0}\n"
    (out / "truth.yaml").write_text(text, encoding="utf-8")


def _write(path: Path, head: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def train(out: Path) -> None:
    """Weights in ``out/out``; nothing where they are there already."""
    shutil.copy(EXAMPLES.parent / "training" / "buildings.yaml", out / "train.yaml")
    subprocess.run([sys.executable, "-c", SACCADE, "train", str(out / "train.yaml")], check=True)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a run answers for a part, beside its truth."""

    inside: np.ndarray
    """``(256,)``: per stored score, pixels of level 0 in buildings."""
    outside: np.ndarray
    """``(256,)``: likewise outside of them."""

    def iou(self) -> np.ndarray:
        """Per threshold, intersection over union of the pixels that reach it and the buildings."""
        hit, false = (np.cumsum(one[::-1])[::-1] for one in (self.inside, self.outside))
        return hit / np.maximum(1, self.inside.sum() + false)


def variants(recipe: Recipe, shares: list[float]) -> dict[str, Recipe]:
    """The recipe as it is, its glance alone, its finest pass on shares of the tiles, on all."""
    coarse = {
        f"{name} alone": recipe.model_copy(update={"passes": recipe.passes[:count]})
        for count, name in ((1, "glance"), (2, "focus"))
    }
    chosen = {f"refined {share:.0%}": _selecting(recipe, share) for share in shares}
    return {**coarse, "three": recipe, **chosen, "dense": _selecting(recipe, None)}


def _selecting(recipe: Recipe, share: float | None) -> Recipe:
    last = recipe.passes[-1]
    select = AllTiles()
    if share is not None:
        assert isinstance(last.select, Uncertainty)
        select = last.select.model_copy(update={"fraction": share})
    last = last.model_copy(update={"select": select})
    return recipe.model_copy(update={"passes": (*recipe.passes[:-1], last)})


@dataclass(frozen=True, slots=True)
class Answered:
    """A run of the validation and the test part."""

    folder: Path
    """Of the run."""
    pixels: int
    """Through the models of all passes for the test part, halos included."""


def answered(recipe: Recipe, name: str, out: Path) -> Answered:
    """A run; one that is complete already stays as it is."""
    folder = out / name.replace(" ", "-").replace(",", "").replace("%", "")
    images = [str(out / "images" / f"{part}.tif") for part in ("validation", "test")]
    done = run(recipe, images, folder, RunOptions(workers="local"), model_folder=out)
    if done.quarantined:
        raise SystemExit(f"{folder}: complete images expected, found {done}")
    return Answered(folder, sum(done.tally.images["test"].pixels.values()))


def scored(folder: Path, part: str, out: Path) -> Scored:
    """A result beside the truth of its part."""
    result = open_result(folder / "results" / f"{part}.ome.zarr")
    with rasterio.open(out / "truth" / f"{part}.tif") as file:
        truth = file.read(1) > 0
    scores = on_level0(np.asarray(result.fused[0]), truth.shape)
    inside = np.bincount(scores[truth], minlength=STEPS)
    return Scored(inside, np.bincount(scores[~truth], minlength=STEPS))


def on_level0(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Each pixel of a result on all pixels of level 0 that it covers."""
    factor = -(-shape[0] // scores.shape[0])
    return scores.repeat(factor, 0).repeat(factor, 1)[: shape[0], : shape[1]]


def threshold(folder: Path, out: Path) -> int:
    """The stored score whose IoU is the best of the validation part."""
    return int(scored(folder, "validation", out).iou()[1:].argmax()) + 1


def row(name: str, one: Answered, whole_px: float, out: Path) -> list[str]:
    """What was refined and computed on the test part, the threshold, and IoU of both parts."""
    validation, test = (scored(one.folder, part, out).iou() for part in ("validation", "test"))
    at = threshold(one.folder, out)
    result = open_result(one.folder / "results" / "test.ome.zarr")
    return [
        name,
        f"{result.summary()['refined']:.0%}" if len(result.plan.passes) == PASSES else "",
        f"{one.pixels / whole_px:.2f}",
        f"{at / (STEPS - 1):.2f}",
        f"{validation[at]:.3f}",
        f"{test[at]:.3f}",
    ]


def export(folder: Path, at: int) -> Path:
    """The test part's buildings as GeoJSON."""
    wanted = ["--to", "geojson", "--threshold", f"{at / (STEPS - 1):.4f}", "--least-px", "125"]
    subprocess.run(
        [sys.executable, "-c", SACCADE, "export", str(folder), "test", *wanted], check=True
    )
    return folder / "exports" / "test.geojson"


def draw(folder: Path, at: int, out: Path) -> Path:
    """The test part at half its size: buildings found in red, true ones in white, refined pale."""
    with rasterio.open(out / "images" / "test.tif") as file:
        picture = np.moveaxis(file.read(), 0, 2)
    with rasterio.open(out / "truth" / "test.tif") as file:
        truth = file.read(1) > 0
    result = open_result(folder / "results" / "test.ome.zarr")
    found = on_level0(np.asarray(result.fused[0]), truth.shape) >= at
    side_px = round(result.plan.last.tile_px * result.plan.last.plane.downsample)
    refined = np.kron(result.coverage == PASSES, np.ones((side_px, side_px), bool))
    picture = picture // 2 + (refined[: truth.shape[0], : truth.shape[1], None] * 60).astype("u1")
    for mask, colour in ((truth, (255, 255, 255)), (found, (255, 40, 40))):
        picture[outline(mask)] = colour
    image = Image.fromarray(picture[::2, ::2])
    image.save(out / "buildings.png", optimize=True)
    return out / "buildings.png"


def outline(mask: np.ndarray, width_px: int = 4) -> np.ndarray:
    """Pixels within so many of a border between inside and outside."""
    thick = np.zeros_like(mask)
    for axis in (0, 1):
        thick |= np.roll(mask, width_px, axis) != mask
    return thick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raster", type=Path, help="aerial photograph, three bands")
    parser.add_argument("truth", type=Path, help="on the same grid: above 0 in buildings")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.2, 0.6])
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n", flush=True)
    if not (options.out / "truth.yaml").is_file():
        prepare(options.raster, options.truth, options.out)
    train(options.out)
    recipe = load_recipe(EXAMPLES / "buildings.yaml")
    with rasterio.open(options.out / "images" / "test.tif") as file:
        whole_px = file.width * file.height / FINEST**2
    runs = {
        name: answered(one, name, options.out)
        for name, one in variants(recipe, options.shares).items()
    }
    rows = [row(name, one, whole_px, options.out) for name, one in runs.items()]
    head = ["run", "refined", "whole-image passes", "threshold", "IoU, validation"]
    print(table([*head, "IoU, test"], rows))
    folder = runs["three"].folder
    at = threshold(folder, options.out)
    print(f"\n{export(folder, at)}\n{draw(folder, at, options.out)}")


if __name__ == "__main__":
    main()
