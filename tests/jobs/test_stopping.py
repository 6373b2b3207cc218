"""Being asked to stop: by whom, how often, in which order."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import permutations

import pytest

from saccade.jobs.stopping import ASKED_AGAIN, EXIT_INTERRUPTED

PROGRAM = """
import os, signal, sys
from saccade.jobs.stopping import StopSignal, heeding_signals

with heeding_signals(StopSignal()) as stop:
    for number in map(int, sys.argv[1:]):
        os.kill(os.getpid(), number)
        assert stop.requested
sys.exit(9)
"""
TERM, INT, AGAIN = int(signal.SIGTERM), int(signal.SIGINT), int(ASKED_AGAIN)


def ended_by(*numbers: int) -> int:
    return subprocess.run([sys.executable, "-c", PROGRAM, *map(str, numbers)]).returncode


@pytest.mark.parametrize("numbers", [(TERM,), (INT,), (AGAIN,), (AGAIN, AGAIN)])
def test_whoever_asks_is_heard_and_the_run_ends_in_order(numbers: tuple[int, ...]) -> None:
    assert ended_by(*numbers) == 9


@pytest.mark.parametrize("numbers", sorted(set(permutations((TERM, AGAIN, AGAIN)))))
def test_what_is_passed_on_is_the_same_wish_whichever_comes_first(
    numbers: tuple[int, ...],
) -> None:
    assert ended_by(*numbers) == 9


@pytest.mark.parametrize("numbers", [(TERM, TERM), (INT, TERM), (TERM, AGAIN, INT)])
def test_a_second_signal_ends_at_once(numbers: tuple[int, ...]) -> None:
    assert ended_by(*numbers) == EXIT_INTERRUPTED
