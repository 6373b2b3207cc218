"""The process ends at every step of the commit order; what is resumed is byte-identical.

Most deaths are simulated: from one write on, no thread of the run can write anything any more, and
the run unwinds. Some are real: SIGKILL, by the process itself, at the same places.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.journals import journal
from saccade.jobs.options import RunOptions
from saccade.pipeline.store_shelf import FileUpload, LocalShelf

OPTIONS = RunOptions(workers="local:1", device="cpu")
RECIPE = """\
passes:
  - {name: glance, resolution: {downsample: 8}, model: "builtin:tissue", tile: 16}
  - name: focus
    resolution: {downsample: 4}
    model: builtin:hematoxylin
    tile: 64
    select: {by: foreground, above: 0.3, share: 0.01}
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    tile: 128
    select: {by: top_fraction, fraction: 0.5}
output: {chunk: 128, shard: 256, keep: [refine]}
"""
MOMENTS = ("before", "halfway", "after")
SHARES = 5
"""Tests over which the many crash points are spread."""


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the run's own catches it for good."""


class Reaper:
    """Counts the writes of a run, and ends its life at one of them."""

    def __init__(self, at: int, moment: str) -> None:
        self.at, self.moment = at, moment
        self.count = 0
        self.dead = False
        self.log: list[str] = []

    def lives(self) -> str:
        """A write that does not count goes as usual, while anything does."""
        if self.dead:
            raise Killed
        return ""

    def meets(self, what: str) -> str:
        """What becomes of the next write: '' as usual, else the moment at which all ends."""
        self.lives()
        self.count += 1
        self.log.append(what)
        if self.count != self.at:
            return ""
        self.dead = True
        return self.moment


