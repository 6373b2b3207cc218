"""Damage in the run's folder or in an image: a tile costs a tile, an image costs an image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from saccade.jobs.driver import RunSummary, run
from saccade.jobs.journals.journal import Journal
from saccade.jobs.options import RunOptions
from saccade.pipeline.result import open_result

Results = Callable[[Path], dict[str, bytes]]
OPTIONS = RunOptions(workers="local:1", device="cpu")
KINDS = ("quarantined", "complete")


def go(inputs: Path, out: Path, *images: Path) -> RunSummary:
    return run(inputs / "recipe.yaml", images or [inputs / "two.tif"], out, OPTIONS)


def of_two(expected: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in expected.items() if path.startswith("two.")}


def interrupted_after(inputs: Path, out: Path, shard: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that stopped, and was not closed, right after it put the first shard of an array."""
    from saccade.pipeline.store_shelf import FileUpload

    class Stop(BaseException):
        pass

    commit, append = FileUpload.commit, Journal.append
    stopped: list[Path] = []

    def stopping_commit(upload: FileUpload) -> None:
        if stopped:
            raise Stop
        commit(upload)
        if f".ome.zarr/{shard}" in upload.path.as_posix():
            stopped.append(upload.path)
            raise Stop

    def stopping_append(journal: Journal, records: object) -> None:
        if stopped:
            raise Stop
        append(journal, records)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(FileUpload, "commit", stopping_commit)
        patch.setattr(Journal, "append", stopping_append)
        with pytest.raises(Stop):
            go(inputs, out)
    return stopped[0]


# -------------------------------------------------------------------------------- the run's folder


