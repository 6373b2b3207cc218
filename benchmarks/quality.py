"""What is kept of a dense run's quality, and what it costs, when only some tiles are refined.

Real photographs with outlined lesions (``idrid.py``), one recipe of several passes, three sets of
weights. Scored are the official test images only; thresholds come from the validation images.

* The *gate* comes first: where the dense run over every tile does not beat the dense glance (paired
  bootstrap over images), retention is undefined, and said to be.
* *learned*: real runs, each in a process of its own, in which the last pass visits the best 5 to
  100 % of the foreground's tiles by the recipe's own signal, and passes before it proportionally
  more, as the recipe's fractions have it. Share of tiles, pixels, FLOPs, bytes, seconds and memory
  include the glance and all passes.
* *controls*, at the same counts of tiles, always inside the foreground: at random, by local
  contrast, by the entropy of the pass before, and by the truth (oracle). They are composed from the
  dense run's stored passes by the library's own functions; that this gives what a real run gives is
  checked at one share, on every image, and printed.
* *threshold*: one threshold for all images instead of one share per image; with a minimum share per
  image, and with escalation of images whose glance is unsure. Replayed likewise.
* *one pass*: the finest pass alone over all foreground; *distilled*: a glance taught by the fine
  model, with nothing refined (``--distilled``).
* speed: the recipe, tiled dense over foreground, and everything in one forward pass, by turns.
* ``--mosaic``: the same three on one gigapixel mosaic, which is then killed and resumed.

    python benchmarks/idrid.py PHOTOGRAPHS -o idrid
    python benchmarks/quality.py idrid --weights a.safetensors b.safetensors -o quality
    python benchmarks/quality.py idrid --images 2 --shares 0.1 0.3 --repeats 1    # a small try

Leaves quality.csv (every number), quality.png and quality.md in the folder given by -o. What is
there already is not computed again: a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import command, machine, table
from quality_archive import Rule, last_scores, rule_of, unsureness
from quality_costs import flops_per_px
from quality_image import Check, Foreground, Work, check, learned_scores, scored_rows
from quality_recipes import (
    alone,
    by_count,
    counts_at,
    dense,
    fed_forward,
    ratios,
    tiled_dense,
    with_weights,
)
from quality_replay import Stored
from quality_report import charts, curve_table, method_table, written
from quality_runs import Job, Report, measured
from quality_speed import HEAD, by_turns, killed_and_resumed, rows, ways
from quality_tables import HEAD as LONG_HEAD
from quality_tables import Basis, Cell, Row, Table, cells, gate_of, thresholds

from saccade.jobs.manifest import read_manifest
from saccade.pipeline.models.fingerprint import fingerprint
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.truth import read_split

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
FIELD_DOWNSAMPLE = 16.0
Entry = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all parts share."""

    options: argparse.Namespace
    """As typed."""
    recipe: Recipe
    """Under test."""
    test: tuple[Entry, ...]
    """Images that are scored."""
    validation: tuple[Entry, ...]
    """Images that thresholds come from."""
    weights: tuple[str | None, ...]
    """One file per seed; None for what the recipe says."""

    @property
    def out(self) -> Path:
        """Where everything lies."""
        folder: Path = self.options.out
        return folder

    def seeded(self, seed: int) -> Recipe:
        """The recipe with one set of weights."""
        return with_weights(self.recipe, self.weights[seed])

    def run(self, recipe: Recipe, images: Sequence[Entry], name: str) -> Report:
        """A measured run, made now or found."""
        report = measured(self.job(recipe, images), self.out / "runs" / name)
        print(f"  {name}: {len(images)} images, {report.seconds:.1f} s", flush=True)
        return report

    def job(self, recipe: Recipe, images: Sequence[Entry]) -> Job:
        """A run as values."""
        folder = self.options.recipe.resolve().parent
        models = tuple(fingerprint(one.model, folder) for one in recipe.passes)
        tree = recipe.model_dump(mode="json")
        return Job(tree, str(folder), tuple(images), self.options.workers, models)


@dataclass(frozen=True)
class Runs:
    """Real runs of one set of weights."""

    dense: Report
    """Every tile, test and validation images."""
    learned: Mapping[float, Report]
    """By share, test images."""
    others: Mapping[str, Report]
    """By row."""


def opened(options: argparse.Namespace) -> Bench:
    """Images, split, recipe and weights."""
    split = read_split(options.folder / "split.csv")
    found = {}
    for entry in read_manifest(options.folder / "images.csv"):
        if isinstance(entry, str):
            raise SystemExit(entry)
        found[entry.name] = {"image": entry.uri, "name": entry.name}

    def part(name: Any) -> tuple[Entry, ...]:
        return tuple(found[one] for one in split[name][: options.images])

    weights = [str(path.resolve()) for path in options.weights] or [None]
    return Bench(
        options, load_recipe(options.recipe), part("test"), part("validation"), tuple(weights)
    )


