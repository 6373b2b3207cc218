"""Retrying: a run's own folder is enough to begin again what was set aside."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.jobs.driver import run
from saccade.jobs.monitoring.status import read_tally
from saccade.jobs.options import RunOptions
from saccade.jobs.quarantine import failed_images
from saccade.jobs.retrying import what_to_retry
from saccade.pipeline.errors import UsageError

LOCAL = RunOptions("local:1", device="cpu")
AGAIN = RunOptions("local:1", device="cpu", retry=True)


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    """A run of two images, both damaged and set aside, that lie beside their recipe."""
    for name in ("one.tif", "two.tif"):
        (tmp_path / name).write_bytes(b"II*\0no")
    shutil.copy(inputs / "recipe.yaml", tmp_path)
    images = [tmp_path / "one.tif", tmp_path / "two.tif"]
    summary = run(tmp_path / "recipe.yaml", images, tmp_path / "run", LOCAL)
    assert list(summary.quarantined) == ["one", "two"]
    return tmp_path / "run"


def test_what_was_mended_is_completed_and_the_rest_set_aside_again(
    inputs: Path, folder: Path
) -> None:
    shutil.copy(inputs / "one.tif", folder.parent)
    again = what_to_retry(folder, ())
    assert list(again.images.listed()) == ["one", "two"]
    assert again.model_folder == folder.parent
    summary = run(again.recipe, again.images, folder, AGAIN, model_folder=again.model_folder)
    assert summary.complete == ("one",)
    assert [(image.name, image.times) for image in failed_images(folder)] == [("two", 2)]
    with pytest.raises(UsageError, match="not set aside: one; set aside are two"):
        what_to_retry(folder, ["one"])


def test_the_command_needs_nothing_but_the_folder(
    inputs: Path, folder: Path, saccade: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shutil.copy(inputs / "two.tif", folder.parent)
    done = saccade("retry", folder, "two", "--workers", "local:1")
    assert done.returncode == 0, done.stderr
    tally = read_tally(folder)
    assert [tally.state(name) for name in ("one", "two")] == ["quarantined", "complete"]
