"""The disk that holds the run is full: a clear message, nothing lost, the same command goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.errors import StorageFull
from saccade.pipeline.store_shelf import FileUpload

Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
Results = Callable[[Path], dict[str, bytes]]


def mount(folder: Path, size_kib: int, *, again: bool = False) -> bool:
    options = f"{'remount,' if again else ''}size={size_kib}k"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, 600):
        pytest.skip("a small file system can't be mounted here (needs root and tmpfs)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_exits_1_and_with_more_space_the_same_command_completes(
    small_disk: Path,
    inputs: Path,
    saccade: Saccade,
    expected: dict[str, bytes],
    results: Results,
) -> None:
    images = inputs / "one.tif", inputs / "two.tif"
    command = ("run", inputs / "recipe.yaml", *images, "-o", small_disk / "run")
    full = saccade(*command, "--workers", "local:1")
    assert full.returncode == 1, full.stdout + full.stderr
    assert "space" in full.stderr
    assert "Traceback" not in full.stderr
    assert mount(small_disk, 65536, again=True)
    done = saccade(*command, "--workers", "local:1")
    assert done.returncode == 0, done.stderr
    assert results(small_disk / "run") == expected


def test_a_disk_that_is_full_from_the_start_is_named(
    small_disk: Path, inputs: Path, saccade: Saccade
) -> None:
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"\0" * free.f_bavail * free.f_frsize)
    images = inputs / "one.tif", inputs / "two.tif"
    out = small_disk / "run"
    done = saccade("run", inputs / "recipe.yaml", *images, "-o", out, "--workers", "local:1")
    assert done.returncode == 1
    assert "space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_unit_is_charged_when_the_disk_is_full(
    number: int,
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = FileUpload._opened

    def full(upload: FileUpload) -> FileIO:
        if "/passes/refine/scores/c" in str(upload.path):
            raise OSError(number, os.strerror(number))
        return opened(upload)

    images = [inputs / "one.tif", inputs / "two.tif"]
    options = RunOptions(workers="local:1", device="cpu")
    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(FileUpload, "_opened", full)
            with pytest.raises(StorageFull, match="space"):
                run(inputs / "recipe.yaml", images, tmp_path, options)
    assert run(inputs / "recipe.yaml", images, tmp_path, options).complete == ("one", "two")
    assert results(tmp_path) == expected