def looks(bench: Bench) -> tuple[Report, Report]:
    """Foreground and contrast of every image: neither learns anything."""
    every = (*bench.test, *bench.validation)
    glance = bench.recipe.passes[0].resolution.downsample or FIELD_DOWNSAMPLE
    field = alone(bench.recipe, bench.options.foreground, FIELD_DOWNSAMPLE)
    contrast = alone(bench.recipe, bench.options.contrast, glance)
    return bench.run(field, every, "field"), bench.run(contrast, bench.test, "contrast")


def real_runs(bench: Bench, seed: int, field: Path) -> Runs:
    """Dense first: its plans say how many tiles there are."""
    recipe = bench.seeded(seed)
    every = bench.run(dense(recipe), (*bench.test, *bench.validation), f"{seed}/dense")

    def told(share: float) -> list[Entry]:
        return [
            {**entry, **by_count(recipe, counts_of(recipe, every.folder, field, entry, share))}
            for entry in bench.test
        ]

    learned = {
        share: bench.run(recipe, told(share), f"{seed}/{share:g}") for share in bench.options.shares
    }
    one = tiled_dense(recipe, bench.options.foreground, FIELD_DOWNSAMPLE)
    others = {"one pass": bench.run(one, bench.test, f"{seed}/one-pass")}
    if seed < len(bench.options.distilled):
        taught = with_weights(recipe, str(bench.options.distilled[seed].resolve()))
        others["distilled glance"] = bench.run(taught, told(0.0), f"{seed}/distilled")
    return Runs(every, learned, others)


def counts_of(
    recipe: Recipe, run: Path, field: Path, entry: Entry, share: float
) -> tuple[int, ...]:
    """Tiles per later pass of one image."""
    plan = Stored(run, entry["name"]).plan
    return counts_at(share, Foreground.of(field, plan).counts, ratios(recipe))


def archive_rule(bench: Bench, recipe: Recipe, runs: Runs, field: Path) -> Rule | None:
    """One threshold, from the validation images."""
    share, scores, foreground, unsure = bench.options.archive_share, [], [], []
    for entry in bench.validation:
        stored = Stored(runs.dense.folder, entry["name"])
        ground = Foreground.of(field, stored.plan)
        counts = counts_at(share, ground.counts, ratios(recipe))
        scores.append(last_scores(stored, counts, learned_scores(recipe)))
        foreground.append(ground.counts[-1])
        unsure.append(unsureness(stored, ground.masks[1]))
    return rule_of(share, scores, foreground, unsure) if scores else None


def works(
    bench: Bench, seed: int, runs: Runs, looked: tuple[Report, Report]
) -> tuple[list[Work], list[Work]]:
    """What is to be scored: test images in every way, validation images in the dense run alone."""
    recipe, (field, contrast) = bench.seeded(seed), looked
    first = Work(
        name="",
        seed=seed,
        recipe=recipe,
        dense=runs.dense.folder,
        field=field.folder,
        contrast=contrast.folder,
        shares=tuple(bench.options.shares),
        learned={share: report.folder for share, report in runs.learned.items()},
        others={row: report.folder for row, report in runs.others.items()},
        truth=bench.options.folder / "truth.yaml",
        archive=archive_rule(bench, recipe, runs, field.folder),
        checked=min(bench.options.shares, key=lambda share: abs(share - 0.3)),
        out=bench.out / "scores" / str(seed),
    )
    test = [_named(first, entry) for entry in bench.test]
    plain = replace(first, shares=(), learned={}, others={}, archive=None)
    return test, [_named(plain, entry) for entry in bench.validation]


def _named(work: Work, entry: Entry) -> Work:
    return replace(work, name=entry["name"], out=work.out / f"{entry['name']}.npz")


def seed_rows(
    bench: Bench, seed: int, looked: tuple[Report, Report], pool: ProcessPoolExecutor
) -> Iterator[Row]:
    """Every row of one set of weights."""
    runs = real_runs(bench, seed, looked[0].folder)
    test, validation = works(bench, seed, runs, looked)
    found = {}
    for work, scored in zip(test, pool.map(scored_rows, test), strict=True):
        found[work.name] = scored
        print(f"  seed {seed}, {work.name}: {len(scored)} rows", flush=True)
    held = {}
    for work, scored in zip(validation, pool.map(scored_rows, validation), strict=True):
        held[work.name] = scored["dense"]
    plan = Stored(runs.dense.folder, test[0].name).plan
    every = {name: rows["dense"] for name, rows in found.items()}
    glance = {name: rows["glance"] for name, rows in found.items()}
    basis = Basis(
        classes=plan.classes,
        thresholds=thresholds(held or every, len(plan.classes)),
        dense=every,
        foreground={
            w.name: Foreground.of(w.field, Stored(w.dense, w.name).plan).counts[-1] for w in test
        },
        whole_px={w.name: _whole(Stored(w.dense, w.name)) for w in test},
        flops_per_px=flops_per_px(bench.seeded(seed), plan, bench.options.recipe.resolve().parent),
    )
    verdict = gate_of(every, glance)
    print(f"seed {seed}: {verdict}")
    print(f"seed {seed}: {_checked(test, runs)}", flush=True)
    for row in next(iter(found.values())):
        way, _, share = row.partition("@")
        numbers = [*cells({n: rows[row] for n, rows in found.items()}, basis, verdict.open)]
        numbers += [*_measured(runs, way, float(share) if share else None)]
        yield Row(seed, way, float(share) if share else None, tuple(numbers))


