"""Opening a run's folder: what is the same, what begins anew, what a crash is charged to."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from saccade.jobs import workforce
from saccade.jobs.driver import RunSummary, run
from saccade.jobs.folders import open_run
from saccade.jobs.journals.evidence import crash_log, crash_logged
from saccade.jobs.journals.journal import Journal, read_records
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.options import RunOptions
from saccade.jobs.resuming import Asked, changed_rows
from saccade.pipeline.errors import ResumeRefused, StoreError
from saccade.pipeline.recipe import Recipe
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

LOCAL = RunOptions(workers="local:1", device="cpu")
Begun = Callable[..., "set[str]"]


def recipe(tile: int = 64) -> Recipe:
    one = {"name": "one", "resolution": {"downsample": 1}, "model": "builtin:tissue", "tile": tile}
    return Recipe.model_validate({"passes": [one], "output": {"chunk": 64, "shard": 64}})


def write_image(path: Path, seed: int, side: int = 130) -> ImageEntry:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side + 7, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    return ImageEntry(path.stem, str(path))


@pytest.fixture
def images(tmp_path: Path) -> list[ImageEntry]:
    return [write_image(tmp_path / f"{name}.tif", seed) for seed, name in enumerate("ab", 3)]


def go(folder: Path, images: Sequence[ImageEntry], tile: int = 64, **options: Any) -> RunSummary:
    return run(recipe(tile), images, folder, RunOptions("local:1", device="cpu", **options))


def left_to_do(folder: Path, images: Sequence[ImageEntry], **options: Any) -> set[str]:
    """Names of the images that a driver would take up now."""
    chosen = RunOptions("local:1", device="cpu", **options)
    with open_run(folder, recipe(), folder, images, chosen) as opened:
        return {entry.name for entry in opened.unfinished}


# ---------------------------------------------------------------------------- is it the same run?


def test_a_complete_run_has_nothing_left_to_do(tmp_path: Path, images: list[ImageEntry]) -> None:
    assert go(tmp_path / "run", images).complete == ("a", "b")
    assert left_to_do(tmp_path / "run", images) == set()


def test_images_can_be_added_and_the_others_stay(tmp_path: Path, images: list[ImageEntry]) -> None:
    folder = tmp_path / "run"
    go(folder, images[:1])
    assert left_to_do(folder, images) == {"b"}
    go(folder, images[1:])
    listed = (folder / "images.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in listed] == ["a", "b"]


def test_another_recipe_is_refused_once_something_was_made(
    tmp_path: Path, images: list[ImageEntry]
) -> None:
    go(tmp_path / "run", images)
    with pytest.raises(ResumeRefused, match=r"passes\[0\].tile: 64 -> 32"):
        go(tmp_path / "run", images, tile=32)
    assert go(tmp_path / "run", images, tile=32, force=True).complete == ("a", "b")


def test_a_refused_run_is_left_as_it_was(tmp_path: Path, images: list[ImageEntry]) -> None:
    folder = tmp_path / "run"
    go(folder, images)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ResumeRefused):
        go(folder, images, tile=32)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda path: write_image(path, 3, side=200), "bytes"),
        (lambda path: write_image(path, 4), "modified"),
        (lambda path: path.unlink(), "can't be read"),
    ],
)
def test_an_image_that_changed_is_refused_and_only_that_one_begins_anew(
    change: Callable[[Path], object], hint: str, tmp_path: Path, images: list[ImageEntry]
) -> None:
    folder = tmp_path / "run"
    go(folder, images)
    change(Path(images[0].uri))
    with pytest.raises(ResumeRefused, match=hint):
        go(folder, images)
    assert left_to_do(folder, images, force=True) == {"a"}


def test_another_pixel_size_is_refused_with_both(tmp_path: Path, images: list[ImageEntry]) -> None:
    folder = tmp_path / "run"
    go(folder, images)
    sized = [ImageEntry(images[0].name, images[0].uri, mpp=0.25), images[1]]
    with pytest.raises(ResumeRefused, match=r"mpp was not given, is 0\.25"):
        go(folder, sized)


def test_an_image_set_aside_begins_anew_with_retry_or_when_its_row_changed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (tmp_path / "x.tif").write_bytes(b"II*\0no")
    entry = ImageEntry("x", str(tmp_path / "x.tif"))
    assert list(go(folder, [entry]).quarantined) == ["x"]
    assert left_to_do(folder, [entry]) == set()
    assert left_to_do(folder, [entry], retry=True) == {"x"}
    go(folder, [entry])
    assert left_to_do(folder, [ImageEntry("x", entry.uri, mpp=0.5)]) == {"x"}


def test_a_file_of_a_row_under_another_of_its_names_is_the_same_file() -> None:
    def changed(then: str, now: str) -> dict[str, str]:
        rows = [Catalogue.spooled([ImageEntry("x", "/x.tif", overrides={"mask": mask})])
                for mask in (now, then)]  # fmt: skip
        return changed_rows(Asked(rows[0], rows[1], RunOptions()))

    assert changed("/lists/../masks/x.png", "/masks/x.png") == {}
    assert [*changed("/lists/../masks/x.png", "/masks/y.png")] == ["x"]


def test_a_restart_that_was_cut_short_is_done_again(
    tmp_path: Path, images: list[ImageEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the record and the removal: the old result must not stay in the way."""
    folder = tmp_path / "run"
    go(folder, images)
    write_image(Path(images[0].uri), 4, side=200)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("saccade.pipeline.store.shutil.rmtree", killed)
        with pytest.raises(Killed):
            go(folder, images, force=True)
    assert (folder / "results" / "a.ome.zarr").exists()
    assert go(folder, images).complete == ("a", "b")