def test_a_torn_shard_is_written_again(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = interrupted_after(inputs, tmp_path, "passes/refine/scores/c/", monkeypatch)
    os.truncate(shard, shard.stat().st_size // 2)
    go(inputs, tmp_path)
    assert results(tmp_path) == of_two(expected)


def test_what_killed_writers_left_is_swept(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = interrupted_after(inputs, tmp_path, "passes/refine/scores/c/", monkeypatch)
    shard.with_name(f"{shard.name}.0123456789abcdef.partial").write_bytes(b"half a sha")
    go(inputs, tmp_path)
    assert results(tmp_path) == of_two(expected)


def test_a_torn_last_line_of_the_journal_is_ignored(
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted_after(inputs, tmp_path, "passes/refine/scores/c/", monkeypatch)
    journal = tmp_path / "journal" / "000001.jsonl"
    os.truncate(journal, journal.stat().st_size - 7)
    go(inputs, tmp_path)
    assert results(tmp_path) == of_two(expected)


def test_receipts_that_are_cut_off_the_journal_cost_only_their_units(
    inputs: Path, expected: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    go(inputs, tmp_path)
    journal = tmp_path / "journal" / "000001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) * 2 // 3]))
    go(inputs, tmp_path)
    assert results(tmp_path) == of_two(expected)


def test_an_empty_epoch_of_a_driver_that_died_at_once_changes_nothing(
    inputs: Path, expected: dict[str, bytes], results: Results, tmp_path: Path
) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "000001.jsonl").write_bytes(b"")
    go(inputs, tmp_path)
    assert results(tmp_path) == of_two(expected)
    assert (tmp_path / "journal" / "000002.jsonl").exists()


# ---------------------------------------------------------------------------------------- one tile


def write_slide(path: Path, pixels: np.ndarray) -> Path:
    """A tiled JPEG TIFF with two levels."""
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate((pixels, pixels[::4, ::4])):
            tiff.write(
                np.ascontiguousarray(level),
                tile=(128, 128),
                compression="jpeg",
                photometric="rgb",
                subfiletype=int(index > 0),
                subifds=None,
            )
    return path


def destroy_tile(path: Path, index: int) -> None:
    """Overwrite the data of one tile of level 0; its header included, so that it can't decode."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, nbytes = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x5a" * nbytes)


@pytest.fixture
def damaged(tissue: Callable[[int, int, int], np.ndarray], tmp_path: Path) -> Path:
    """A slide of 8 by 10 tiles of which one, in row 3 and column 4, is destroyed."""
    slide = write_slide(tmp_path / "damaged.tif", tissue(1024, 1280, 13))
    destroy_tile(slide, 3 * 10 + 4)
    return slide


DENSE = """
passes:
  - {name: glance, resolution: {downsample: 4}, model: "builtin:tissue", tile: 32}
  - {name: fine, resolution: {downsample: 1}, model: "builtin:hematoxylin", tile: 128}
output: {chunk: 128, shard: 256}
"""


def test_a_destroyed_tile_costs_that_tile_and_nothing_else(
    damaged: Path,
    inputs: Path,
    results: Results,
    tmp_path: Path,
    saccade: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    (tmp_path / "dense.yaml").write_text(DENSE)
    out = tmp_path / "run"
    both = run(tmp_path / "dense.yaml", [damaged, inputs / "two.tif"], out, OPTIONS)
    assert set(both.complete) == {"damaged", "two"}
    fine = both.tally.images["damaged"].tiles["fine"]
    assert (fine["failed"], fine["done"] + fine["degraded"]) == (1, 79)
    assert fine["degraded"] >= 1

    told = json.loads(saccade("status", out, "--json").stdout)["by_image"]["damaged"]
    assert told["tiles"]["fine"]["failed"] == 1
    assert any("damaged.tif" in reason for reason in told["errors"])

    result = open_result(out / "results" / "damaged.ome.zarr")
    coverage = np.asarray(result.coverage)
    assert coverage[3, 4] == 1
    assert (np.delete(coverage.ravel(), 34) == 2).all()

    alone = tmp_path / "alone"
    run(tmp_path / "dense.yaml", [inputs / "two.tif"], alone, OPTIONS)
    assert of_two(results(out)) == results(alone)


def test_an_image_with_too_many_bad_tiles_is_set_aside_and_says_so(
    damaged: Path, inputs: Path, tmp_path: Path
) -> None:
    for index in range(20, 30):
        destroy_tile(damaged, index)
    (tmp_path / "dense.yaml").write_text(DENSE)
    both = run(tmp_path / "dense.yaml", [damaged, inputs / "two.tif"], tmp_path / "run", OPTIONS)
    assert both.complete == ("two",)
    assert "11 of 80 tiles" in both.quarantined["damaged"]
    assert "max_bad_tiles" in both.quarantined["damaged"]


# --------------------------------------------------------------------------------------- one image


def test_each_broken_file_is_set_aside_with_its_reason_and_the_others_complete(
    data: Path,
    inputs: Path,
    expected: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    saccade: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    broken = sorted((data / "broken").iterdir())
    images = [*broken, inputs / "two.tif"]
    done = saccade("run", inputs / "recipe.yaml", *images, "-o", tmp_path, "--workers", "local:1")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(saccade("status", tmp_path, "--json").stdout)["by_image"]
    for path in broken:
        assert told[path.stem]["state"] == "quarantined"
        assert f"set aside: {path.stem}: " in done.stderr
        assert path.name in told[path.stem]["reason"]
    assert of_two(results(tmp_path)) == of_two(expected)


def test_an_image_that_vanishes_is_set_aside_and_the_others_complete(
    inputs: Path, make_image: Callable[..., Path], tmp_path: Path
) -> None:
    vanishing = make_image(tmp_path / "vanishing.tif", 310, 410, seed=3)

    def vanish(tally: object, over: bool) -> None:
        vanishing.unlink(missing_ok=True)

    images = [vanishing, inputs / "two.tif"]
    both = run(inputs / "recipe.yaml", images, tmp_path / "run", OPTIONS, observe=vanish)
    assert both.complete == ("two",)
    assert "the file was removed" in both.quarantined["vanishing"]
