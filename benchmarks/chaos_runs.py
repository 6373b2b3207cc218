"""Runs that are begun again until they end, and what became of every image of theirs.

Starts ``saccade`` with the interpreter at hand, kills it by progress of the journal (no machine is
too slow to get anywhere), and reads the run's folder as a user would.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ray_actors import actors_below

FAULTY = Path(__file__).with_name("chaos_faulty.py")
SILENT_SECONDS = 240.0
"""A run that writes nothing to its journal for so long hangs."""
MOST_LIVES = 60
RECIPE = """\
passes:
  - {name: glance, resolution: {downsample: 4}, model: "builtin:tissue", tile: 16}
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    tile: 64
    select: {by: top_fraction, fraction: 0.5}
output: {chunk: 128, shard: 256}
max_bad_tiles: 0.5
"""
ANY_CHANNELS = RECIPE.replace("builtin:hematoxylin", "builtin:tissue")
"""The same for images of any number of channels: none is set aside for having one."""
Kill = Callable[[subprocess.Popen[str]], bool]
"""Does its harm to a run that is going on; False where nothing was there to be harmed."""


@dataclass
class Ended:
    """How a run ended, and what it took."""

    code: int = 0
    """The last exit code."""
    lives: int = 0
    """Processes that it took."""
    kills: int = 0
    """Times that it was harmed by us."""
    crashes: list[str] = field(default_factory=list)
    """Lives that ended by a signal that was not ours."""
    hangs: int = 0
    """Lives that wrote nothing for too long, and were ended."""
    seconds: float = 0.0
    """All lives together."""
    said: str = ""
    """The last words on standard error."""
    injected: int = 0
    """Faults that happened inside, of reads, writes and batches."""

    @property
    def well(self) -> bool:
        """Whether it ended by itself, without a crash, and said 0 or 3."""
        return self.code in (0, 3) and not self.crashes and not self.hangs


@dataclass(frozen=True)
class Trial:
    """One run folder and the command that fills it."""

    root: Path
    """Holds the run, its recipe and its list of images."""
    images: Sequence[Path]
    """Arguments that name images: files or manifests."""
    workers: str = "local:1"
    """As on the command line."""
    faults: dict[str, float] = field(default_factory=dict)
    """Of the surroundings, as ``chaos_faulty`` knows them."""
    extra: tuple[str, ...] = ()
    """More of the command line."""
    text: str = RECIPE
    """The recipe."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.root / "run"

    def start(self) -> subprocess.Popen[str]:
        """The command, in a process group of its own; words go to a file that never blocks."""
        recipe = self.root / "recipe.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(self.text)
        line = [sys.executable, str(FAULTY), json.dumps(self.faults), "run", str(recipe)]
        line += [*map(str, self.images), "-o", str(self.run), "--workers", self.workers]
        counted = {"CHAOS_COUNT": str(self.root / "injected"), "NO_COLOR": "1"}
        with (self.root / "said.txt").open("w") as said:
            return subprocess.Popen(
                [*line, "--skip-missing", *self.extra],
                stdout=subprocess.DEVNULL,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **counted},
                start_new_session=True,
            )

    def journal_nbytes(self) -> int:
        """How far it is, in a number that only grows."""
        return sum(path.stat().st_size for path in (self.run / "journal").rglob("*.jsonl"))