# ------------------------------------------------------------------------------ evidence of a crash


def died(folder: Path, units: Sequence[str], stack: str) -> None:
    """A driver that died with units in flight, and left this in its crash log."""
    journal = Journal.open(folder / "journal")
    for unit in units:
        journal.note({"kind": "started", "image": "a", "unit": unit})
    log = crash_log(RunFolder(folder), journal.epoch)
    log.parent.mkdir(exist_ok=True)
    log.write_text(stack)
    # without the mark of a good end, as if killed
    journal._release()


def charged(folder: Path) -> list[str]:
    return [r["unit"] for r in read_records(folder / "journal") if r["kind"] == "failure"]


@pytest.mark.parametrize(
    ("units", "stack", "expected"),
    [
        (["u"], "Fatal Python error: Aborted\nThread", ["u"]),
        (["u"], "", []),
        (["u", "v"], "Fatal Python error: Aborted\nThread", []),
        ([], "Fatal Python error: Aborted\nThread", []),
    ],
)
def test_a_crash_is_charged_to_a_unit_that_was_alone_and_left_a_stack(
    units: list[str],
    stack: str,
    expected: list[str],
    tmp_path: Path,
    images: list[ImageEntry],
) -> None:
    folder = tmp_path / "run"
    go(folder, images[:1])
    died(folder, units, stack)
    with open_run(folder, recipe(), folder, images, LOCAL) as opened:
        assert charged(folder) == []  # 'a' is complete: nothing is held against its units
    died(folder, [], "")
    with Journal.open(folder / "journal") as journal:
        journal.append({"kind": "restart", "image": "a"})
    died(folder, units, stack)
    with open_run(folder, recipe(), folder, images, LOCAL) as opened:
        assert charged(folder) == expected
        assert opened.replay.failures == dict.fromkeys(expected, 1)


def test_after_a_crash_one_engine_runs_so_that_the_next_one_tells_its_unit(
    tmp_path: Path, images: list[ImageEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    made = workforce.LocalWorkers

    def counted(spec: Any, count: int) -> workforce.LocalWorkers:
        counts.append(count)
        return made(spec, count)

    monkeypatch.setattr(workforce, "LocalWorkers", counted)
    folder = tmp_path / "run"
    many = RunOptions("local:3", device="cpu")
    for _ in range(2):
        with open_run(folder, recipe(), folder, images, many):
            pass
    died(folder, ["u", "v"], "Fatal Python error: Aborted\nThread")
    with open_run(folder, recipe(), folder, images, many):
        pass
    assert counts == [3, 3, 1]


def test_a_good_end_leaves_no_crash_log_and_the_fault_handler_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    before = faulthandler.is_enabled()
    with crash_logged(folder, 7):
        assert crash_log(folder, 7).exists()
        assert faulthandler.is_enabled()
    assert list(folder.logs.iterdir()) == []
    assert faulthandler.is_enabled() == before


def test_a_crash_log_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(StoreError, match="logs"), crash_logged(RunFolder(tmp_path), 7):
        pass
