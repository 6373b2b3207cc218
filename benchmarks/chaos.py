"""What breaks, on purpose, and what is left of the result: the faults that `make chaos` injects.

Every row of the table is an archive run (or several) with one kind of fault. Rows fail, and so does
the command, where a run crashes, hangs, leaves an image without a record, or leaves bytes that are
not those of a run that nothing disturbed.

*injected*    faults that happened      *survived*     of them, those that the run ended well after
*compared*    results compared          *same bytes*   of them, with the bytes of the clean run;
where receipts tell of batches that were split, or planned smaller, for want of memory, one step of
a score is allowed
*recorded*    complete, with tiles that status and receipts call unreadable or incomplete
*set aside*   quarantined with a reason, or listed as unusable before work starts

    python benchmarks/chaos.py                                  # all of it: 10 to 30 minutes
    python benchmarks/chaos.py --only inputs --times 2          # some 150 bad inputs
    python benchmarks/chaos.py --only soak --images 100

Set SACCADE_TEST_DATA to the folder of real images to have those damaged as well.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from chaos_inputs import BadInput, bad_inputs, cut, flip, tissue
from chaos_runs import (
    ANY_CHANNELS,
    Ended,
    Trial,
    digests,
    fast_folder,
    kill_an_actor,
    kill_driver,
    live,
    nbytes_of,
    peak_mib,
    skipped,
    small_disk,
    told,
)
from common import command, machine, table

from saccade.jobs.journals.replay import read_records
from saccade.pipeline.result import open_result

HEAD = (
    *("fault", "injected", "survived", "compared", "same bytes", "MB compared"),
    *("recorded", "set aside", "lives", "s", "holds"),
)
MOST_MIB = 4096
"""What a run over bad inputs may hold; a good one holds a tenth of it."""
MOST_FAILURES = 3
"""Failures of one unit after which ``saccade run`` sets its image aside unless told otherwise."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    injected: int
    survived: int
    compared: int = 0
    same: int = 0
    nbytes: int = 0
    recorded: int = 0
    aside: int = 0
    lives: int = 0
    seconds: float = 0.0
    wrong: tuple[str, ...] = ()
    """What should not be so."""

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        numbers = (self.injected, self.survived, self.compared, self.same)
        counts = (self.recorded, self.aside, self.lives)
        said = "NO" if self.wrong else "yes"
        mb = f"{self.nbytes / 1e6:.1f}"
        return (self.fault, *map(str, numbers), mb, *map(str, counts), f"{self.seconds:.0f}", said)


def ended_wrong(ended: Ended) -> list[str]:
    """What is wrong with how a run ended."""
    wrong = [f"hung {ended.hangs} times"] if ended.hangs else []
    if ended.code not in (0, 3):
        wrong.append(f"exit code {ended.code}: {ended.said[-400:]}")
    return wrong


# ------------------------------------------------------------------------------------- bad inputs


