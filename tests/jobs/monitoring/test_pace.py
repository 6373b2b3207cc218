"""How fast a run is now, by the times in its journal; who works on it; how long it takes still."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.monitoring.drivers import QUIET_SECONDS, Drivers
from saccade.jobs.monitoring.pace import BIN_SECONDS, WINDOW_SECONDS, Recent
from saccade.jobs.monitoring.passes import PassTotal, pass_totals, seconds_left
from saccade.jobs.monitoring.tally import ImageTally, Tally

NOON = 1_700_000_001.0


def sweep(at: float | None, tiles: int, name: str = "g", worker: str = "w", **more: Any) -> Any:
    record = {
        "kind": "receipt",
        "image": "a",
        "unit": "u",
        "pass": name,
        "tiles": {"done": tiles, "degraded": 0, "failed": 0},
        "seconds": {"read": 1.0, "device": 2.0, "write": 0.5},
        "worker": worker,
        **more,
    }
    return record if at is None else record | {"at": at}


def recent(*records: Any) -> Recent:
    seen = Recent()
    for record in records:
        seen.add(record)
    return seen


def test_a_journal_without_times_has_no_pace() -> None:
    seen = recent(sweep(None, 5))
    assert seen.pace(NOON).tiles_per_second() is None
    assert seen.pace(NOON).device_busy_share is None


def test_tiles_are_counted_over_the_last_minutes_only_and_by_pass() -> None:
    seen = recent(
        sweep(NOON - 2 * WINDOW_SECONDS, 1009), sweep(NOON - 60, 30, "f"), sweep(NOON, 60)
    )
    pace = seen.pace(NOON)
    assert pace.tiles == {"f": 30, "g": 60}
    assert pace.tiles_per_second("f") == pytest.approx(30 / pace.seconds)
    assert 60 <= pace.seconds <= 60 + BIN_SECONDS


def test_a_driver_that_began_long_before_its_first_unit_ended_is_as_slow_as_that() -> None:
    opened = {"kind": "opened", "started": "2023-11-14T22:13:21+00:00", "epoch": 1}
    pace = recent(opened, sweep(NOON + 100, 100)).pace(NOON + 100)
    assert pace.seconds == pytest.approx(100)
    assert pace.tiles_per_second() == pytest.approx(1)


def test_devices_are_busy_for_a_share_of_the_time_of_all_workers() -> None:
    opened = {"kind": "opened", "started": "2023-11-14T22:13:21+00:00", "epoch": 1}
    pace = recent(opened, sweep(NOON + 5, 1), sweep(NOON + 10, 1, worker="v")).pace(NOON + 10)
    assert pace.device_busy_share == pytest.approx(2 * 2.0 / (10 * 2))


@given(st.lists(st.floats(0, 10_000), min_size=1))
def test_whatever_order_clocks_give_a_look_is_bounded_and_counts_no_tile_twice(
    times: list[float],
) -> None:
    seen = recent(*(sweep(NOON + at, 1) for at in times))
    assert len(seen._bins) <= WINDOW_SECONDS / BIN_SECONDS + 2
    pace = seen.pace(NOON + max(times))
    assert 1 <= pace.tiles["g"] <= len(times)


# -------------------------------------------------------------------------------------- drivers


def opened(epoch: int, pid: int, host: str = "") -> dict[str, Any]:
    return {"kind": "opened", "epoch": epoch, "pid": pid, "host": host or socket.gethostname(),
            "started": "2023-11-14T22:13:21+00:00"}  # fmt: skip


def drivers(*records: dict[str, Any]) -> Drivers:
    seen = Drivers()
    for record in records:
        seen.add(record)
    return seen


def test_a_driver_is_at_work_while_its_process_is_there_and_it_has_not_closed() -> None:
    assert drivers(opened(1, os.getpid())).at_work(NOON)
    assert not drivers(opened(1, os.getpid()), {"kind": "closed"}).at_work(NOON)
    assert not drivers(opened(1, 2**22 + 1)).at_work(NOON)  # beyond the largest process id


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_driver_that_was_killed_is_not_at_work_although_nobody_has_asked_how_it_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seen = drivers(opened(1, process.pid))
        assert seen.at_work(NOON)
        process.send_signal(signal.SIGSTOP)
        assert seen.at_work(NOON), "stopped, not ended"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not seen.at_work(NOON)


def test_a_driver_elsewhere_is_believed_to_be_at_work_while_it_writes() -> None:
    seen = drivers(opened(1, 7, "elsewhere"), {"kind": "started", "at": NOON})
    assert seen.at_work(NOON + QUIET_SECONDS - 1)
    assert not seen.at_work(NOON + QUIET_SECONDS + 1)


def test_a_newer_driver_stands_for_the_older() -> None:
    seen = drivers(opened(1, os.getpid()), opened(2, os.getpid()), {"kind": "closed"})
    assert (seen.starts, seen.at_work(NOON)) == (2, [])


# ------------------------------------------------------------------------------------ time left


def total(name: str, images: int, done: int, planned: int, seconds: float) -> PassTotal:
    return PassTotal(name, images, done, planned, seconds={"device": seconds})


def test_the_time_left_counts_units_of_images_that_are_not_planned_yet() -> None:
    glance = total("g", images=2, done=2, planned=2, seconds=6.0)  # 3 s a unit, 1 an image
    refine = total("f", images=1, done=5, planned=10, seconds=35.0)  # 7 s a unit, 10 an image
    left = 3 * 3.0 + (5 + 4 * 10) * 7.0
    assert seconds_left([glance, refine], images=5, busy_per_second=2.0) == pytest.approx(left / 2)


def test_nothing_is_said_of_the_time_left_before_every_pass_was_seen_at_work() -> None:
    begun = total("g", 1, 1, 1, 3.0)
    assert seconds_left([begun, total("f", 1, 0, 10, 0.0)], 1, 2.0) is None
    assert seconds_left([begun], 1, None) is None
    assert seconds_left([begun], 1, 2.0) == 0.0


def test_passes_are_sums_over_images_and_memory_is_the_most_of_any() -> None:
    one = ImageTally("a", units={"g": [1, 2]}, tiles={"g": {"selected": 3, "of": 5, "done": 2}},
                     memory={"g": {"measured_nbytes": 7}})  # fmt: skip
    two = ImageTally("b", units={"g": [3, 3]}, tiles={"g": {"selected": 1, "of": 5, "done": 1}},
                     memory={"g": {"measured_nbytes": 11}})  # fmt: skip
    tally = Tally.of("ab")
    tally.images |= {"a": one, "b": two}
    (told, later) = pass_totals(tally, ["g", "f"])
    assert (told.images, told.units_done, told.units_planned) == (2, 4, 5)
    assert (told.share_refined, told.tiles_done) == (0.4, 3)
    assert told.memory["measured_nbytes"] == 11
    assert (later.name, later.images, later.share_refined) == ("f", 0, None)
