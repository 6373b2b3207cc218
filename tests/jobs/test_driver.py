"""The run loop, with workers that do as they are told by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from saccade.jobs import driver
from saccade.jobs.driver import RunLoop, RunSummary
from saccade.jobs.folders import OpenRun
from saccade.jobs.journals.journal import Journal, read_records, replay
from saccade.jobs.limits import QuarantineLimit
from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.options import RunOptions
from saccade.jobs.quarantine import failed_images
from saccade.jobs.stages import StageWork
from saccade.jobs.stopping import StopSignal
from saccade.pipeline.errors import Interrupted, ManifestError, RunError, StorageFull, WorkerLost
from saccade.pipeline.plan import Unit
from saccade.pipeline.recipe import Recipe
from saccade.workers import events
from saccade.workers.folder import RunFolder
from saccade.workers.sharing import HELPER, OWNER
from saccade.workers.tasks import ImageEntry, Task

RECIPE = Recipe.model_validate(
    {"passes": [{"name": "one", "resolution": {"downsample": 2}, "model": "builtin:tissue"}]}
)
Answer = Callable[[str, Task], "list[events.Event]"]


def done(worker: str, task: Task) -> list[events.Event]:
    unit = task.unit
    receipt = {"unit": unit.id, "image": unit.image, "step": unit.kind}
    return [events.UnitDone(worker, unit.id, task.attempt, receipt)]


class ScriptedWorkers:
    """Workers that answer each task, when polled, as a function says."""

    def __init__(self, answer: Answer = done, names: tuple[str, ...] = ("w",)) -> None:
        self.answer, self.names = answer, names
        self.given: list[str] = []
        self.log: list[str] = []
        self.replaceable = True
        self._pending: list[events.Event] = []

    def start(self) -> list[events.Event]:
        self.log.append("start")
        return [events.WorkerJoined(name) for name in self.names]

    def assign(self, worker: str, task: Task) -> None:
        self.given.append(task.unit.id)
        self._pending += self.answer(worker, task)

    def poll(self, timeout_seconds: float) -> list[events.Event]:
        happened, self._pending = self._pending, []
        return happened

    def cancel(self, worker: str) -> list[events.Event]:
        self.log.append(f"cancel {worker}")
        return [events.WorkerLeft(worker), events.WorkerJoined(f"{worker}'")]

    def close(self) -> None:
        self.log.append("close")


def fake_stages(folder: RunFolder, image: str, number: int) -> StageWork:
    """Three stages: one unit, three units, one unit."""
    kind = ("prepare", "sweep", "finalise")[number]
    count = 3 if number == 1 else 1
    units = tuple(Unit(f"{image}{number}{i}", image, kind, 0) for i in range(count))
    return StageWork(number, kind, units)


ALL = ["00", "10", "11", "12", "20"]


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "stage_work", fake_stages)


@contextmanager
def opened(root: Path, workers: ScriptedWorkers, names: str = "a") -> Iterator[OpenRun]:
    folder = RunFolder(root)
    with Journal.open(folder.journal) as journal:
        known = replay(folder.journal)
        asked = Catalogue.spooled(ImageEntry(name, f"/{name}") for name in names)
        tally = Tally.of(asked.names)
        for record in read_records(folder.journal):
            tally.add(record)
        left = asked.part(tally.unfinished())
        yield OpenRun(folder, RECIPE, journal, known, tally, asked, left, workers)


def drive(
    root: Path,
    workers: ScriptedWorkers,
    names: str = "a",
    stop: StopSignal | None = None,
    observe: driver.Observer | None = None,
    **options: Any,
) -> RunSummary:
    with opened(root, workers, names) as run:
        chosen = RunOptions(**options)
        loop = RunLoop(run, chosen, observe or (lambda tally, over: None), stop or StopSignal())
        return loop.drive()


def units_of(root: Path, kind: str) -> list[str]:
    return [r["unit"] for r in read_records(root / "journal") if r["kind"] == kind]


# -------------------------------------------------------------------------------- the good way


def test_every_unit_of_every_image_is_done_once_and_the_images_are_complete(tmp_path: Path) -> None:
    workers = ScriptedWorkers(names=("v", "w"))
    summary = drive(tmp_path, workers, "abc")
    assert summary.complete == ("a", "b", "c")
    assert sorted(workers.given) == [f"{image}{unit}" for image in "abc" for unit in ALL]
    assert sorted(units_of(tmp_path, "receipt")) == sorted(workers.given)


def test_a_unit_is_named_in_the_journal_before_it_is_given_away(tmp_path: Path) -> None:
    seen: list[bool] = []

    def looked(worker: str, task: Task) -> list[events.Event]:
        seen.append(task.unit.id in units_of(tmp_path, "started"))
        return done(worker, task)

    drive(tmp_path, ScriptedWorkers(looked))
    assert seen == [True] * 5


def test_a_stage_opens_only_when_all_receipts_before_it_are_durable(tmp_path: Path) -> None:
    before: dict[str, list[str]] = {}

    def looked(worker: str, task: Task) -> list[events.Event]:
        before[task.unit.id] = sorted(units_of(tmp_path, "receipt"))
        return done(worker, task)

    drive(tmp_path, ScriptedWorkers(looked))
    assert before["a10"] == ["a00"]
    assert before["a20"] == ["a00", "a10", "a11", "a12"]


def test_no_more_images_are_in_flight_than_asked(tmp_path: Path) -> None:
    most = 0

    def observe(tally: Tally, over: bool) -> None:
        nonlocal most
        most = max(most, tally.count("running"))

    drive(tmp_path, ScriptedWorkers(), "abcdefg", observe=observe, images_open=2)
    assert most == 2


def test_a_run_with_nothing_to_do_starts_no_worker(tmp_path: Path) -> None:
    drive(tmp_path, ScriptedWorkers())
    workers = ScriptedWorkers()
    assert drive(tmp_path, workers).complete == ("a",)
    assert workers.log == []


# -------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("stopped_at", ALL)
def test_what_has_a_receipt_does_not_run_again(stopped_at: str, tmp_path: Path) -> None:
    def full(worker: str, task: Task) -> list[events.Event]:
        if task.unit.id == f"a{stopped_at}":
            raise StorageFull("no space left")
        return done(worker, task)

    with pytest.raises(StorageFull):
        drive(tmp_path, ScriptedWorkers(full))
    with_receipt = units_of(tmp_path, "receipt")
    workers = ScriptedWorkers()
    assert drive(tmp_path, workers).complete == ("a",)
    assert sorted(workers.given + with_receipt) == [f"a{unit}" for unit in ALL]


# --------------------------------------------------------------------------------------- failures


def failing(*units: str, hopeless: bool = False) -> Answer:
    def answer(worker: str, task: Task) -> list[events.Event]:
        unit = task.unit.id
        if unit not in units:
            return done(worker, task)
        retryable, error = not hopeless, "ReadError"
        return [events.UnitFailed(worker, unit, task.attempt, "it broke", retryable, error)]

    return answer


def test_a_unit_that_fails_again_and_again_sets_its_image_aside_and_no_other(
    tmp_path: Path,
) -> None:
    workers = ScriptedWorkers(failing("b11"))
    summary = drive(tmp_path, workers, "abc", max_failures=3)
    assert summary.complete == ("a", "c")
    assert summary.quarantined == {"b": "it broke"}
    assert workers.given.count("b11") == 3


def test_a_failure_that_can_only_repeat_itself_is_not_repeated(tmp_path: Path) -> None:
    workers = ScriptedWorkers(failing("a00", hopeless=True))
    assert drive(tmp_path, workers).quarantined == {"a": "it broke"}
    assert workers.given == ["a00"]


def test_failures_of_earlier_drivers_count_and_the_reason_is_remembered(tmp_path: Path) -> None:
    for _ in range(3):
        given: list[str] = []

        def fail_once(worker: str, task: Task, given: list[str] = given) -> list[events.Event]:
            given.append(task.unit.id)
            if len(given) > 1:
                raise StorageFull("no space left")
            return failing("a00")(worker, task)

        with pytest.raises(StorageFull):
            drive(tmp_path, ScriptedWorkers(fail_once), max_failures=100)
    workers = ScriptedWorkers()
    summary = drive(tmp_path, workers)
    assert workers.given == []
    assert "3 times in earlier runs" in summary.quarantined["a"]
    assert "it broke" in summary.quarantined["a"]
    records = read_records(tmp_path / "journal")
    assert [r["error"] for r in records if r["kind"] == "quarantine"] == ["ReadError"]


def test_a_worker_that_dies_is_replaced_and_its_unit_done_by_another(tmp_path: Path) -> None:
    deaths: list[str] = []

    def mortal(worker: str, task: Task) -> list[events.Event]:
        if task.unit.id == "a11" and not deaths:
            deaths.append(worker)
            return [events.WorkerLost(worker, "killed"), events.WorkerJoined("new")]
        return done(worker, task)

    assert drive(tmp_path, ScriptedWorkers(mortal)).complete == ("a",)
    assert deaths == ["w"]


def test_whoever_takes_a_unit_over_finds_no_claims_of_its_last_owner(tmp_path: Path) -> None:
    unit_folder = RunFolder(tmp_path).scratch("a", "a11")
    kept: list[list[str]] = []

    def answer(worker: str, task: Task) -> list[events.Event]:
        if task.unit.id != "a11" or task.attempt > 1:
            kept.append(sorted(path.name for path in unit_folder.glob("*/*")))
            return done(worker, task)
        (unit_folder / "key").mkdir(parents=True)
        for index, side in ((0, OWNER), (7, HELPER)):
            (unit_folder / "key" / f"{index}.claim").write_text(side)
        return failing("a11")(worker, task)

    assert drive(tmp_path, ScriptedWorkers(answer)).complete == ("a",)
    assert ["7.claim"] in kept


def test_an_image_set_aside_keeps_what_was_tried_where_and_how_often(tmp_path: Path) -> None:
    RunFolder(tmp_path).images.write_text("")
    drive(tmp_path, ScriptedWorkers(failing("a11")), max_failures=2)
    (image,) = failed_images(tmp_path)
    assert (image.failures, image.times, image.reason) == (2, 1, "it broke")
    assert image.error == "ReadError"
    assert [(one.unit, one.attempt, one.worker, one.error) for one in image.tried] == [
        ("a11", 1, "w", "ReadError"),
        ("a11", 2, "w", "ReadError"),
    ]


def test_a_run_stops_once_more_images_are_set_aside_than_allowed(tmp_path: Path) -> None:
    workers = ScriptedWorkers(failing("b00", "c00", "d00", "e00", hopeless=True))
    with pytest.raises(
        RunError, match=r"2 of the \d images that ended .* it broke.* saccade retry"
    ):
        drive(tmp_path, workers, "abcdef", max_quarantined=QuarantineLimit(1), images_open=1)
    assert "d00" not in workers.given
    assert drive(tmp_path, ScriptedWorkers(), "abcdef").complete == ("a", "d", "e", "f")


# ---------------------------------------------------------------------------- silence, and stopping


def silent_at(unit: str, times: int) -> Answer:
    silences: list[str] = []

    def answer(worker: str, task: Task) -> list[events.Event]:
        if task.unit.id == unit and len(silences) < times:
            silences.append(worker)
            return []
        return done(worker, task)

    return answer


def test_a_worker_that_does_not_answer_is_ended_and_another_does_the_unit(tmp_path: Path) -> None:
    workers = ScriptedWorkers(silent_at("a11", 1))
    assert drive(tmp_path, workers, unit_timeout_seconds=0.01).complete == ("a",)
    assert workers.log == ["start", "cancel w"]
    assert units_of(tmp_path, "failure").count("a11") == 1


def test_a_hang_that_nothing_can_end_stops_the_run_and_counts(tmp_path: Path) -> None:
    for _ in range(3):
        workers = ScriptedWorkers(silent_at("a00", 9))
        workers.replaceable = False
        with pytest.raises(WorkerLost, match="--workers ray"):
            drive(tmp_path, workers, unit_timeout_seconds=0.01)
    assert "in time" in drive(tmp_path, ScriptedWorkers()).quarantined["a"]


def test_being_asked_to_stop_gives_nothing_more_away_and_keeps_what_was_done(
    tmp_path: Path,
) -> None:
    stop = StopSignal()

    def stopping(worker: str, task: Task) -> list[events.Event]:
        if task.unit.kind == "sweep":
            stop.request()
        return done(worker, task)

    workers = ScriptedWorkers(stopping)
    with pytest.raises(Interrupted, match="resumes"):
        drive(tmp_path, workers, "ab", stop=stop, images_open=1)
    assert sorted(units_of(tmp_path, "receipt")) == sorted(workers.given)
    assert not any(unit.startswith("b") for unit in workers.given)
    assert drive(tmp_path, ScriptedWorkers(), "ab").complete == ("a", "b")


def test_a_grace_period_that_runs_out_leaves_no_suspicion(tmp_path: Path) -> None:
    stop = StopSignal()
    stop.request()

    def silent(worker: str, task: Task) -> list[events.Event]:
        return []

    with opened(tmp_path, ScriptedWorkers(silent)) as run:
        loop = RunLoop(run, RunOptions(grace_seconds=0), lambda tally, over: None, StopSignal())
        loop._handle_all(run.workers.start())
        loop._take_up_images()
        loop._stop.request()
        with pytest.raises(Interrupted):
            loop._heed_stop()
    Journal.open(tmp_path / "journal").close()
    assert units_of(tmp_path, "started") == ["a00"]
    assert replay(tmp_path / "journal").suspects == set()


# ------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize("names", [["../x"], ["a", "a"], [""]])
def test_entries_from_python_are_held_to_the_rules_of_names(
    names: list[str], tmp_path: Path
) -> None:
    entries = [ImageEntry(name, f"/{i}.tif") for i, name in enumerate(names)]
    with pytest.raises(ManifestError):
        driver.run(RECIPE, entries, tmp_path / "run", RunOptions("local:1"))
    assert list(tmp_path.iterdir()) == []


def test_observers_hear_the_beginning_and_once_that_it_is_over(tmp_path: Path) -> None:
    heard: list[Mapping[str, int] | bool] = []

    def observe(tally: Tally, over: bool) -> None:
        heard.append(over)

    drive(tmp_path, ScriptedWorkers(), observe=observe)
    assert heard[0] is False
    assert heard.count(True) == 1
    assert heard[-1] is True