def live(
    trial: Trial,
    kill: Kill | None = None,
    most_kills: int = 0,
    every_nbytes: int = 20_000,
    seed: int = 1,
) -> Ended:
    """Run to the end, with kills on the way."""
    ended, chance, since = Ended(), random.Random(seed), time.monotonic()
    while ended.lives < MOST_LIVES:
        process = trial.start()
        ended.lives += 1
        ours = False
        while not ours and ended.kills < most_kills and kill is not None:
            if not _advance(trial, process, chance.randrange(every_nbytes // 4, every_nbytes)):
                break
            if kill(process):
                ended.kills += 1
                ours = _gone(process)
        ours = ours or not _advance_to_end(trial, process, ended)
        _read_end(trial, process, ended, ours)
        if not ours and process.returncode >= 0:
            break
    ended.seconds = time.monotonic() - since
    return ended


def _advance(trial: Trial, process: subprocess.Popen[str], more_nbytes: int) -> bool:
    """Until so much more is in the journal; False where the run ended or fell silent first."""
    goal, last, moved = trial.journal_nbytes() + more_nbytes, -1, time.monotonic()
    while process.poll() is None:
        found = trial.journal_nbytes()
        if found >= goal:
            return True
        if found != last:
            last, moved = found, time.monotonic()
        if time.monotonic() - moved > SILENT_SECONDS:
            return False
        time.sleep(0.02)
    return False


def _advance_to_end(trial: Trial, process: subprocess.Popen[str], ended: Ended) -> bool:
    """Wait for the end; False where there was none and it was ended as hanging."""
    while process.poll() is None:
        if not _advance(trial, process, 1) and process.poll() is None:
            ended.hangs += 1
            kill_driver(process)
            return False
    return True


def _gone(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return False
    return process.returncode == -signal.SIGKILL


def _read_end(trial: Trial, process: subprocess.Popen[str], ended: Ended, ours: bool) -> None:
    process.wait()
    ended.code = process.returncode
    ended.said = (trial.root / "said.txt").read_text()[-1500:]
    if ended.code < 0 and not ours:
        ended.crashes.append(signal.Signals(-ended.code).name)
    if ended.hangs > 2:
        ended.lives = MOST_LIVES
    counted = trial.root / "injected"
    if counted.exists():
        ended.injected = sum(map(int, counted.read_text().split()))


def kill_driver(process: subprocess.Popen[str]) -> bool:
    """SIGKILL to the driver's process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def kill_an_actor(chance: random.Random) -> Kill:
    """SIGKILL to one of the Ray actors below the driver."""

    def kill(process: subprocess.Popen[str]) -> bool:
        actors = actors_below(process.pid)
        if actors:
            os.kill(chance.choice(actors), signal.SIGKILL)
        return bool(actors)

    return kill


# ---------------------------------------------------------------------------------- what came of it


def told(trial: Trial) -> dict[str, dict[str, object]]:
    """What ``saccade status --json`` says of every image."""
    line = [sys.executable, "-c", "from saccade.jobs.cli import main; main()"]
    line += ["status", str(trial.run), "--json"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    by_image: dict[str, dict[str, object]] = json.loads(said)["by_image"]
    return by_image


def skipped(trial: Trial) -> str:
    """What the run recorded as listed and gone on without, one a line: where, and why."""
    path = trial.run / "skipped.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return "\n".join("{where}: {why}".format(**json.loads(line)) for line in lines)


def digest(result: Path) -> str:
    """Of every file of an image's result, without the one place that may differ between runs."""
    total = hashlib.sha256()
    for path in sorted(path for path in result.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path == result / "zarr.json":
            tree = json.loads(data)
            tree["attributes"]["saccade"].pop("timing", None)
            data = json.dumps(tree).encode()
        total.update(f"{path.relative_to(result).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()


def digests(trial: Trial) -> dict[str, str]:
    """By image, of all results."""
    results = sorted((trial.run / "results").glob("*.ome.zarr"))
    return {path.name.removesuffix(".ome.zarr"): digest(path) for path in results}


def nbytes_of(trial: Trial) -> int:
    """Bytes of all results."""
    files = (trial.run / "results").rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def peak_mib() -> float:
    """The most that any child of ours held so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def small_disk(folder: Path, size_kib: int, *, again: bool = False) -> bool:
    """Mount, or resize, a file system of its own; False where that isn't allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"{'remount,' if again else ''}size={size_kib}k"
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: what is measured is not the disk."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=shm if shm.is_dir() else None) as name:
        yield Path(name)
