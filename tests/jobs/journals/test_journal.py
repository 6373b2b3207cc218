"""The journal: what was appended is read back, whatever dies; one driver at a time is believed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals.journal import Journal, Record, Replay, read_records, replay
from saccade.pipeline.errors import Fenced, StorageFull, StoreError


def receipt(unit: str, image: str = "a", **more: Any) -> Record:
    return {"kind": "receipt", "image": image, "unit": unit, "attempt": 1, **more}


def failure(unit: str, image: str = "a", reason: str = "decoder says no") -> Record:
    return {"kind": "failure", "image": image, "unit": unit, "reason": reason}


def started(unit: str, image: str = "a") -> Record:
    return {"kind": "started", "image": image, "unit": unit}


def about(kind: str, image: str = "a") -> Record:
    return {"kind": kind, "image": image, "reason": "told"}


def die(journal: Journal) -> None:
    """End as a killed process does: the file is closed and nothing is said."""
    os.close(journal._descriptor)
    journal._open = False


def read(folder: Path) -> list[Record]:
    return [r for r in read_records(folder) if r["kind"] not in ("opened", "closed")]


# ------------------------------------------------------------------------------ what is read back


def test_a_folder_without_a_journal_is_a_run_that_never_started(tmp_path: Path) -> None:
    assert replay(tmp_path / "none") == Replay()


def test_what_was_appended_or_noted_is_read_back_with_its_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "journal"
    with Journal.open(folder) as journal:
        journal.append(receipt("u1", keys=["c/0/0"], nbytes=7919))
        journal.note(started("u2"))
        journal.append([receipt("u2"), failure("ü3", reason="line\nbreak and \udcff")])
    with Journal.open(folder) as journal:
        journal.append(receipt("u4"))
        assert [path.name for path in sorted(folder.iterdir())] == ["000001.jsonl", "000002.jsonl"]
    assert read(folder) == [
        {**receipt("u1", keys=["c/0/0"], nbytes=7919), "epoch": 1},
        {**started("u2"), "epoch": 1},
        {**receipt("u2"), "epoch": 1},
        {**failure("ü3", reason="line\nbreak and \udcff"), "epoch": 1},
        {**receipt("u4"), "epoch": 2},
    ]


def test_the_first_line_says_who_opened_the_epoch_and_what_there_was(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    nbytes = (tmp_path / "000001.jsonl").stat().st_size
    Journal.open(tmp_path).close()
    header = json.loads((tmp_path / "000002.jsonl").read_text().splitlines()[0])
    assert (header["kind"], header["epoch"], header["pid"]) == ("opened", 2, os.getpid())
    assert header["seen"] == {"1": nbytes}


def test_a_replay_is_the_union_of_all_epochs(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u1"), failure("u2"), failure("u3"), receipt("u1")])
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u5"), failure("u2"), about("quarantine", "b")])
    told = replay(tmp_path)
    assert told.done == {"u1", "u5"}
    assert told.failures == {"u2": 2, "u3": 1}
    assert told.quarantined["b"]["reason"] == "told"
    assert told.last_epoch == 2
    assert not told.suspects


def test_units_of_complete_images_are_forgotten_and_late_receipts_do_not_bring_them_back(
    tmp_path: Path,
) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u1"), failure("u2"), receipt("u3", "b"), about("image")])
        journal.append([receipt("u2"), started("u2"), failure("u2")])
    told = replay(tmp_path)
    assert told.complete == {"a"}
    assert told.done == {"u3"}
    assert told.failures == {}


@pytest.mark.parametrize("end", ["image", "quarantine"])
def test_a_restart_forgets_all_that_was_said_of_an_image(tmp_path: Path, end: str) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u1"), failure("u2"), receipt("u3", "b"), about(end)])
        journal.append([about("restart"), receipt("u2")])
    told = replay(tmp_path)
    assert (told.done, told.failures) == ({"u2", "u3"}, {})
    assert (told.complete, told.quarantined) == (set(), {})


# ------------------------------------------------------------------- who was there when it crashed


def test_units_in_flight_when_a_driver_died_are_suspects_until_they_are_done(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path)
    for unit in ("u1", "u2", "u3", "u4"):
        journal.note(started(unit))
    journal.append([receipt("u1"), failure("u2")])
    die(journal)
    journal = Journal.open(tmp_path)
    told = replay(tmp_path)
    assert (told.suspects, told.alone) == ({"u3", "u4"}, None)
    journal.append(receipt("u3"))
    assert replay(tmp_path).suspects == {"u4"}


def test_a_unit_that_a_driver_died_with_alone_is_named_to_the_next_driver_only(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path)
    journal.append([started("u1"), started("u2"), receipt("u1")])
    die(journal)
    journal = Journal.open(tmp_path)
    assert replay(tmp_path).alone == ("a", "u2")
    die(journal)
    Journal.open(tmp_path).close()
    told = replay(tmp_path)
    assert (told.suspects, told.alone) == ({"u2"}, None)


def test_an_epoch_that_was_closed_leaves_no_suspects(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.note(started("u1"))
    Journal.open(tmp_path).close()
    assert replay(tmp_path).suspects == set()


def test_units_of_an_image_set_aside_are_no_suspects(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.append([started("u1"), started("u2", "b"), about("quarantine")])
    die(journal)
    Journal.open(tmp_path).close()
    assert replay(tmp_path).suspects == {"u2"}


# ------------------------------------------------------------------------------ torn, or destroyed


def test_a_last_line_torn_at_any_byte_leaves_all_whole_lines(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u1"), receipt("u2", note="é")])
    path = tmp_path / "000001.jsonl"
    whole = path.read_bytes()[: -len(b'{"kind":"closed","epoch":1}\n')]
    last = whole.rindex(b"\n", 0, -1) + 1
    for nbytes in range(last, len(whole)):
        path.write_bytes(whole[:nbytes])
        assert replay(tmp_path).done == {"u1"}, nbytes
    path.write_bytes(whole)
    assert replay(tmp_path).done == {"u1", "u2"}


@given(cuts=st.lists(st.integers(0, 10**6), min_size=3, max_size=3))
def test_files_cut_anywhere_leave_the_union_of_their_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    expected = set()
    for epoch, cut in enumerate(cuts, start=1):
        journal = Journal.open(folder)
        journal.append([receipt(f"{epoch}.{n}") for n in range(5)])
        die(journal)
        path = folder / f"{epoch:06d}.jsonl"
        kept = path.read_bytes()[: cut % (path.stat().st_size + 1)]
        path.write_bytes(kept)
        expected |= {f"{epoch}.{n}" for n in range(kept.count(b"\n") - 1)}
    assert replay(folder).done == expected
    Journal.open(folder).close()
    assert replay(folder).done == expected
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\0",
        b'{"kind":"receipt","ima',
        b"[]",
        b'"opened"',
        b'{"kind":["receipt"]}',
        b'{"kind":"verdict","epoch":1}',
        b'{"kind":"receipt","image":"a","epoch":1}',
        b"\xff\xfe",
    ],
)
def test_a_line_destroyed_in_the_middle_is_an_error_that_names_file_and_line(
    tmp_path: Path, line: bytes
) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append([receipt("u1"), receipt("u2")])
    path = tmp_path / "000001.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StoreError, match=r"000001\.jsonl, line 2: .* or cut it before this line"):
        replay(tmp_path)


def test_a_file_that_no_epoch_heads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000001.jsonl").write_text(json.dumps({**receipt("u1"), "epoch": 1}) + "\n")
    with pytest.raises(StoreError, match="opens an epoch; found 'receipt'"):
        replay(tmp_path)


# ------------------------------------------------------------------------------------ two drivers


def test_a_driver_that_was_replaced_is_fenced_at_its_next_append(tmp_path: Path) -> None:
    old = Journal.open(tmp_path)
    old.append(receipt("u1"))
    new = Journal.open(tmp_path)
    for write in (old.append, old.note):
        with pytest.raises(Fenced, match=rf"process id {os.getpid()} on .* \(epoch 2, since 20"):
            write(receipt("u2"))
    new.append(receipt("u3"))
    old.close()
    new.close()
    assert replay(tmp_path).done == {"u1", "u3"}


def test_a_driver_replaced_between_its_write_and_its_return_is_fenced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Journal.open(tmp_path)
    fsync = os.fsync

    def take_over(descriptor: int) -> None:
        fsync(descriptor)
        monkeypatch.undo()
        Journal.open(tmp_path).close()

    monkeypatch.setattr(os, "fsync", take_over)
    with pytest.raises(Fenced):
        old.append(receipt("u1"))
    assert replay(tmp_path).done == {"u1"}  # the new driver saw it


def test_what_a_driver_writes_after_it_was_replaced_does_not_count(tmp_path: Path) -> None:
    old = Journal.open(tmp_path)
    old.append(receipt("u1"))
    die(old)
    new = Journal.open(tmp_path)
    with old.path.open("ab") as file:  # as a driver that looked just before the other one came
        file.write(json.dumps({**receipt("u2"), "epoch": 1}).encode() + b"\n")
    assert replay(tmp_path).done == {"u1"}
    die(new)
    Journal.open(tmp_path).close()
    assert replay(tmp_path).done == {"u1"}


def test_a_driver_that_died_before_its_first_line_does_no_harm(tmp_path: Path) -> None:
    old = Journal.open(tmp_path)
    old.append(receipt("u1"))
    (tmp_path / "000002.jsonl").touch()
    with pytest.raises(Fenced, match="just starting"):
        old.append(receipt("u2"))
    old.close()
    with Journal.open(tmp_path) as journal:
        assert journal.epoch == 3
    assert replay(tmp_path).done == {"u1"}


def test_a_driver_that_another_one_forestalls_takes_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Journal.open(tmp_path)
    first.append(receipt("u1"))

    def look_too_early(folder: Path) -> list[int]:
        monkeypatch.undo()
        return []

    monkeypatch.setattr("saccade.jobs.journals.journal.epochs", look_too_early)
    with Journal.open(tmp_path) as second:
        assert (first.epoch, second.epoch) == (1, 2)
    assert replay(tmp_path).done == {"u1"}


RACER = """
import sys
from pathlib import Path
from saccade.jobs.journals.journal import Journal
from saccade.pipeline.errors import Fenced
print("ready", flush=True)
sys.stdin.readline()
for _ in range(53):
    try:
        journal = Journal.open(Path(sys.argv[1]))
        journal.append({"kind": "receipt", "image": "a", "unit": f"{sys.argv[2]}.{journal.epoch}"})
        print(journal.epoch, flush=True)
    except Fenced:
        pass