def write_manifest(path: Path, inputs: Iterable[BadInput]) -> Path:
    """A CSV of names, images and pixel sizes."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "name", "mpp"))
        rows.writerows((one.path, one.name, "" if one.mpp is None else one.mpp) for one in inputs)
    return path


def verdict(
    one: BadInput, line: str, trial: Trial, state: dict[str, object] | None, gone_on: str
) -> str:
    """What became of an input, and of its line of the manifest.

    Returns:
        'aside', 'recorded', 'decoded', or what is wrong.
    """
    if state is None:
        listed = str(one.path) in gone_on or f"{line}: mpp" in gone_on
        return "aside" if listed else "no record of it"
    if state["state"] == "quarantined":
        return "aside" if state.get("reason") else "set aside without a reason"
    if state["state"] != "complete":
        return f"left {state['state']}"
    return _reading(trial.run / "results" / f"{one.name}.ome.zarr", state)


def _reading(result: Path, state: dict[str, object]) -> str:
    tiles = state["tiles"]
    assert isinstance(tiles, dict)
    lost = sum(counts.get("failed", 0) + counts.get("degraded", 0) for counts in tiles.values())
    opened = open_result(result)
    if not np.isfinite(np.asarray(opened.scores)).all():
        return "scores are not numbers"
    seen = bool((np.asarray(opened.coverage) > 0).any())
    if lost and not state.get("errors"):
        return "tiles are lost without a reason"
    return "recorded" if lost else "decoded" if seen else "complete, but nothing was looked at"


def inputs_rows(root: Path, options: argparse.Namespace, workers: str) -> list[Row]:
    """One archive run over every bad input; a row for each kind of fault."""
    inputs = bad_inputs(root / "in", options.data, options.times, options.seed)
    manifest = write_manifest(root / "images.csv", inputs)
    trial = Trial(root, [manifest], workers, text=ANY_CHANNELS)
    ended = live(trial)
    states, gone_on = told(trial), skipped(trial)
    verdicts = [
        (one, verdict(one, f"{manifest.name}:{line}", trial, states.get(one.name), gone_on))
        for line, one in enumerate(inputs, 2)
    ]
    rows = [_row_of(fault, verdicts) for fault in dict.fromkeys(one.fault for one in inputs)]
    wrong = ended_wrong(ended)
    if peak_mib() > MOST_MIB:
        wrong.append(f"held {peak_mib():.0f} MiB; at most {MOST_MIB} expected")
    total = _totalled(f"bad inputs, all ({workers}, {peak_mib():.0f} MiB)", rows, ended, wrong)
    for crash in ended.crashes:
        print(f"a decoder crashed the driver: {crash}", flush=True)
    return [*rows, total]


def _row_of(fault: str, verdicts: Sequence[tuple[BadInput, str]]) -> Row:
    mine = [(one, said) for one, said in verdicts if one.fault == fault]
    counts = Counter(said for _, said in mine)
    fine = counts["aside"] + counts["recorded"] + counts["decoded"]
    wrong = [f"{i.name}: {s}" for i, s in mine if s not in ("aside", "recorded", "decoded")]
    kept = {"recorded": counts["recorded"], "aside": counts["aside"]}
    return Row(fault, len(mine), fine, **kept, wrong=tuple(wrong))


def _totalled(fault: str, rows: Sequence[Row], ended: Ended, wrong: list[str]) -> Row:
    return Row(
        fault,
        sum(row.injected for row in rows),
        sum(row.survived for row in rows) if not wrong else 0,
        recorded=sum(row.recorded for row in rows),
        aside=sum(row.aside for row in rows),
        lives=ended.lives,
        seconds=ended.seconds,
        wrong=tuple(wrong),
    )


# ------------------------------------------------------------------- faults of what is around a run


def write_images(folder: Path, count: int, side: int = 96) -> list[Path]:
    """Small tiled TIFFs, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image-{number:03d}.tif" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = tissue(side, side + 32, number)
        tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    return paths


def compared(
    fault: str,
    trial: Trial,
    clean: Trial,
    ended: Ended,
    injected: int,
    excused: Callable[[str], bool] = lambda name: False,
    never_aside: frozenset[str] = frozenset(),
) -> Row:
    """A run held against the clean one, by image.

    Args:
        fault: what was injected.
        trial: the run.
        clean: the one that nothing disturbed.
        ended: how the run ended.
        injected: faults that happened.
        excused: where bytes may differ.
        never_aside: images that faults were no reason to set aside.
    """
    ours, theirs = digests(trial), digests(clean)
    states = told(trial)
    aside = {n for n, s in states.items() if s["state"] == "quarantined" and s.get("reason")}
    kept = [name for name in theirs if name not in aside]
    same = sum(ours.get(name) == theirs[name] for name in kept)
    wrong = ended_wrong(ended)
    other = [n for n in kept if ours.get(n) != theirs[n] and not excused(n)]
    wrong += [f"{name}: other bytes, not set aside" for name in other][:5]
    wrong += [f"{name}: set aside for faults that pass" for name in sorted(aside & never_aside)][:5]
    wrong += [] if injected else ["nothing was injected"]
    return Row(
        *(fault, injected, 0 if wrong else injected, len(kept), same, nbytes_of(trial)),
        aside=len(aside),
        lives=ended.lives,
        seconds=ended.seconds,
        wrong=tuple(wrong),
    )


