"""Images, recipe and weights of the benchmark, and the real runs that it needs.

What is run, under which name, and what goes into a score; nothing is scored here.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quality_archive import Rule, last_scores, rule_of, unsureness
from quality_image import Foreground, Work, learned_scores
from quality_recipes import (
    alone,
    by_count,
    counts_at,
    dense,
    keeping_all,
    ratios,
    tiled_dense,
    with_weights,
)
from quality_replay import Stored
from quality_runs import Job, Report, measured

from saccade.jobs.manifests.manifest import read_manifest
from saccade.jobs.manifests.problems import Problem
from saccade.pipeline.models.fingerprint import fingerprint
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.truth import read_split

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
        if isinstance(entry, Problem):
            raise SystemExit(str(entry))
        found[entry.name] = {"image": entry.uri, "name": entry.name}

    def part(name: Any) -> tuple[Entry, ...]:
        return tuple(found[one] for one in split[name][: options.images])

    weights: list[str | None] = [str(path.resolve()) for path in options.weights]
    recipe = keeping_all(load_recipe(options.recipe))
    return Bench(options, recipe, part("test"), part("validation"), tuple(weights or [None]))


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
            for entry in (bench.test if share else (*bench.test, *bench.validation))
        ]

    learned = {
        share: bench.run(recipe, told(share), f"{seed}/{share:g}") for share in bench.options.shares
    }
    one = tiled_dense(recipe, bench.options.foreground, FIELD_DOWNSAMPLE)
    both = (*bench.test, *bench.validation)
    others = {
        "as written": bench.run(recipe, both, f"{seed}/as-written"),
        "one pass": bench.run(one, both, f"{seed}/one-pass"),
    }
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
    plain = replace(first, shares=(), learned={}, archive=None)
    return _named(first, bench.test), _named(plain, bench.validation)


def _named(work: Work, entries: Sequence[Entry]) -> list[Work]:
    """One per image; its file is named by what went into it, so that nothing else is found."""
    runs = (work.dense, work.field, work.contrast, *work.learned.values(), *work.others.values())
    texts = [(run.parent / "job.json").read_text(encoding="utf-8") for run in runs]
    given = "\n".join([*texts, repr(work.archive), repr(work.shares)])
    key = hashlib.blake2b(given.encode(), digest_size=6).hexdigest()
    return [replace(work, name=e["name"], out=work.out / f"{e['name']}-{key}.npz") for e in entries]
