"""A run's status shown again and again until the run rests. Needs no driver; disturbs none."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from saccade.jobs.monitoring.status import Status, Watch
from saccade.jobs.monitoring.status_page import ROWS_LIVE, as_page, headline

LIVE_SECONDS = 1.0
"""Between two looks, on a terminal."""
PLAIN_SECONDS = 10.0
"""Between two lines, elsewhere."""

Clock = Callable[[], float]
Sleep = Callable[[float], None]


def wanted(asked: bool | None, status: Status, terminal: bool, clock: Clock = time.time) -> bool:
    """Whether to go on watching: as asked; else on a terminal, while a driver is at work."""
    if asked is not None:
        return asked
    return terminal and bool(status.drivers.at_work(clock()))


def watch(
    run: Watch, console: Console, clock: Clock = time.time, sleep: Sleep = time.sleep
) -> None:
    """Show a run until no driver works on it any more, or until the person has seen enough."""
    follow = _watch_live if console.is_terminal else _watch_plain
    try:
        follow(run, console, clock, sleep)
    except KeyboardInterrupt:
        console.print("the run goes on", highlight=False)


def _watch_live(run: Watch, console: Console, clock: Clock, sleep: Sleep) -> None:
    page = as_page(run.look(), clock(), ROWS_LIVE)
    with Live(page, console=console, auto_refresh=False) as live:
        while run.look().drivers.at_work(clock()):
            live.update(as_page(run.look(), clock(), ROWS_LIVE), refresh=True)
            sleep(LIVE_SECONDS)
        live.update(as_page(run.look(), clock(), ROWS_LIVE), refresh=True)


def _watch_plain(run: Watch, console: Console, clock: Clock, sleep: Sleep) -> None:
    while (status := run.look()).drivers.at_work(clock()):
        _say(status, console, clock)
        sleep(PLAIN_SECONDS)
    _say(run.look(), console, clock)


def _say(status: Status, console: Console, clock: Clock) -> None:
    line = headline(status, status.now(clock()))
    console.print(line, highlight=False, markup=False, soft_wrap=True)
