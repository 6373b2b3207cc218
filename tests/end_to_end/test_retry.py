"""`saccade retry`: a run's own folder is enough to begin again what was set aside."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from saccade.jobs.quarantine import failed_images

Saccade = Callable[..., "subprocess.CompletedProcess[str]"]
LOCAL = ("--workers", "local:1")


def test_images_that_were_mended_are_completed_and_the_others_set_aside_again(
    inputs: Path,
    expected: dict[str, bytes],
    results: Callable[[Path], dict[str, bytes]],
    saccade: Saccade,
    tmp_path: Path,
) -> None:
    for name in ("one.tif", "two.tif"):
        (tmp_path / name).write_bytes(b"II*\0no")
    shutil.copy(inputs / "recipe.yaml", tmp_path)
    images = tmp_path / "one.tif", tmp_path / "two.tif"
    folder = tmp_path / "run"
    first = saccade("run", tmp_path / "recipe.yaml", *images, "-o", folder, *LOCAL)
    assert first.returncode == 3
    assert f"saccade retry {folder}" in first.stderr
    shutil.copy(inputs / "one.tif", tmp_path)
    second = saccade("retry", folder, *LOCAL)
    assert second.returncode == 3
    assert [(image.name, image.times) for image in failed_images(folder)] == [("two", 2)]
    named = saccade("retry", folder, "one", *LOCAL)
    assert named.returncode == 2
    assert "not set aside: one; set aside are two" in named.stderr
    shutil.copy(inputs / "two.tif", tmp_path)
    third = saccade("retry", folder, "two", *LOCAL)
    assert third.returncode == 0, third.stderr
    assert results(folder).keys() == expected.keys()
    nothing = saccade("retry", folder, *LOCAL)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert "no image" in nothing.stdout
