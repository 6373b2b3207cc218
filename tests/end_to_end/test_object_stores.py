"""Runs with images or results in an object store: the same bytes, whatever the network does."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from saccade.jobs import RunOptions, run
from saccade.pipeline import open_result
from saccade.pipeline.errors import ResumeRefused, StorageGone, StoreError, UsageError
from saccade.workers.tasks import ImageEntry

if TYPE_CHECKING:
    from object_server import Bucket

pytestmark = pytest.mark.slow

FAULTS = {"500": 0.05, "503": 0.05, "lost": 0.03, "reset": 0.05, "slow": 0.05, "stall": 0.01}
Start = Callable[..., subprocess.Popen[str]]
Saccade = Callable[..., subprocess.CompletedProcess[str]]


def stored(bucket: Bucket, below: str) -> dict[str, bytes]:
    """Every object below a key, by its key; without the one place that may differ between runs."""
    return {
        key.removeprefix(f"{below}/"): _without_timing(key, bucket.get(key))
        for key in bucket.keys(below)
    }


def _without_timing(key: str, data: bytes) -> bytes:
    if key.endswith(".ome.zarr/zarr.json"):
        tree = json.loads(data)
        tree["attributes"]["saccade"].pop("timing", None)
        return json.dumps(tree).encode()
    return data


def images(inputs: Path) -> tuple[Path, Path]:
    return inputs / "one.tif", inputs / "two.tif"


def test_results_in_an_object_store_have_the_bytes_of_local_ones(
    inputs: Path, expected: Mapping[str, bytes], saccade: Saccade, bucket: Bucket, tmp_path: Path
) -> None:
    place = f"{bucket.url}/study"
    arguments = ("run", inputs / "recipe.yaml", *images(inputs), "-o", tmp_path / "run")
    done = saccade(*arguments, "--results", place, "--workers", "local:1")
    assert done.returncode == 0, done.stderr
    assert place in done.stdout
    assert stored(bucket, "study") == expected
    assert not (tmp_path / "run" / "results").exists()
    of_run, direct = open_result(tmp_path / "run"), open_result(f"{place}/one.ome.zarr")
    assert of_run.images == open_result(place).images == ("one", "two")
    assert of_run["one"].passes["refine"].selection is not None
    np.testing.assert_array_equal(of_run["one"].fused[:, ::7, ::7], direct.fused[:, ::7, ::7])
    shown = saccade("show", tmp_path / "run")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "run" / "pictures" / "one.png").is_file()
    again = saccade(*arguments, "--workers", "local:1")
    assert again.returncode == 0, "without --results it goes on where they are"


def test_killed_at_any_request_and_resumed_it_ends_with_the_same_bytes(
    inputs: Path,
    expected: Mapping[str, bytes],
    saccade: Saccade,
    start_saccade: Start,
    bucket: Bucket,
    tmp_path: Path,
) -> None:
    arguments = ["run", inputs / "recipe.yaml", *images(inputs), "-o", tmp_path / "run"]
    arguments += ["--results", f"{bucket.url}/study", "--workers", "local:1"]
    for requests in (17, 41, 97):
        bucket.proxy.forget()
        process = start_saccade(*arguments)
        while process.poll() is None and bucket.proxy.requests["PUT"] < requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = saccade(*arguments)
    assert done.returncode == 0, done.stderr
    assert stored(bucket, "study") == expected


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    """Stalls are noticed soon."""
    monkeypatch.setattr("saccade.pipeline.remote_stores.SILENT_SECONDS", 3.0)
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "601")
    bucket.proxy.stall_seconds = 4.0


def entries(inputs: Path, bucket: Bucket) -> list[ImageEntry]:
    return [
        ImageEntry(path.stem, bucket.put(f"images/{path.name}", path)) for path in images(inputs)
    ]


def make(
    inputs: Path, what: list[ImageEntry], folder: Path, results: str | None = None
) -> tuple[str, ...]:
    options = RunOptions(workers="local:2", device="cpu", results=results)
    summary = run(inputs / "recipe.yaml", what, folder, options)
    assert not summary.quarantined
    return summary.complete


@pytest.mark.usefixtures("hasty")
def test_faults_on_the_way_change_no_byte(
    inputs: Path,
    results: Callable[[Path], dict[str, bytes]],
    bucket: Bucket,
    tmp_path: Path,
) -> None:
    what = entries(inputs, bucket)
    make(inputs, what, tmp_path / "calm")
    bucket.proxy.forget()
    bucket.proxy.rates = FAULTS
    make(inputs, what, tmp_path / "stormy", f"{bucket.url}/study")
    bucket.proxy.rates = {}
    assert bucket.proxy.injected.total() > 20
    assert stored(bucket, "study") == results(tmp_path / "calm")


def test_a_store_that_stays_dead_ends_the_run_with_its_name_and_the_run_resumes(
    inputs: Path, expected: Mapping[str, bytes], saccade: Saccade, bucket: Bucket, tmp_path: Path
) -> None:
    arguments = ["run", inputs / "recipe.yaml", *images(inputs), "-o", tmp_path / "run"]
    arguments += ["--results", f"{bucket.url}/study", "--workers", "local:1"]
    for requests in (0, 60):
        bucket.proxy.forget()
        bucket.proxy.dies_after = requests
        done = saccade(*arguments, env={"SACCADE_RETRY_SECONDS": "1"})
        assert done.returncode == 1
        assert bucket.url in done.stderr
        assert "run the same command" in done.stderr
        assert "Traceback" not in done.stderr
        bucket.proxy.dies_after, bucket.proxy.dead = None, False
    done = saccade(*arguments)
    assert done.returncode == 0, done.stderr
    assert stored(bucket, "study") == expected


def test_images_of_a_store_that_stays_dead_are_not_set_aside(
    inputs: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "1")
    what = entries(inputs, bucket)
    bucket.proxy.dies_after = 9
    with pytest.raises(StorageGone, match="does not answer"):
        make(inputs, what, tmp_path / "run")
    bucket.proxy.dies_after, bucket.proxy.dead = None, False
    assert make(inputs, what, tmp_path / "run") == ("one", "two")


def test_a_run_is_refused_over_an_object_that_was_replaced(
    inputs: Path, bucket: Bucket, tmp_path: Path
) -> None:
    what = entries(inputs, bucket)
    make(inputs, what, tmp_path / "run")
    make(inputs, what, tmp_path / "run")
    bucket.put("images/one.tif", inputs / "two.tif")
    with pytest.raises(ResumeRefused, match=r"one\.tif"):
        make(inputs, what, tmp_path / "run")


def test_what_is_wrong_with_the_place_of_results_is_said_before_work_starts(
    inputs: Path, bucket: Bucket, tmp_path: Path
) -> None:
    what = [ImageEntry("one", str(inputs / "one.tif"))]
    with pytest.raises(StoreError, match="no such bucket"):
        make(inputs, what, tmp_path / "a", "s3://no-such-bucket-at-all/x")
    with pytest.raises(UsageError, match="expected"):
        make(inputs, what, tmp_path / "b", "/some/path")
    bucket.proxy.forbidden = True
    with pytest.raises(StorageGone, match="no permission"):
        make(inputs, what, tmp_path / "c", f"{bucket.url}/study")
    bucket.proxy.forbidden = False
    make(inputs, what, tmp_path / "d", f"{bucket.url}/study")
    with pytest.raises(ResumeRefused, match="leave --results out"):
        make(inputs, what, tmp_path / "d", f"{bucket.url}/elsewhere")
