"""Drivers that share a run: what is read as one, who is refused, who is ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals import claiming
from saccade.jobs.journals.claiming import claim, living, refuse_living
from saccade.jobs.journals.journal import Journal, read_records, replay
from saccade.jobs.journals.records import epochs
from saccade.jobs.journals.sharing import WHOLE, Shard
from saccade.jobs.journals.stock import Stock
from saccade.pipeline.errors import Fenced, RunError

FIRST, SECOND, QUARTER = Shard(1, 2), Shard(2, 2), Shard(1, 4)


def about(kind: str, image: str = "a", unit: str = "u") -> dict[str, Any]:
    return {"kind": kind, "image": image, "unit": unit, "reason": "told", "step": "prepare"}


def die(journal: Journal) -> None:
    """End as a killed process does: locks go, and nothing is said."""
    os.close(journal._descriptor)
    journal._open = False


@pytest.mark.parametrize("newcomer", [WHOLE, QUARTER])
def test_a_driver_over_a_living_ones_images_is_refused_and_changes_nothing(
    newcomer: Shard, tmp_path: Path
) -> None:
    with claim(tmp_path, FIRST) as journal:
        with pytest.raises(RunError, match=rf"process id {os.getpid()} .* part 1/2 of it"):
            refuse_living(tmp_path, newcomer)
        journal.append(about("receipt"))
    refuse_living(tmp_path, newcomer)


def test_parts_without_common_images_live_side_by_side(tmp_path: Path) -> None:
    with claim(tmp_path, FIRST) as one:
        refuse_living(tmp_path, SECOND)
        with claim(tmp_path, SECOND) as other:
            one.append(about("receipt", "a", "1"))
            other.append(about("receipt", "b", "2"))
    assert replay(tmp_path).done == {"1", "2"}


def test_the_same_part_is_taken_over_as_the_whole_run_always_was(tmp_path: Path) -> None:
    old = claim(tmp_path, FIRST)
    refuse_living(tmp_path, FIRST)
    new = claim(tmp_path, FIRST)
    with pytest.raises(Fenced):
        old.append(about("receipt"))
    new.close()


def test_a_dead_driver_over_the_same_images_is_ended_for_good(tmp_path: Path) -> None:
    """It may only have been out of reach: what it says from now on must not count."""
    ghost = claim(tmp_path, FIRST)
    ghost.note(about("started"))
    file = os.dup(ghost._descriptor)
    claim(tmp_path, SECOND).close()
    with claim(tmp_path, WHOLE):
        assert epochs(FIRST.journal(tmp_path)) == [1, 2]
        assert epochs(SECOND.journal(tmp_path)) == [1]
        with pytest.raises(Fenced):
            ghost.append(about("receipt"))
        assert replay(tmp_path).suspects == {"u"}
    os.close(file)


def test_where_nothing_locks_the_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(claiming.fcntl, "flock", no_locks)
    journal = claim(tmp_path, FIRST)
    assert [shard for shard, _, _ in living(tmp_path)] == [FIRST]
    with monkeypatch.context() as patch:
        patch.setattr(claiming.os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError))
        assert not list(living(tmp_path))
    journal.close()
    assert not list(living(tmp_path))


# ------------------------------------------------------------------------------- read as one


STEPS = st.lists(st.sampled_from(["image", "restart", "quarantine"]), max_size=4)


@given(st.lists(st.tuples(st.sampled_from([WHOLE, FIRST, QUARTER, Shard(1, 3)]), STEPS)))
def test_what_drivers_of_different_parts_say_of_an_image_is_read_in_the_order_they_said_it(
    tmp_path_factory: pytest.TempPathFactory, drivers: list[tuple[Shard, list[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    said = []
    for shard, kinds in drivers:
        with claim(folder, shard) as journal:
            for kind in kinds:
                journal.append(about(kind))
                said.append((kind, shard.label))
    told = [(r["kind"], r.get("shard", "")) for r in read_records(folder)]
    assert [one for one in told if one[0] not in ("opened", "closed")] == said


def test_a_part_reads_what_others_did_with_its_images(tmp_path: Path) -> None:
    names = [name for name in "abcdefghij" if QUARTER.holds(name)]
    with claim(tmp_path, FIRST) as journal:
        journal.append([about("receipt", names[0], "u1"), about("image", names[1])])
    with claim(tmp_path, WHOLE) as journal:
        journal.append(about("receipt", names[0], "u2"))
    stock = Stock.taken(tmp_path, names, QUARTER)
    assert stock.replay.done == {"u1", "u2"}
    assert stock.tally.state(names[1]) == "complete"


def test_a_crash_is_told_to_the_next_driver_of_the_same_part_only(tmp_path: Path) -> None:
    journal = claim(tmp_path, FIRST)
    journal.note(about("started", "a", "u"))
    die(journal)
    with claim(tmp_path, SECOND):
        assert Stock.taken(tmp_path, ["a"], SECOND).replay.alone is None
    with claim(tmp_path, FIRST):
        assert Stock.taken(tmp_path, ["a"], FIRST).replay.alone == ("a", "u")