def split_and_close(trial: Trial, clean: Trial) -> Callable[[str], bool]:
    """Whether receipts of an image tell of splits or lessons, and its answers are within one step.

    A forward pass of another size may add in another order: that is what a split promises, and what
    a plan made smaller by an earlier lesson does.
    """
    receipts = (r for r in read_records(trial.run / "journal") if r["kind"] == "receipt")
    split = {r["image"] for r in receipts if r.get("splits") or r.get("lessons")}

    def close(name: str) -> bool:
        ours, theirs = (_scores(one.run / "results" / f"{name}.ome.zarr") for one in (trial, clean))
        return name in split and bool((np.abs(ours - theirs) <= 1 / 255 + 1e-9).all())

    return close


def failed_seldom(trial: Trial) -> frozenset[str]:
    """Images none of whose units failed so often that the image is to be set aside."""
    records = [r for r in read_records(trial.run / "journal") if "image" in r]
    failures = Counter((r["image"], r["unit"]) for r in records if r["kind"] == "failure")
    often = {image for (image, _), count in failures.items() if count >= MOST_FAILURES}
    return frozenset(r["image"] for r in records) - often


def _scores(result: Path) -> np.ndarray:
    return np.asarray(open_result(result).scores, np.float64)


def around_rows(root: Path, options: argparse.Namespace, only: Sequence[str]) -> list[Row]:
    """Kills, storage, clocks and memory: the same few images, each time with another fault."""
    images = write_images(root / "in", options.few)
    clean = Trial(root / "clean", images)
    rows: list[Row] = []
    ended = live(clean)
    if not ended.well:
        return [Row("none", 0, 0, wrong=tuple(ended_wrong(ended)))]
    if "kills" in only:
        rows += _kills(root, images, clean, options)
    faults = {
        "storage": {"reads fail once": {"reads": 0.1}, "writes fail once": {"writes": 0.05}},
        "slow": {"writes take 50 ms more": {"slow": 0.05}},
        "clock": {"clock jumps by +-48 h": {"clock": 48.0}},
        "memory": {"device out of memory": {"memory": 0.1, "seed": float(options.seed)}},
    }
    for group, kinds in faults.items():
        for fault, spec in kinds.items() if group in only else ():
            trial = Trial(root / fault.replace(" ", "-"), images, "local:1", spec)
            ended = live(trial)
            injected = ended.injected or int(group in ("slow", "clock"))
            allowed: dict[str, Any] = {"never_aside": failed_seldom(trial)}
            if group == "memory":
                allowed["excused"] = split_and_close(trial, clean)
            rows.append(compared(fault, trial, clean, ended, injected, **allowed))
    return rows


def _kills(root: Path, images: list[Path], clean: Trial, options: argparse.Namespace) -> list[Row]:
    alone = Trial(root / "drivers", images)
    many = options.kills
    ended = live(alone, kill_driver, many, options.every, options.seed)
    rows = [compared("drivers killed", alone, clean, ended, ended.kills)]
    if options.ray:
        actors = Trial(root / "actors", images, "ray:2", extra=("--max-failures", "9"))
        kill = kill_an_actor(random.Random(options.seed))
        ended = live(actors, kill, many, options.every, options.seed)
        rows.append(compared("actors killed", actors, clean, ended, ended.kills))
    return rows


# ------------------------------------------------------------------------------------------- soak


def spoil(path: Path, chance: random.Random) -> None:
    """Cut a file or flip bytes of it."""
    path.write_bytes(chance.choice((cut, flip))(path.read_bytes(), chance))