"""


def test_drivers_that_start_at_once_get_epochs_of_their_own_and_lose_no_receipt(
    tmp_path: Path,
) -> None:
    commands = [[sys.executable, "-c", RACER, str(tmp_path), name] for name in ("x", "y")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=120)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    owners = {int(r["epoch"]): r["pid"] for r in read_records(tmp_path) if r["kind"] == "opened"}
    assert len([*tmp_path.iterdir()]) == 2 * 53
    for racer, name, epochs in zip(racers, "xy", said, strict=True):
        assert all(owners[int(epoch)] == racer.pid for epoch in epochs)
        assert {f"{name}.{epoch}" for epoch in epochs} <= replay(tmp_path).done


# ------------------------------------------------------------------------------- what goes wrong


def refuse(monkeypatch: pytest.MonkeyPatch, journal: Journal, call: str, number: int) -> None:
    """Make one system call fail on the journal's file; a write gets half of its bytes out first."""
    real = getattr(os, call)

    def fake(descriptor: int, *arguments: Any) -> Any:
        if descriptor != journal._descriptor:
            return real(descriptor, *arguments)
        if call == "write" and len(arguments[0]) > 20:
            return real(descriptor, arguments[0][: len(arguments[0]) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fake)


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_the_torn_line_taken_back_so_that_later_appends_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    journal = Journal.open(tmp_path)
    journal.append(receipt("u1"))
    before = journal.path.read_bytes()
    with monkeypatch.context() as patch:
        refuse(patch, journal, call, number)
        with pytest.raises(StorageFull, match=r"no space left.*Free some space"):
            journal.append([receipt("u2"), receipt("u3")])
    assert journal.path.read_bytes() == before
    journal.append(receipt("u4"))
    journal.close()
    assert replay(tmp_path).done == {"u1", "u4"}


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_after_any_other_error_the_file_takes_no_more_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal = Journal.open(tmp_path)
    journal.append(receipt("u1"))
    with monkeypatch.context() as patch:
        refuse(patch, journal, call, errno.EIO)
        with pytest.raises(StoreError, match="Input/output error"):
            journal.append(receipt("u2"))
    with pytest.raises(StoreError, match="takes no more records"):
        journal.append(receipt("u3"))
    journal.close()
    assert replay(tmp_path).done == {"u1"}


def test_a_torn_line_that_can_not_be_taken_back_ends_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(tmp_path)
    with monkeypatch.context() as patch:
        refuse(patch, journal, "write", errno.ENOSPC)
        refuse(patch, journal, "ftruncate", errno.EIO)
        with pytest.raises(StoreError):
            journal.append(receipt("u1"))
    with pytest.raises(StoreError, match="takes no more records"):
        journal.append(receipt("u2"))
    with Journal.open(tmp_path) as journal:
        journal.append(receipt("u3"))
    assert replay(tmp_path).done == {"u3"}


@pytest.mark.parametrize(
    ("record", "message"),
    [({"kind": "verdict"}, "one of the kinds"), ({"kind": "receipt", "unit": "u"}, "lacks image")],
)
def test_a_record_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, record: Record, message: str
) -> None:
    with Journal.open(tmp_path) as journal:
        with pytest.raises(ValueError, match=message):
            journal.append([receipt("u1"), record])
        assert read(tmp_path) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/journal: the journal can't be read or written"):
        Journal.open(tmp_path / "file" / "journal")


def test_closing_twice_closes_once(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.close()
    journal.close()
    assert [r["kind"] for r in read_records(tmp_path)] == ["opened", "closed"]