@contextmanager
def reaped(monkeypatch: pytest.MonkeyPatch, reaper: Reaper) -> Iterator[None]:
    """Send every write of shards, plans, metadata and journal past the reaper."""
    write, write_all, delete = FileUpload._write, journal._write_all, LocalShelf.delete
    replace, unlink = Path.replace, Path.unlink

    def reaped_write(upload: FileUpload, data: bytes) -> None:
        # what matters of a file that grows is that it is there, torn or whole
        moment = reaper.lives() if upload.begun else reaper.meets(f"fill {upload.path.name}")
        if moment == "before":
            raise Killed
        write(upload, data[: len(data) // 2] if moment == "halfway" else data)
        if moment:
            raise Killed

    def reaped_replace(path: Path, target: Path) -> Path:
        moment = reaper.meets(f"rename {target}")
        if moment == "before":
            raise Killed
        moved = replace(path, target)
        if moment:
            raise Killed
        return moved

    def reaped_unlink(path: Path, missing_ok: bool = False) -> None:
        # a process that is dead tidies nothing up
        if not reaper.dead:
            unlink(path, missing_ok)

    def reaped_delete(shelf: LocalShelf, key: str) -> None:
        moment = reaper.meets(f"delete {key}")
        if moment == "before":
            raise Killed
        delete(shelf, key)
        if moment:
            raise Killed

    def reaped_append(descriptor: int, data: bytes) -> None:
        moment = reaper.meets(f"journal {data[:60]!r}")
        if moment == "before":
            raise Killed
        write_all(descriptor, data[: len(data) // 2] if moment == "halfway" else data)
        if moment:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FileUpload, "_write", reaped_write)
        patch.setattr(LocalShelf, "delete", reaped_delete)
        patch.setattr(journal, "_write_all", reaped_append)
        patch.setattr(Path, "replace", reaped_replace)
        patch.setattr(Path, "unlink", reaped_unlink)
        yield


@pytest.fixture(scope="module")
def place(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash-points")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "two.tif").symlink_to(inputs / "two.tif")
    return folder


def go(place: Path, out: Path) -> None:
    summary = run(place / "recipe.yaml", [place / "two.tif"], out, OPTIONS)
    assert summary.complete == ("two",), summary.quarantined


@pytest.fixture(scope="module")
def undisturbed(place: Path, results: Callable[[Path], dict[str, bytes]]) -> dict[str, bytes]:
    go(place, place / "undisturbed")
    return results(place / "undisturbed")


@pytest.fixture(scope="module")
def writes(place: Path) -> list[str]:
    """Every write of an undisturbed run, in order."""
    counter = Reaper(at=0, moment="")
    with pytest.MonkeyPatch.context() as patch, reaped(patch, counter):
        go(place, place / "counted")
    return counter.log


def moments_of(write: str) -> tuple[str, ...]:
    """The moments that differ: after one write is before the next one."""
    if write.startswith("fill"):
        return ("halfway",)
    return ("halfway", "after") if write.startswith("journal") else ("after",)


def receipts_at_most_once(out: Path) -> bool:
    lines = [
        json.loads(line)
        for path in sorted((out / "journal").glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    units = [line["unit"] for line in lines if line["kind"] == "receipt"]
    return len(units) == len(set(units))


def die_and_resume(
    place: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    writes: list[str],
    at: int,
    moment: str,
) -> None:
    reaper = Reaper(at, moment)
    with reaped(monkeypatch, reaper):
        try:
            go(place, out)
        except Killed:
            pass
        except AssertionError as error:
            # the reaper came between the last write and the end
            raise AssertionError(f"outlived its death at {reaper.log[-1]}") from error
    # receipts that come together are written together: the last writes may not be reached
    assert reaper.dead or at > len(writes) * 0.8
    go(place, out)


def test_the_commit_order_is_shards_then_receipt_and_metadata_before_the_last_receipt(
    writes: list[str],
) -> None:
    kinds = [
        "shard" if "/c/" in write else "journal" if write.startswith("journal") else "other"
        for write in writes
        if not write.startswith("fill")
    ]
    last_shard = max(i for i, kind in enumerate(kinds) if kind == "shard")
    assert {"shard", "journal"} <= set(kinds[:last_shard])
    renames = [write for write in writes if write.startswith(("rename", "journal"))]
    root = max(i for i, write in enumerate(renames) if write.endswith("two.ome.zarr/zarr.json"))
    assert not any("/c/" in write for write in renames[root:])
    assert [w for w in renames[root:] if "receipt" in w]


def test_a_run_that_dies_at_some_writes_resumes_to_the_same_bytes(
    place: Path,
    writes: list[str],
    undisturbed: dict[str, bytes],
    results: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for index, at in enumerate(range(2, len(writes), 41)):
        moment = MOMENTS[index % 3]
        out = tmp_path / f"{at}-{moment}"
        die_and_resume(place, out, monkeypatch, writes, at, moment)
        assert results(out) == undisturbed, (at, moment, writes[at - 1])
        assert receipts_at_most_once(out)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(SHARES))
def test_a_run_that_dies_at_any_write_resumes_to_the_same_bytes(
    start: int,
    place: Path,
    writes: list[str],
    undisturbed: dict[str, bytes],
    results: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for at in range(start + 1, len(writes), SHARES):
        for moment in moments_of(writes[at - 1]):
            out = tmp_path / f"{at}-{moment}"
            die_and_resume(place, out, monkeypatch, writes, at, moment)
            assert results(out) == undisturbed, (at, moment, writes[at - 1])
            assert receipts_at_most_once(out)


def test_a_run_that_dies_again_and_again_resumes_to_the_same_bytes(
    place: Path,
    undisturbed: dict[str, bytes],
    results: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every life is 97 writes long, so that most units are begun more than once."""
    lives = 0
    alive = True
    while alive:
        lives += 1
        assert lives < 100, "no life gets further than the one before it"
        reaper = Reaper(97, "after")
        with reaped(monkeypatch, reaper):
            try:
                go(place, tmp_path)
            except Killed:
                continue
        alive = reaper.dead
    assert lives > 2
    assert results(tmp_path) == undisturbed


SUICIDE = """
import os, signal, sys
from saccade.jobs.journals import journal
from saccade.jobs.cli import main
from saccade.pipeline.store_shelf import FileUpload

what, at = sys.argv[1], int(sys.argv[2])
count = 0

def deadly(function, moment):
    def call(*arguments):
        global count
        count += 1
        if moment == "before" and count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = function(*arguments)
        if moment == "after" and count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

moment, _, target = what.partition(" ")
if target == "put":
    FileUpload.commit = deadly(FileUpload.commit, moment)
else:
    journal.Journal.append = deadly(journal.Journal.append, moment)
sys.argv = ["saccade", *sys.argv[3:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("before put", 5),
        ("after put", 23),
        ("before put", 61),
        ("before append", 2),
        ("after append", 3),
        ("after append", 11),
    ],
)
def test_a_process_killed_at_a_write_resumes_to_the_same_bytes(
    what: str,
    at: int,
    place: Path,
    undisturbed: dict[str, bytes],
    results: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    command = ["run", "recipe.yaml", "two.tif", "-o", str(tmp_path), "--workers", "local:1"]
    died = subprocess.run(
        [sys.executable, "-c", SUICIDE, what, str(at), *command],
        cwd=place,
        env=dict(os.environ),
        capture_output=True,
        timeout=300,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    go(place, tmp_path)
    assert results(tmp_path) == undisturbed