def soak_row(root: Path, options: argparse.Namespace) -> Row:
    """Many images, a tenth of them bad, with kills, a full disk and read errors on the way."""
    chance = random.Random(options.seed)
    images = write_images(root / "in", options.images)
    bad = chance.sample(images, len(images) // 10)
    for path in bad:
        spoil(path, chance)
    clean = Trial(root / "clean", images)
    undisturbed = live(clean)
    disk = root / "disk"
    faults = {"reads": 0.02, "writes": 0.005, "seed": float(options.seed)}
    trial = Trial(disk, images, "local:1", faults)
    own = small_disk(trial.run, max(200, 12 * len(images)))
    try:
        full = _fill_up(trial, options) if own else 0
        ended = live(trial, kill_driver, options.kills, options.every, options.seed)
        injected = ended.kills + ended.injected + full + len(bad)
        row = compared("soak", trial, clean, ended, injected)
    finally:
        if own:
            subprocess.run(["umount", str(trial.run)], check=True)
    return _soaked(row, clean, undisturbed, full, ended, len(bad))


def _fill_up(trial: Trial, options: argparse.Namespace) -> int:
    """Run until the disk is full, then make room; 1 where that happened."""
    ended = live(trial)
    small_disk(trial.run, 4 << 20, again=True)
    return int(ended.code == 1 and "space" in ended.said)


def _soaked(row: Row, clean: Trial, undisturbed: Ended, full: int, ended: Ended, bad: int) -> Row:
    wrong = [*row.wrong, *ended_wrong(undisturbed)]
    states = told(clean).values()
    recorded = sum(_is_recorded(state) for state in states)
    name = f"soak: {bad} bad files, {ended.kills} kills, {full} full disk, {ended.injected} I/O"
    return replace(row, fault=name, recorded=recorded, wrong=tuple(wrong))


def _is_recorded(state: dict[str, object]) -> bool:
    tiles = state.get("tiles") or {}
    assert isinstance(tiles, dict)
    return state["state"] == "complete" and any(
        counts.get("failed", 0) + counts.get("degraded", 0) for counts in tiles.values()
    )


PARTS = ("inputs", "kills", "storage", "slow", "clock", "memory", "soak")


def parsed() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    words.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    words.add_argument("--times", type=int, default=5, help="flips and cuts of every good file")
    words.add_argument("--few", type=int, default=12, help="images of kills, storage and clocks")
    words.add_argument("--images", type=int, default=500, help="images of the soak")
    words.add_argument("--kills", type=int, default=6, help="of drivers, and of actors")
    words.add_argument("--every", type=int, default=40_000, help="most journal bytes between kills")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--no-ray", dest="ray", action="store_false", help="leave actors out")
    words.add_argument("--output", type=Path, help="also write the table to this file")
    where = os.environ.get("SACCADE_TEST_DATA", Path(__file__).parents[1] / "shared" / "data")
    words.add_argument("--data", type=Path, default=Path(where), help="folder of real images")
    options = words.parse_args()
    options.data = options.data if options.data.is_dir() else None
    return options


def main() -> int:
    """Inject, compare, print; 1 where a row does not hold."""
    options = parsed()
    lines = [machine(), command(), ""]
    rows: list[Row] = []
    with contextmanager(fast_folder)() as root:
        parts: list[tuple[bool, Callable[[], list[Row]]]] = [
            ("inputs" in options.only, lambda: inputs_rows(root / "inputs", options, "local:1")),
            (
                bool(set(options.only) - {"inputs", "soak"}),
                lambda: around_rows(root / "around", options, options.only),
            ),
            ("soak" in options.only, lambda: [soak_row(root / "soak", options)]),
        ]
        for asked, part in parts:
            rows += part() if asked else []
    lines.append(table(HEAD, [row.cells() for row in rows]))
    wrong = [f"{row.fault}: {said}" for row in rows for said in row.wrong]
    text = "\n".join([*lines, *wrong])
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
