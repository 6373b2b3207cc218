"""One run in a process of its own, measured: wall and processor seconds, peak memory, its tally.

Run by ``quality.py``, once per row that needs a real run; what is there already is not run again.

    python benchmarks/quality_runs.py JOB.json       # writes RUN/report.json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be measured."""

    recipe: dict[str, Any]
    """As values."""
    model_folder: str
    """What relative paths of models are relative to."""
    images: tuple[dict[str, Any], ...]
    """Rows of a manifest: image, name, and changes to the recipe."""
    workers: str = "local"
    """Of the run."""
    models: tuple[str, ...] = ()
    """Hashes of the models and their weights, so that others are not taken for these."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured of one run."""

    folder: Path
    """Of the run."""
    seconds: float
    """Wall clock, from the call to its return: models are loaded, imports are done before."""
    cpu_seconds: float
    """Of the process and all its threads, the same time."""
    peak_nbytes: int
    """High-water mark of its resident memory (VmHWM)."""
    pixels: dict[str, dict[str, int]]
    """Per image and pass, through the model, halos included, from the receipts."""
    tiles: dict[str, dict[str, int]]
    """Per image and pass, tiles answered."""
    lanes: dict[str, dict[str, float]]
    """Per pass, busy seconds by lane, all images."""


def measured(job: Job, folder: Path) -> Report:
    """The run of a job, found complete or made now, from the beginning.

    Raises:
        SystemExit: it failed.
    """
    said = folder / REPORT
    text = json.dumps(asdict(job), sort_keys=True)
    if said.is_file():
        found = json.loads(said.read_text(encoding="utf-8"))
        if found["job"] == text:
            return report_of(folder, found)
    # of other inputs, or unfinished: half a run would say half its seconds
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(text, encoding="utf-8")
    command = [sys.executable, __file__, str(folder / "job.json")]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if ended.returncode:
        raise SystemExit(f"{folder}: the run ended with {ended.returncode}; its message is above")
    return report_of(folder, json.loads(said.read_text(encoding="utf-8")))


def report_of(folder: Path, found: dict[str, Any]) -> Report:
    """A report from its file."""
    return Report(folder=folder / "run", **{k: v for k, v in found.items() if k != "job"})


def carry_out(path: Path) -> None:
    """Run a job in this process and write its report."""
    from saccade.jobs.driver import run
    from saccade.jobs.options import RunOptions
    from saccade.pipeline.recipe import Recipe

    text = path.read_text(encoding="utf-8")
    job = Job(**json.loads(text))
    manifest = path.with_name("images.jsonl")
    write_manifest(manifest, job.images)
    since, busy = time.perf_counter(), time.process_time()
    summary = run(
        Recipe.model_validate(job.recipe),
        [str(manifest)],
        path.parent / "run",
        RunOptions(workers=job.workers),
        model_folder=Path(job.model_folder),
    )
    seconds, cpu_seconds = time.perf_counter() - since, time.process_time() - busy
    if summary.quarantined:
        raise SystemExit(f"images were set aside: {summary.quarantined}")
    images = summary.tally.images
    report = {
        "job": text,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_nbytes": high_water(),
        "pixels": {name: dict(one.pixels) for name, one in images.items()},
        "tiles": {
            name: {p: t.get("done", 0) + t.get("degraded", 0) for p, t in one.tiles.items()}
            for name, one in images.items()
        },
        "lanes": lanes_of([one.seconds for one in images.values()]),
    }
    partial = path.with_name(f".{REPORT}")
    partial.write_text(json.dumps(report), encoding="utf-8")
    partial.replace(path.with_name(REPORT))


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Images as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def lanes_of(images: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Busy seconds per pass and lane, summed over images."""
    total: dict[str, dict[str, float]] = {}
    for one in images:
        for name, lanes in one.items():
            into = total.setdefault(name, {})
            for lane, seconds in lanes.items():
                into[lane] = into.get(lane, 0.0) + seconds
    return total


def high_water(pid: int | None = None) -> int:
    """Most resident bytes of a process so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    carry_out(Path(sys.argv[1]))
