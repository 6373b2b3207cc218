"""The three-pass run beside the ordinary ways, on the clock: by turns, each in its own process.

Ratios are taken within a repetition. On a mosaic the run is also killed (``SIGKILL``) again and
again at points spread over its life, and resumed each time; its result must be, byte for byte, that
of the run that nobody disturbed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from quality_recipes import tiled_dense, untiled
from quality_runs import REPORT, Job, Report, measured

from saccade.pipeline.recipe import Recipe

HEAD = (
    *("run", "wall s", "CPU s", "MP computed", "peak MB"),
    *("three passes are faster by", "in CPU seconds by"),
)


def ways(recipe: Recipe, foreground: str, downsample: float, *, whole: str) -> dict[str, Recipe]:
    """The recipe, tiles of the foreground by its finest pass alone, and everything by it."""
    return {
        "three passes": recipe,
        "tiled dense, foreground": tiled_dense(recipe, foreground, downsample),
        whole: untiled(recipe),
    }


def by_turns(
    recipes: Mapping[str, Recipe],
    base: Job,
    folder: Path,
    repeats: int,
) -> list[dict[str, Report]]:
    """Every way once per repetition."""
    turns = []
    for repeat in range(repeats):
        turn = {}
        for name, recipe in recipes.items():
            job = replace(base, recipe=recipe.model_dump(mode="json"))
            where = folder / str(repeat) / name.replace(" ", "-").replace(",", "")
            turn[name] = measured(job, where)
            print(f"  turn {repeat + 1}, {name}: {turn[name].seconds:.1f} s", flush=True)
        turns.append(turn)
    return turns


def rows(turns: Sequence[Mapping[str, Report]]) -> Iterator[list[str]]:
    """Medians over turns; ratios of each to the first way, taken within a turn."""
    first = next(iter(turns[0]))
    for name in turns[0]:
        reports = [turn[name] for turn in turns]
        wall = [turn[name].seconds / turn[first].seconds for turn in turns]
        busy = [turn[name].cpu_seconds / turn[first].cpu_seconds for turn in turns]
        pixels = sum(sum(one.values()) for one in reports[0].pixels.values())
        yield [
            name,
            f"{statistics.median(r.seconds for r in reports):.1f}",
            f"{statistics.median(r.cpu_seconds for r in reports):.1f}",
            f"{pixels / 1e6:.1f}",
            f"{max(r.peak_nbytes for r in reports) / 1e6:.0f}",
            f"{statistics.median(wall):.2f}",
            f"{statistics.median(busy):.2f}",
        ]


def killed_and_resumed(job: Job, whole: Report, folder: Path, kills: int) -> str:
    """One line: how often a run was killed, and whether it ended with the same bytes.

    Args:
        job: the run.
        whole: the same, undisturbed.
        folder: for the disturbed one.
        kills: how often, at most; fewer where the run is over before.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job), sort_keys=True), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("quality_runs.py")), str(path)]
    journal, done = folder / "run" / "journal", 0
    receipts = sum(1 for line in _lines(whole.folder / "journal") if '"receipt"' in line)
    for kill in range(1, kills + 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wanted = receipts * kill // (kills + 1)
        while process.poll() is None and _count(journal) < wanted:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.wait()
    if not (folder / REPORT).is_file():
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    same = _digest(folder / "run" / "results") == _digest(whole.folder / "results")
    verdict = "the same bytes" if same else "OTHER BYTES"
    repeated = _count(journal) - receipts
    return f"killed {done} times with SIGKILL and resumed: {verdict}; {repeated} units done twice"


def _lines(journal: Path) -> Iterator[str]:
    for path in sorted(journal.glob("*.jsonl")):
        yield from path.read_text(encoding="utf-8").splitlines()


def _count(journal: Path) -> int:
    return sum(1 for line in _lines(journal) if '"receipt"' in line)


def _digest(results: Path) -> dict[str, str]:
    """Hash of every file but the metadata of groups, which hold dates and seconds."""
    found = {}
    for path in sorted(results.rglob("*")):
        if path.is_file() and path.name != "zarr.json":
            found[str(path.relative_to(results))] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found
