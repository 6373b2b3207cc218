"""What workers tell of their units: lines of JSON with image, unit and attempt."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSource, Lab, noise, one_pass

from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import Unit
from saccade.workers import unit_log
from saccade.workers.device import Predictor
from saccade.workers.slowness import LEAST_SEEN, TIMES, Slowness
from saccade.workers.tasks import ImageEntry, Task
from saccade.workers.unit_log import WorkerLog, working_for


def task(name: str = "a", attempt: int = 2) -> Task:
    return Task(Unit("u" + name, name, "sweep", 0), attempt, ImageEntry(name, f"/{name}.tif"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines_of(logs: Path) -> list[dict[str, Any]]:
    return [line for path in sorted(logs.glob("*.jsonl")) for line in lines(path)]


def test_a_warning_from_anywhere_carries_the_unit_its_thread_works_for(tmp_path: Path) -> None:
    with WorkerLog(tmp_path, "w") as log:
        with working_for(log, task("a", 2)):
            logging.getLogger("a.library").warning("tag %d is odd", 7)
        with working_for(log, task("b", 3)):
            logging.getLogger("a.library").warning("also")
    first, second = lines(log.path)
    assert {k: first[k] for k in ("level", "worker", "image", "unit", "attempt", "message")} == {
        "level": "warning",
        "worker": "w",
        "image": "a",
        "unit": "ua",
        "attempt": 2,
        "message": "tag 7 is odd",
    }
    assert (second["image"], second["attempt"]) == ("b", 3)
    assert first["time"] <= second["time"]


def test_threads_at_work_for_different_units_do_not_mix(tmp_path: Path) -> None:
    barrier = threading.Barrier(7)

    def work(log: WorkerLog, name: str) -> None:
        with working_for(log, task(name)):
            barrier.wait()
            logging.getLogger("a.library").warning("I am %s", name)

    with WorkerLog(tmp_path, "w") as log:
        threads = [threading.Thread(target=work, args=(log, f"i{n}")) for n in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(line["image"] for line in lines(log.path)) == [f"i{n}" for n in range(7)]
    assert all(line["message"] == f"I am {line['image']}" for line in lines(log.path))


def test_what_is_said_outside_units_is_left_to_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = list(logging.getLogger().handlers)
    with WorkerLog(tmp_path, "w") as log:
        logging.getLogger("a.library").warning("nobody's unit")
    assert not log.path.exists()
    assert "nobody's unit" in caplog.text
    assert logging.getLogger().handlers == handlers


def test_a_log_is_bounded_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_log, "MOST_NBYTES", 2000)
    with WorkerLog(tmp_path, "w") as log:
        for number in range(300):
            log.say(task(), logging.INFO, f"line {number}", {})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) <= 2 * 2000
    assert lines(log.path)[-1]["message"] == "line 299"


def test_a_log_that_can_t_be_written_costs_its_lines_only(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    with WorkerLog(tmp_path / "logs", "w") as log, working_for(log, task()):
        logging.getLogger("a.library").warning("lost")


def test_every_unit_of_a_run_is_told_when_it_begins_and_how_it_ends(lab: Lab) -> None:
    summary = lab.run_all(one_pass("echo", tile=16, chunk=64), {"one": noise(97, 89)})
    told = lines_of(summary.folder / "logs")
    begun = [line["unit"] for line in told if line["message"] == "unit begun"]
    ended = [line["unit"] for line in told if line["message"] == "unit ended"]
    assert begun
    assert sorted(begun) == sorted(ended)
    assert len(told) <= 2 * len(begun) + sum(line["level"] == "warning" for line in told)


def test_a_read_that_is_tried_again_and_tiles_that_are_lost_are_told_with_their_image(
    lab: Lab,
) -> None:
    stumbling = FakeSource(noise(97, 89), hiccups=1)
    broken = FakeSource(noise(97, 89), broken=(Box(0, 0, 16, 16),))
    recipe = one_pass("echo", tile=16, chunk=64) | {"max_bad_tiles": 1.0}
    summary = lab.run_all(recipe, {"stumbling": stumbling, "broken": broken})
    told = [one for one in lines_of(summary.folder / "logs") if one["level"] == "warning"]
    again = {line["image"] for line in told if "tried once more" in line["message"]}
    lost = {line["image"] for line in told if "can't be read" in line["message"]}
    assert again == {"stumbling", "broken"}
    assert lost == {"broken"}


def test_a_failure_is_told_with_the_attempt_and_the_kind_of_error(lab: Lab) -> None:
    bad = FakeSource(noise(64, 64), broken=(Box(0, 0, 64, 64),))
    summary = lab.run_all(one_pass("echo", tile=16, chunk=64), {"bad": bad})
    (line,) = [one for one in lines_of(summary.folder / "logs") if one["level"] == "error"]
    assert (line["image"], line["attempt"]) == ("bad", 1)
    assert line["error"]


def test_running_out_of_memory_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, refused = Predictor._begin, [1]

    def without_memory_once(predictor: Predictor, windows: Any) -> Any:
        return None if refused and refused.pop() else begin(predictor, windows)

    monkeypatch.setattr(Predictor, "_begin", without_memory_once)
    summary = lab.run_all(one_pass("echo", tile=16, chunk=64), {"one": noise(97, 89)})
    told = lines_of(summary.folder / "logs")
    (line,) = [one for one in told if "ran out of memory" in one["message"]]
    assert (line["image"], line["level"]) == ("one", "warning")


def test_a_unit_is_slow_beside_the_median_of_its_kind_and_size() -> None:
    slowness = Slowness()
    for _ in range(LEAST_SEEN):
        assert slowness.times_median("refine", 2.0, 100) is None
    assert slowness.times_median("refine", 2.0 * TIMES, 200) is None
    assert slowness.times_median("refine", 2.0 * 7, 100) == pytest.approx(7)
    assert slowness.times_median("glance", 1e6, 1) is None
