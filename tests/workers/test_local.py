from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import gethostname

import pytest
from fakes import FakeSource, Lab, noise, one_pass

from saccade.pipeline.errors import DeviceFull, SourceError, StorageFull, UnitTooLarge
from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import single_unit
from saccade.pipeline.recipe import Recipe
from saccade.workers.events import Event, UnitDone, UnitFailed, WorkerJoined
from saccade.workers.local import GLANCES, SLOTS, LocalWorkers
from saccade.workers.outcome import Outcome
from saccade.workers.tasks import ImageEntry, Task, WorkerSpec

LIMIT_SECONDS = 60


@contextmanager
def started(lab: Lab, count: int) -> Iterator[tuple[LocalWorkers, list[Event]]]:
    tree = Recipe.model_validate(one_pass("echo", tile=16, chunk=64))
    workers = LocalWorkers(WorkerSpec(lab.folder, tree.canonical_json(), lab.models), count)
    try:
        yield workers, workers.start()
    finally:
        workers.close()


def next_event(workers: LocalWorkers) -> Event:
    (event,) = workers.poll(LIMIT_SECONDS)
    return event


def prepared(lab: Lab, workers: LocalWorkers, source: FakeSource) -> tuple[ImageEntry, Task]:
    entry = lab.entry("one", source)
    task = Task(single_unit("one", "prepare", 0), 7, entry)
    workers.assign("local-0", task)
    return entry, task


def test_workers_join_under_names_of_their_own_with_room_for_every_lane(lab: Lab) -> None:
    with started(lab, 2) as (_, events):
        names = ("local-0", "local-1")
        host, room = gethostname(), {"glances": GLANCES}
        assert events == [WorkerJoined(name, SLOTS, host=host, **room) for name in names]


def test_a_unit_s_receipt_comes_back_as_an_event_of_its_worker_and_attempt(lab: Lab) -> None:
    with started(lab, 1) as (workers, _):
        _, task = prepared(lab, workers, FakeSource(noise(97, 89)))
        event = next_event(workers)
        assert isinstance(event, UnitDone)
        assert (event.worker, event.unit, event.attempt) == ("local-0", task.unit.id, 7)
        assert event.receipt["step"] == "prepare"


def test_a_device_that_is_full_may_pass_and_a_window_that_is_too_large_does_not() -> None:
    task = Task(single_unit("one", "prepare", 0), 7, ImageEntry("one", "one.tif"))
    for error, passes in ((DeviceFull("full"), True), (UnitTooLarge("too large"), False)):
        event = Outcome.of_error(error).event("w", task)
        assert isinstance(event, UnitFailed)
        assert (event.error, event.retryable, event.passing) == (
            type(error).__name__,
            passes,
            passes,
        )


def test_a_failure_of_the_image_is_final_and_says_why(lab: Lab) -> None:
    with started(lab, 1) as (workers, _):
        cause = SourceError("the file was replaced")
        source = FakeSource(noise(97, 89), broken=(Box(0, 0, 1, 1),), error=cause)
        entry, _ = prepared(lab, workers, source)
        next_event(workers)
        folder = workers._engines["local-0"].context.folder
        unit = folder.read_units("one", folder.read_image_plan("one").last)[0]
        workers.assign("local-0", Task(unit, 2, entry))
        event = next_event(workers)
        assert event == UnitFailed(
            "local-0", unit.id, 2, "the file was replaced", False, "SourceError"
        )


def test_polling_an_idle_worker_gives_nothing(lab: Lab) -> None:
    with started(lab, 1) as (workers, _):
        assert workers.poll(0.0) == []
        assert workers.cancel("local-0") == []


def test_a_full_disk_stops_the_run(lab: Lab) -> None:
    entry = ImageEntry("one", "one.tif")
    task = Task(single_unit("one", "prepare", 0), 1, entry)
    outcome = Outcome.of_error(StorageFull("no space is left"))
    with pytest.raises(StorageFull, match="no space"):
        outcome.event("local-0", task)


def test_an_error_nobody_foresaw_is_tried_again_and_names_its_place() -> None:
    outcome = Outcome.of_error(ZeroDivisionError("division by zero"))
    assert outcome.retryable
    assert outcome.reason.startswith("ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in outcome.details


def test_close_ends_all_engines_and_may_be_called_again(lab: Lab) -> None:
    with started(lab, 2) as (workers, _):
        workers.close()
        assert workers.poll(0.0) == []
