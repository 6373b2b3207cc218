"""What Ray costs: the same run by workers in this process and by Ray actors, and where Ray starts.

*The run*: a dense pass of a U-Net over a generated slide by the command, to its end, as many
workers of either kind as the machine carries. From outside its journal is watched: start-up ends
when the first unit is given to a worker that stands; what comes after, until the image is complete,
is compared. The two kinds take turns, and the ratio is taken within a repetition.

*The start*: each part of it alone, one after the other, in a process of its own. The command does
them side by side (Ray starts while the driver imports and settles, and actors import before they
know their work): its start takes less than their sum.

    python benchmarks/ray_overhead.py                 # 12288 px, 2 repetitions: under five minutes
    python benchmarks/ray_overhead.py --side 2048 --repetitions 3
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import command, machine, table
from starting import whole_run

from saccade.jobs.sample import write_sample_slide

RECIPE = """\
version: 1
passes:
  - name: dense
    resolution: {{downsample: 1}}
    model:
      source: "{model}:UNet"
    tile: 256
"""
KINDS = ("local", "ray")
PARTS = """\
import time, sys
since = time.perf_counter()
def told(part):
    global since
    print(f"{part}\\t{time.perf_counter() - since:.2f}", flush=True)
    since = time.perf_counter()
from saccade.jobs import cli, starting
from saccade.jobs.manifests import manifest
from saccade.pipeline.recipe_file import load_recipe
load_recipe(sys.argv[1])
told("command line and recipe")
import saccade.jobs.folders, saccade.jobs.driver
told("the driver's imports, torch among them")
from saccade.workers.ray_settings import prepare_environment
prepare_environment(None)
import ray
told("importing ray")
from saccade.workers import ray_start
begun = ray_start.begin(None)
begun.then(int).result()
told("ray.init")
from saccade.workers.actor import EmptyActors
actors = EmptyActors().first()
ray.get([actor.__ray_ready__.remote() for actor in actors])
told("actors: process and imports, side by side")
from saccade.pipeline.models.loading import load_model
from pathlib import Path
load_model(load_recipe(sys.argv[1]).passes[0].model, base_folder=Path("."))
told("loading the model")
ray_start.end()
"""


def parts_of_the_start(recipe: Path) -> dict[str, float]:
    """Seconds of each part, alone."""
    done = subprocess.run(
        [sys.executable, "-c", PARTS, str(recipe)], check=True, capture_output=True, text=True
    )
    pairs = (line.split("\t") for line in done.stdout.splitlines())
    return {part: float(seconds) for part, seconds in pairs}


def start_rows(recipe: Path, repetitions: int, together: list[float]) -> list[list[str]]:
    """Medians of the parts, their sum, and the start of the command as it is."""
    turns = [parts_of_the_start(recipe) for _ in range(repetitions)]
    medians = {part: statistics.median(turn[part] for turn in turns) for part in turns[0]}
    medians["sum: one after the other"] = sum(medians.values())
    medians["saccade run: start to the first unit given out"] = statistics.median(together)
    return [[part, f"{seconds:.2f}"] for part, seconds in medians.items()]


def turns_of(recipe: Path, slide: Path, folder: Path, count: int) -> list[dict[str, list[float]]]:
    """Per repetition and kind: seconds of start-up, and after it."""
    turns = []
    for number in range(count):
        turn = {}
        for kind in KINDS:
            seen = whole_run(recipe, slide, folder / f"{kind}-{number}", kind)
            turn[kind] = [seen["started"], seen["complete"] - seen["started"]]
        turns.append(turn)
    return turns


def run_rows(turns: list[dict[str, list[float]]]) -> list[list[str]]:
    """A row per kind of worker."""
    rows = []
    for kind in KINDS:
        start, after = (statistics.median(turn[kind][i] for turn in turns) for i in (0, 1))
        ratio = statistics.median(turn[kind][1] / turn["local"][1] for turn in turns)
        rows.append([kind, f"{start:.2f}", f"{after:.1f}", f"{ratio - 1:+.1%}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=12288, help="of the slide, in pixels")
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide, recipe = folder / "slide.tif", folder / "recipe.yaml"
        write_sample_slide(slide, options.side)
        recipe.write_text(RECIPE.format(model=Path(__file__).with_name("networks.py")))
        turns = turns_of(recipe, slide, folder, options.repetitions)
        print(table(["workers", "start-up s", "after it s", "against local"], run_rows(turns)))
        print("\nTarget: at most 5 % slower after a start-up of less than 6 s.\n", flush=True)
        together = [turn["ray"][0] for turn in turns]
        print(table(["start", "s"], start_rows(recipe, options.repetitions, together)))


if __name__ == "__main__":
    main()
