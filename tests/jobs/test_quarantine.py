"""Images that were set aside: what is kept of them, and how many a run bears."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals.journal import Journal
from saccade.jobs.journals.replay import TRIED, replay
from saccade.jobs.journals.sharing import Shard
from saccade.jobs.limits import ENOUGH, QuarantineLimit
from saccade.jobs.quarantine import FailedImage, Failure, failed_images, quarantine_record
from saccade.pipeline.errors import UsageError
from saccade.workers import events
from saccade.workers.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.images.write_text("")
    return folder


def fail(journal: Journal, image: str, times: int, host: str = "h") -> None:
    for attempt in range(1, times + 1):
        failure = Failure(f"{image}-u", f"reason {attempt}", "ReadError", attempt, "w", host)
        journal.append({"kind": "failure", "image": image, **failure.to_dict()})


def set_aside(folder: RunFolder, journal: Journal, image: str, failures: int) -> None:
    tried = replay(folder.journal).tried.get(image, ())
    told = events.Quarantine(image, f"{image}-u", "the last", failures, "ReadError")
    journal.append(quarantine_record(told, tried))


def test_the_last_failures_are_kept_over_drivers_with_worker_and_host(folder: RunFolder) -> None:
    with Journal.open(folder.journal) as journal:
        fail(journal, "a", TRIED + 1, host="one")
    with Journal.open(folder.journal) as journal:
        fail(journal, "a", 2, host="two")
        set_aside(folder, journal, "a", 8)
    (image,) = failed_images(folder.root)
    assert (image.name, image.reason, image.failures, image.times) == ("a", "the last", 8, 1)
    assert [one.host for one in image.tried] == ["one"] * (TRIED - 2) + ["two"] * 2
    assert image.tried[-1] == Failure("a-u", "reason 2", "ReadError", 2, "w", "two")


def test_an_image_that_begins_again_is_not_set_aside_but_its_times_are_counted(
    folder: RunFolder,
) -> None:
    with Journal.open(folder.journal) as journal:
        for image in "ab":
            fail(journal, image, 1)
            set_aside(folder, journal, image, 1)
            journal.append({"kind": "restart", "image": image})
        assert failed_images(folder.root) == ()
        journal.append({"kind": "image", "image": "b"})
        set_aside(folder, journal, "a", 0)
    assert failed_images(folder.root) == (
        FailedImage("a", "the last", 0, 2, (), error="ReadError"),
    )


def test_journals_without_names_of_errors_are_read(folder: RunFolder) -> None:
    with Journal.open(folder.journal) as journal:
        tried = [{"unit": "u", "reason": "it broke"}]
        journal.append({"kind": "quarantine", "image": "a", "reason": "it broke", "tried": tried})
    (image,) = failed_images(folder.root)
    assert (image.error, image.tried) == ("", (Failure("u", "it broke"),))


def test_every_part_s_images_are_told(folder: RunFolder) -> None:
    for index in (1, 2):
        with Journal.open(Shard(index, 2).journal(folder.journal)) as journal:
            set_aside(folder, journal, f"i{index}", 1)
    assert [image.name for image in failed_images(folder.root)] == ["i1", "i2"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        failed_images(tmp_path)


# ------------------------------------------------------------------------------------- limits


@given(st.integers(0, 50), st.integers(0, 99))
def test_a_number_allows_so_many_and_no_more(limit: int, set_aside: int) -> None:
    assert QuarantineLimit.parse(str(limit)).exceeded(set_aside, 99, 100) == (set_aside > limit)


def test_a_share_is_of_the_images_that_ended_once_there_are_enough() -> None:
    limit = QuarantineLimit.parse("10%")
    assert not limit.exceeded(ENOUGH - 1, ENOUGH - 1, 10**6)
    assert limit.exceeded(3, ENOUGH, 10**6)
    assert not limit.exceeded(2, ENOUGH, 10**6)
    assert limit.exceeded(1, 3, total=3)
    assert not limit.exceeded(1, 2, total=3)


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "101%", "many", "nan%"])
def test_what_is_neither_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="'10%'"):
        QuarantineLimit.parse(text)


@pytest.mark.parametrize("text", ["0", "50", "10%", "2.5%"])
def test_a_limit_is_told_as_it_was_given(text: str) -> None:
    assert str(QuarantineLimit.parse(text)) == text
