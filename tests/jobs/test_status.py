"""What a run's folder says of its state; reading it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from saccade.jobs.journal import Journal
from saccade.jobs.manifest import entry_to_json
from saccade.jobs.status import as_json, read_status
from saccade.jobs.status_page import as_page
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


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        read_status(tmp_path)
