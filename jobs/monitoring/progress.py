"""Progress for a person: a live line on a terminal, plain lines elsewhere. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from saccade.jobs.monitoring.tally import ImageTally, Tally

PLAIN_SECONDS = 10.0
"""Between two plain lines."""
LIVE_SECONDS = 0.25
"""Between two looks at the whole archive for the live screen."""
ROWS = 8
"""Images shown at once on a terminal."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed since this driver began."""

    seconds: float
    """Since it began."""
    tiles: int
    """Answered since."""
    work: float
    """Images' worth of work done since."""

    @classmethod
    def between(cls, begun: Tally_, now: Tally_, seconds: float) -> Pace:
        """From two moments of a tally."""
        return cls(seconds, now[0] - begun[0], now[1] - begun[1])

    def seconds_left(self, work_left: float) -> float | None:
        """At this pace; None before there is one."""
        return self.seconds * work_left / self.work if self.work > 0 else None


Tally_ = tuple[int, float]


def headline(tally: Tally, pace: Pace) -> str:
    """One line: images, tiles per second, share refined, time left."""
    total = tally.total
    parts = [f"{tally.count('complete')}/{total} images"]
    if aside := tally.count("quarantined"):
        parts.append(f"{aside} set aside")
    parts.append(f"{tally.tiles_done} tiles")
    if pace.seconds > 0 and pace.tiles > 0:
        parts.append(f"{pace.tiles / pace.seconds:.1f} tiles/s")
    if (share := tally.share_refined) is not None:
        parts.append(f"{share:.0%} refined")
    left = pace.seconds_left(total - tally.work_done)
    if left is not None and total > tally.work_done:
        parts.append(f"about {duration(left)} left")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def image_line(image: ImageTally) -> tuple[str, str, str]:
    """Name, stage, how far it is."""
    done, planned = image.units.get(image.stage, [0, 0])
    far = f"{done}/{planned} units" if planned else image.state
    return image.name, image.stage or "prepare", far


class Progress:
    """An observer of a run."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._begun: Tally_ | None = None
        self._since = self._spoke = clock()
        self._live: Live | None = None

    def __call__(self, tally: Tally, over: bool) -> None:
        """Show what is done so far; called at every turn, looks at the archive now and then."""
        if self._begun is None:
            self._begin((tally.tiles_done, tally.work_done))
            self._show(tally, aloud=over)
        elif over or self._clock() - self._spoke >= self._pause:
            self._spoke = self._clock()
            self._show(tally, aloud=True)
        if over:
            self.close()

    @property
    def _pause(self) -> float:
        return PLAIN_SECONDS if self._live is None else LIVE_SECONDS

    def _show(self, tally: Tally, aloud: bool = False) -> None:
        assert self._begun is not None
        now = (tally.tiles_done, tally.work_done)
        pace = Pace.between(self._begun, now, self._clock() - self._since)
        if self._live is not None:
            self._live.update(_screen(tally, pace))
        elif aloud:
            self._console.print(headline(tally, pace), highlight=False, markup=False)

    def _begin(self, now: Tally_) -> None:
        self._begun = now
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _screen(tally: Tally, pace: Pace) -> Table:
    screen = Table.grid(padding=(0, 2))
    running = [image for image in tally.images.values() if image.state == "running"]
    for image in running[:ROWS]:
        screen.add_row(*image_line(image))
    whole = Table.grid()
    whole.add_row(headline(tally, pace))
    whole.add_row(screen)
    return whole
