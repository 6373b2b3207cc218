"""A command that is kept alive: what follows each end, and what signals reach it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.clusters.supervision import SAID, Again, Ending, Leave, after
from saccade.jobs.stopping import EXIT_INTERRUPTED

cut_short = st.integers(-64, 255).filter(lambda code: code not in SAID)
CRASH = Ending(-9, 1.0)


@given(st.sampled_from(SAID), st.floats(0, 1e6), st.integers(0, 9), st.booleans())
def test_what_the_command_says_of_its_end_is_passed_on(
    code: int, seconds: float, short_lives: int, stopping: bool
) -> None:
    ending = Ending(code, seconds)
    assert after(ending, short_lives, stopping=stopping, restarts=3) == Leave(code)


@given(cut_short, st.floats(0, 1e6), st.integers(0, 9))
def test_whoever_asks_for_the_end_gets_no_new_life(
    code: int, seconds: float, short_lives: int
) -> None:
    then = after(Ending(code, seconds), short_lives, stopping=True, restarts=99)
    assert then == Leave(EXIT_INTERRUPTED)


@given(cut_short, st.integers(0, 12))
def test_short_lives_are_followed_by_as_many_as_were_stated(code: int, restarts: int) -> None:
    short_lives, again = 0, 0
    while isinstance(
        then := after(Ending(code, 1), short_lives, stopping=False, restarts=restarts), Again
    ):
        short_lives, again = then.short_lives, again + 1
    assert again == restarts
    assert then == Leave(EXIT_INTERRUPTED)


@given(cut_short, st.integers(0, 5))
def test_a_long_life_makes_counting_begin_anew(code: int, short_lives: int) -> None:
    then = after(Ending(code, 600), short_lives, stopping=False, restarts=0)
    assert then == Again(0, 1.0)


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = []
    for short_lives in range(9):
        then = after(CRASH, short_lives, stopping=False, restarts=99)
        assert isinstance(then, Again)
        pauses.append(then.pause_seconds)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


# A supervised program that does what a file tells each of its lives, and says which signals came.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
number = len(list(folder.glob("life-*")))
heard = []
for one in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(one, lambda n, frame: heard.append(n))
(folder / f"life-{number}").touch()
what = json.loads((folder / "lives").read_text())[number]
if what == "wait":
    while not heard:
        time.sleep(0.01)
    sys.exit(75)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(what)
"""
SUPERVISOR = """
import sys
from saccade.jobs.clusters import supervising
supervising.Guard.pause = lambda self, seconds: None
launch = supervising.Guard.__init__
def instead(self, command):
    launch(self, [sys.executable, "-c", *command[3:]])
supervising.Guard.__init__ = instead
sys.exit(supervising.supervise(sys.argv[1:], 3, lambda line: print(line, flush=True)))
"""


def supervised(folder: Path, lives: list[object]) -> subprocess.Popen[str]:
    (folder / "lives").write_text(json.dumps(lives))
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("lives", "code"),
    [([0], 0), ([3], 3), (["kill", 75, 2], 2), (["kill", "kill", 134, "kill"], EXIT_INTERRUPTED)],
)
def test_a_command_lives_until_it_says_how_it_ended_or_ended_too_often(
    tmp_path: Path, lives: list[object], code: int
) -> None:
    process = supervised(tmp_path, lives)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert len(list(tmp_path.glob("life-*"))) == len(lives)
    assert said.count("again in") == len(lives) - 1


@pytest.mark.parametrize("group", [False, True], ids=["supervisor", "group"])
def test_sigterm_ends_both_in_order_whether_or_not_the_whole_group_gets_it(
    tmp_path: Path, group: bool
) -> None:
    process = supervised(tmp_path, ["wait", 0])
    patience = time.monotonic() + 300
    while not (tmp_path / "life-0").exists():
        assert time.monotonic() < patience
        time.sleep(0.02)
    if group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert not (tmp_path / "life-1").exists()
