"""A worker with nothing to do helps another: the bytes stay, whoever dies, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fakes import noise, pass_of, several_passes

from saccade.jobs.driver import run
from saccade.jobs.journals.replay import read_records
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe import Recipe
from saccade.workers.dispatch import Dispatcher
from saccade.workers.folder import RunFolder
from saccade.workers.helping import NO_HELP, HelpRule

Results = Callable[[Path], dict[str, bytes]]
TILE, ROWS, COLUMNS = 16, 5, 6
AT_ONCE = HelpRule(least_seconds=0, fewest_parts=0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """One unit of thirty batches; its first window waits for help, its 27th may kill."""
    pixels = noise(ROWS * TILE, COLUMNS * TILE)
    pixels[0, 0] = 255, 0, 255
    pixels[4 * TILE, 2 * TILE] = 0, 255, 255
    tifffile.imwrite(tmp_path / "one.tif", pixels, tile=(32, 32), photometric="rgb")
    return tmp_path / "one.tif"


def made(
    folder: Path, image: Path, models: Path, workers: str, options: dict[str, Any]
) -> dict[str, Any]:
    """The receipt of the only sweep of a run."""
    details = {"tile": TILE, "window": TILE, "batch": 1}
    one = pass_of("dense", "waits_for_help", 1, options=options, **details)
    tree = several_passes([one], chunk=128, shard=128)
    how = RunOptions(workers=workers, device="cpu")
    summary = run(Recipe.model_validate(tree), [image], folder, how, model_folder=models)
    assert len(summary.complete) == 1, summary.quarantined
    records = read_records(RunFolder(folder).journal)
    (receipt,) = [r for r in records if r["kind"] == "receipt" and "pass" in r]
    return dict(receipt)


def chunks(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without metadata, in which the recipe stands."""
    return {name: data for name, data in found.items() if not name.endswith("zarr.json")}


@pytest.fixture
def reference(tmp_path: Path, image: Path, model_folder: Path, results: Results) -> dict[str, Any]:
    receipt = made(tmp_path / "alone", image, model_folder, "local:1", {})
    assert receipt["helped"] == 0
    return {"chunks": chunks(results(tmp_path / "alone")), "receipt": receipt}


def use_rule(patch: pytest.MonkeyPatch, rule: HelpRule) -> None:
    patch.setattr("saccade.jobs.driver.Dispatcher", partial(Dispatcher, help_rule=rule))


@pytest.mark.parametrize(
    ("workers", "dies"),
    [
        ("local:2", ""),
        pytest.param("ray:2", "", marks=pytest.mark.slow),
        pytest.param("ray:2", "owner", marks=pytest.mark.slow),
        pytest.param("ray:2", "helper", marks=pytest.mark.slow),
    ],
)
def test_a_run_with_help_gives_the_bytes_of_one_without(
    workers: str,
    dies: str,
    tmp_path: Path,
    image: Path,
    model_folder: Path,
    results: Results,
    reference: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_rule(monkeypatch, AT_ONCE)
    folder = tmp_path / "runs" / "helped"
    options = {"folder": str(tmp_path / "runs"), "dies": dies}
    receipt = made(folder, image, model_folder, workers, options)
    assert (tmp_path / "runs" / "died").exists() == bool(dies)
    assert receipt["helped"] > 0
    for word in ("keys", "tiles", "pixels", "read_nbytes", "errors"):
        assert receipt[word] == reference["receipt"][word], word
    assert chunks(results(folder)) == reference["chunks"]
    assert not (folder / "scratch").exists()


def test_what_lies_in_scratch_when_a_run_goes_on_is_swept_before_it_could_be_taken(
    tmp_path: Path,
    image: Path,
    model_folder: Path,
    results: Results,
    reference: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_rule(monkeypatch, NO_HELP)
    stale = RunFolder(tmp_path / "again").scratch("one", "unit")
    stale.mkdir(parents=True)
    (stale / "0.npz").write_bytes(np.random.default_rng(3).bytes(99))
    assert made(tmp_path / "again", image, model_folder, "local:1", {})["helped"] == 0
    assert chunks(results(tmp_path / "again")) == reference["chunks"]
    assert not (tmp_path / "again" / "scratch").exists()
