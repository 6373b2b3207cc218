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
from pathlib import Path

from common import command, machine, table
from quality_bench import FIELD_DOWNSAMPLE, Bench, Runs, looks, opened, real_runs, works
from quality_costs import flops_per_px
from quality_image import Check, Foreground, Work, check, scored_rows
from quality_recipes import dependences, tiled_dense
from quality_replay import Stored
from quality_report import charts, tables, written
from quality_runs import Report
from quality_scores import Scored
from quality_speed import HEAD, by_turns, killed_and_resumed, rows, ways
from quality_tables import HEAD as LONG_HEAD
from quality_tables import Basis, Cell, Row, Table, cells, gate_cells, gate_of, thresholds

from saccade.pipeline.geometry import Box
from saccade.pipeline.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


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
    held = {w.name: s for w, s in zip(validation, pool.map(scored_rows, validation), strict=True)}
    basis = basis_of(bench, bench.seeded(seed), test, found, held or found)
    verdict = gate_of(basis.dense, only("glance", found))
    print(f"seed {seed}: {verdict}")
    checks = [*pool.map(check, test, [runs.learned[w.checked].pixels[w.name] for w in test])]
    print(f"seed {seed}: {checked(test[0], checks)}", flush=True)
    for row in next(iter(found.values())):
        way, _, share = row.partition("@")
        numbers = [*cells(row, only(row, found), basis, verdict.open)]
        numbers += [*_measured(runs, way, float(share) if share else None)]
        numbers += gate_cells(verdict) if way == "dense" else []
        yield Row(seed, way, float(share) if share else None, tuple(numbers))


def only(row: str, found: Mapping[str, Mapping[str, Scored]]) -> dict[str, Scored]:
    """One row of every image."""
    return {name: rows[row] for name, rows in found.items()}


def basis_of(
    bench: Bench,
    recipe: Recipe,
    test: Sequence[Work],
    found: Mapping[str, Mapping[str, Scored]],
    held: Mapping[str, Mapping[str, Scored]],
) -> Basis:
    """What the rows of one set of weights are compared with."""
    plans = {work.name: Stored(work.dense, work.name).plan for work in test}
    folder = bench.options.recipe.resolve().parent
    one = Stored(test[0].others["one pass"], test[0].name).plan
    tiled = tiled_dense(recipe, bench.options.foreground, FIELD_DOWNSAMPLE)
    first, shared = plans[test[0].name], next(iter(held.values()))
    return Basis(
        classes=first.classes,
        thresholds={row: thresholds(only(row, held), len(first.classes)) for row in shared},
        dense=only("dense", found),
        foreground={w.name: Foreground.of(w.field, plans[w.name]).counts[-1] for w in test},
        whole_px={name: Box.of(plan.last.plane.shape).area for name, plan in plans.items()},
        flops_per_px={
            "dense": flops_per_px(recipe, first, folder),
            "one pass": flops_per_px(tiled, one, folder),
        },
    )


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


def checked(work: Work, found: Sequence[Check]) -> str:
    """The replay of every image held against its real run, in one line.

    Raises:
        SystemExit: tiles or scores differ although nothing in the recipe explains it.
    """
    told = dependences(work.recipe)
    exact = all(c.same_tiles and c.same_pixels and not c.different_scores for c in found)
    if exact:
        return (
            f"replayed at {work.checked:.0%}: on all {len(found)} images the tiles, the pixels "
            f"and every stored score are those of the real run"
        )
    line = (
        f"replayed at {work.checked:.0%}: the same tiles on "
        f"{sum(c.same_tiles for c in found)}, the same pixels on "
        f"{sum(c.same_pixels for c in found)} of {len(found)} images; "
        f"{sum(c.different_scores for c in found)} stored scores differ, by "
        f"{max(c.largest_gap for c in found):.3f} at most"
    )
    if not told:
        raise SystemExit(
            f"{line}; expected none: nothing in the recipe lets a tile's answer change"
        )
    return (
        f"{line}: answers depend on more than their own window ({', '.join(told)}); learned rows "
        f"are real runs, controls are replays to within this"
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
    parser.add_argument("--recipe", type=Path, default=ROOT / "benchmarks" / "quality.yaml")
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
    parts = tables(found)
    parts += [speed(bench)] if bench.options.repeats else []
    parts += [mosaic(bench)] if bench.options.mosaic else []
    print("\n" + "\n\n".join(parts))
    written(bench.out / "quality.md", f"{machine()}\n$ {command()}", parts)


if __name__ == "__main__":
    main()
