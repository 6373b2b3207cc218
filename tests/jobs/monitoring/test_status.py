"""What a run's folder says of its state; reading it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from saccade.jobs.journals.journal import Journal
from saccade.jobs.manifests.manifest import entry_to_json
from saccade.jobs.monitoring.status import Watch, as_json, failed_json, read_status
from saccade.jobs.monitoring.status_page import as_page, failed_page
from saccade.jobs.monitoring.watching import wanted, watch
from saccade.jobs.quarantine import failed_images
from saccade.pipeline.errors import UsageError
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry


@pytest.fixture
def run(tmp_path: Path) -> Path:
    entries = [ImageEntry(name, f"/{name}.tif") for name in ("a", "b", "c")]
    folder = RunFolder(tmp_path)
    folder.images.write_text("".join(entry_to_json(entry) + "\n" for entry in entries))
    with Journal.open(folder.journal) as journal:
        journal.append({"kind": "image", "image": "a"})
        journal.append({"kind": "quarantine", "image": "c", "reason": "not an image"})
    return tmp_path


def test_images_are_counted_by_state(run: Path) -> None:
    told = json.loads(as_json(read_status(run)))
    assert told["images"] == {"waiting": 1, "running": 0, "complete": 1, "quarantined": 1}
    assert told["by_image"]["c"]["reason"] == "not an image"
    assert told["share_refined"] is None


def test_the_table_shows_first_what_needs_attention(run: Path) -> None:
    console = Console(width=120, record=True, file=None, quiet=True)
    console.quiet = False
    with console.capture() as shown:
        console.print(as_page(read_status(run)))
    lines = shown.get()
    assert lines.index("not an image") < lines.index("waiting") < lines.index("complete")


def test_reading_while_a_driver_writes_sees_whole_lines_only(run: Path) -> None:
    journal = Journal.open(run / "journal")
    with journal.path.open("ab") as file:
        file.write(b'{"kind":"image","im')
    assert read_status(run).tally.count("complete") == 1
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    read_status(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    journal.close()


def journal_of(run: Path, *records: dict[str, Any]) -> None:
    with Journal.open(run / "journal") as journal:
        journal.append([{"image": "b", "unit": "u", **record} for record in records])


SWEEP = {
    "kind": "receipt",
    "pass": "g",
    "tiles": {"done": 30, "degraded": 0, "failed": 2},
    "seconds": {"read": 1.0, "device": 2.0},
    "pixels": 11,
    "errors": [],
    "memory": {"measured_nbytes": 2**19},
    "worker": "w",
}
PLAN = {
    "kind": "receipt",
    "step": "prepare",
    "plans": "g",
    "units": 4,
    "tiles": {"selected": 90},
    "memory": {"g": {"allowed_nbytes": 2**30, "projected_nbytes": 2**20}},
}


def shown(run: Path, **details: Any) -> str:
    console = Console(width=120)
    with console.capture() as text:
        console.print(as_page(read_status(run), **details))
    return text.get()


def test_programs_are_told_of_passes_speed_memory_failures_and_drivers(run: Path) -> None:
    failure = {"kind": "failure", "reason": "it fell over"}
    journal_of(run, {**PLAN, "at": 1e9}, {**failure, "at": 1e9 + 5}, {**SWEEP, "at": 1e9 + 30})
    told = json.loads(as_json(read_status(run)))
    (one,) = told["passes"]
    assert (one["name"], one["units"]) == ("g", {"done": 1, "planned": 4})
    assert one["tiles"] == {"selected": 90, "done": 30, "degraded": 0, "failed": 2}
    assert one["memory"]["measured_nbytes"] == 2**19
    assert told["tiles_per_second"] == one["tiles_per_second"] > 0
    assert (told["state"], told["failures"], told["workers"]) == ("stopped", 1, 1)
    assert [failed["name"] for failed in told["failed"]] == ["c"]
    (driver,) = told["drivers"]
    assert (driver["epoch"], driver["at_work"]) == (2, False)


def test_a_person_is_shown_units_memory_and_failures(run: Path) -> None:
    journal_of(run, PLAN, {"kind": "failure", "reason": "it fell over"}, SWEEP)
    text = shown(run)
    for words in ("stopped", "1/4", "1 failed attempt", "1.00 GiB", "1.00 MiB", "512 KiB"):
        assert words in text


def test_a_note_is_told_once_with_the_images_that_it_is_on(run: Path) -> None:
    noted = {**PLAN, "notes": ["the file's overviews are made by NEAREST resampling"]}
    journal_of(run, {**noted, "image": "a"}, noted)
    text = " ".join(shown(run).split())
    assert text.count("made by NEAREST") == 1
    assert "note: a and 1 more: the file's overviews" in text


def test_a_long_archive_is_cut_short_and_says_so(run: Path) -> None:
    assert "and 2 more" in shown(run, rows=1)


def test_passes_are_of_all_images_and_what_is_not_told_by_image_is_counted(run: Path) -> None:
    whole = {**SWEEP, "tiles": {"done": 31, "degraded": 1, "failed": 0}}
    journal_of(run, *({**whole, "image": name} for name in "ab"), {"kind": "image", "image": "b"})
    with Journal.open(run / "journal") as journal:
        journal.append({"kind": "restart", "image": "a"})
        journal.append([{**whole, "image": "a", "unit": "v"}, {"kind": "image", "image": "a"}])
    every, few = (json.loads(as_json(Watch(run, told).look())) for told in (3, 0))
    assert few["passes"] == every["passes"]
    assert few["passes"][0]["units"]["done"] == 2
    assert (every["images_not_by_image"], few["images_not_by_image"]) == (0, 2)
    assert [*few["by_image"]] == ["c"]


def test_images_set_aside_tell_reason_attempts_time_and_what_to_do(run: Path) -> None:
    tried = [{"unit": "u", "reason": f"reason {n}", "attempt": n} for n in range(5)]
    end = {"kind": "quarantine", "reason": "reason 7", "failures": 8, "at": 1e9, "tried": tried}
    journal_of(run, end)
    failed = {image.name: image for image in failed_images(run)}
    assert set(failed) == {"b", "c"}
    assert (failed["b"].failures, failed["b"].at) == (8, 1e9)
    assert [one.reason for one in failed["b"].tried] == [f"reason {n}" for n in range(5)]
    console = Console(width=120)
    with console.capture() as text:
        console.print(failed_page(failed.values(), run))
    assert "saccade retry" in text.get()
    assert "reason 7" in text.get()
    assert json.loads(failed_json(failed.values()))[1]["tried"][-1]["reason"] == "reason 4"


def test_an_image_that_begins_again_or_ends_well_is_no_failure(run: Path) -> None:
    journal_of(run, {"kind": "failure", "reason": "once"}, {"kind": "image"},
               {"kind": "restart", "image": "c"})  # fmt: skip
    assert failed_images(run) == ()


def test_watching_ends_when_no_driver_is_at_work_and_takes_in_what_is_new(run: Path) -> None:
    journal = Journal.open(run / "journal")
    clock = {"now": 1e9}

    def sleep(seconds: float) -> None:
        clock["now"] += seconds
        journal.append({"kind": "image", "image": "b"})
        journal.close()

    said = Console(width=120, force_terminal=False)
    with said.capture() as text:
        watch(Watch(run), said, clock=lambda: clock["now"], sleep=sleep)
    first, last = text.get().splitlines()
    assert first.startswith("running | 1/3 images | 1 set aside")
    assert last.startswith("finished | 2/3 images | 1 set aside")


def test_a_terminal_is_watched_while_a_driver_is_at_work_unless_told_otherwise(run: Path) -> None:
    resting = read_status(run)
    with Journal.open(run / "journal"):
        working = read_status(run)
    assert wanted(None, working, terminal=True)
    assert not wanted(None, working, terminal=False)
    assert not wanted(None, resting, terminal=True)
    assert not wanted(False, working, terminal=True)
    assert wanted(True, resting, terminal=False)


def test_images_that_a_later_driver_adds_are_seen_by_who_watches(run: Path) -> None:
    seen = Watch(run)
    assert len(seen.look().tally.images) == 3
    with (run / "images.jsonl").open("a") as file:
        file.write(entry_to_json(ImageEntry("d", "/d.tif")) + "\n")
    assert len(seen.look().tally.images) == 4
    assert seen.look().tally.count("complete") == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        read_status(tmp_path)