def _whole(stored: Stored) -> int:
    height, width = stored.plan.last.plane.shape
    return height * width


def _measured(runs: Runs, way: str, share: float | None) -> Iterator[Cell]:
    """What only a real run has."""
    report = runs.learned.get(share or -1.0) if way == "learned" else runs.others.get(way)
    if report is None:
        return
    yield Cell("wall s", "", report.seconds)
    yield Cell("CPU s", "", report.cpu_seconds)
    yield Cell("peak MB", "", report.peak_nbytes / 1e6)
    for name, lanes in report.lanes.items():
        for lane, seconds in lanes.items():
            yield Cell(f"busy s, {lane}", name, seconds)


def _checked(test: Sequence[Work], runs: Runs) -> str:
    """The replay of every image held against its real run, in one line.

    Raises:
        SystemExit: tiles or scores differ although no pass is told anything by the one before.
    """
    report = runs.learned[test[0].checked]
    found: list[Check] = [check(work, report.pixels[work.name]) for work in test]
    told = fed_forward(test[0].recipe)
    exact = all(c.same_tiles and c.same_pixels and not c.different_scores for c in found)
    if exact:
        return (
            f"replayed at {test[0].checked:.0%}: on all {len(found)} images the tiles, the pixels "
            f"and every stored score are those of the real run"
        )
    line = (
        f"replayed at {test[0].checked:.0%}: the same tiles on "
        f"{sum(c.same_tiles for c in found)}, the same pixels on "
        f"{sum(c.same_pixels for c in found)} of {len(found)} images; "
        f"{sum(c.different_scores for c in found)} stored scores differ, by "
        f"{max(c.largest_gap for c in found):.3f} at most"
    )
    if not told:
        raise SystemExit(f"{line}; expected none, as no pass is told anything by the one before")
    return (
        f"{line}: answers depend on what the pass before visited ({', '.join(told)}); the learned "
        f"rows are real runs, controls are replays to within this"
    )


def speed(bench: Bench) -> str:
    """The recipe as written, and the ordinary ways, by turns."""
    recipe = bench.seeded(0)
    compared = ways(recipe, bench.options.foreground, FIELD_DOWNSAMPLE, whole="one forward pass")
    job = bench.job(recipe, bench.test)
    turns = by_turns(compared, job, bench.out / "speed", bench.options.repeats)
    return table(HEAD, [*rows(turns)])


def mosaic(bench: Bench) -> str:
    """The same on one large image, and what killing it does."""
    path: Path = bench.options.mosaic.resolve()
    recipe = bench.seeded(0)
    compared = ways(recipe, bench.options.foreground, FIELD_DOWNSAMPLE, whole="everything, tiled")
    job = bench.job(recipe, [{"image": str(path), "name": path.stem}])
    folder = bench.out / "mosaic"
    turns = by_turns(compared, job, folder, bench.options.mosaic_repeats)
    first = turns[0]["three passes"]
    line = killed_and_resumed(job, first, folder / "killed", bench.options.kills)
    return f"{table(HEAD, [*rows(turns)])}\n\n{line}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that idrid.py made")
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples" / "retina-lesions.yaml")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="one file per seed")
    parser.add_argument("--distilled", type=Path, nargs="*", default=[], help="one per seed")
    parser.add_argument("-o", "--out", type=Path, default=Path("quality"))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--archive-share", type=float, default=0.3, help="for one threshold")
    parser.add_argument("--images", type=int, help="of each part only the first so many")
    parser.add_argument("--foreground", default="builtin:field", help="model that finds it")
    parser.add_argument("--contrast", default="builtin:contrast", help="model that learns nothing")
    parser.add_argument("--workers", default="local", help="of every run")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that score images")
    parser.add_argument("--repeats", type=int, default=3, help="of the speed table; 0 for none")
    parser.add_argument("--mosaic", type=Path, help="that mosaic.py made")
    parser.add_argument("--mosaic-repeats", type=int, default=1)
    parser.add_argument("--kills", type=int, default=3, help="of the run over the mosaic")
    return parser.parse_args()


def main() -> None:
    bench = opened(parsed())
    bench.out.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\n$ {command()}\n", flush=True)
    looked = looks(bench)
    with ProcessPoolExecutor(bench.options.processes) as pool:
        seeds = range(len(bench.weights))
        found = Table(row for seed in seeds for row in seed_rows(bench, seed, looked, pool))
    with (bench.out / "quality.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([LONG_HEAD, *found.lines()])
    charts(bench.out / "quality.png", found)
    parts = [curve_table(found), method_table(found)]
    parts += [speed(bench)] if bench.options.repeats else []
    parts += [mosaic(bench)] if bench.options.mosaic else []
    print("\n" + "\n\n".join(parts))
    written(bench.out / "quality.md", f"{machine()}\n$ {command()}", parts)


if __name__ == "__main__":
    main()
