"""A journal is read once at the start of a driver, and what is written later after that."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.jobs.journals.journal import Journal, read_records
from saccade.jobs.journals.replay import Reading
from saccade.jobs.journals.stock import Stock


def receipt(unit: str) -> dict[str, str]:
    return {"kind": "receipt", "image": "a", "unit": unit, "step": "prepare"}


def kinds(reading: Reading) -> list[str]:
    return [record["kind"] for record in reading.records()]


def test_a_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    assert kinds(reading) == []
    with Journal.open(tmp_path) as journal:
        journal.append(receipt("1"))
        assert kinds(reading) == ["opened", "receipt"]
        journal.append([receipt("2"), receipt("3")])
        assert kinds(reading) == ["receipt", "receipt"]
    assert kinds(reading) == ["closed"]
    with Journal.open(tmp_path):
        assert kinds(reading) == ["opened"]
    assert not reading.too_far()


def test_a_line_that_was_torn_is_read_once_it_is_whole(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    with Journal.open(tmp_path) as journal:
        journal.append(receipt("1"))
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole[:-2])
        assert kinds(reading) == ["opened"]
        journal.path.write_bytes(whole)
        assert kinds(reading) == ["receipt"]


def test_an_error_names_the_line_of_the_file_also_in_a_later_go(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    with Journal.open(tmp_path) as journal:
        journal.append(receipt("1"))
        kinds(reading)
        with journal.path.open("ab") as file:
            file.write(b"nonsense\n")
        with pytest.raises(Exception, match="line 3"):
            kinds(reading)


def test_what_an_older_driver_wrote_after_it_was_replaced_is_taken_back(tmp_path: Path) -> None:
    older = Journal.open(tmp_path)
    older.append(receipt("1"))
    before = older.path.read_bytes()
    # the newer driver settles on what stands here; its file is not seen before the line below is
    with Journal.open(tmp_path) as newer:
        aside = newer.path.rename(tmp_path / "aside")
        with older.path.open("ab") as file:
            file.write(b'{"kind":"receipt","image":"a","unit":"2","step":"prepare","epoch":1}\n')
        stock = Stock.taken(tmp_path, ["a"])
        assert stock.replay.done == {"1", "2"}
        aside.rename(newer.path)
        stock.update()
        assert stock.replay.done == {"1"}
        assert stock.history.receipts == 1
        assert stock.tally.images["a"].state == "running"
    assert older.path.read_bytes() != before
    older.close()


def test_in_several_goes_a_stock_says_the_same_as_in_one(tmp_path: Path) -> None:
    stock = Stock.taken(tmp_path, ["a", "b"])
    for units in ("12", "345"):
        with Journal.open(tmp_path) as journal:
            for unit in units:
                journal.append(receipt(unit))
                stock.update()
            journal.append({"kind": "quarantine", "image": "b", "reason": "why"})
    stock.update()
    assert stock == Stock.taken(tmp_path, ["a", "b"])
    assert sum(record["kind"] == "receipt" for record in read_records(tmp_path)) == 5
