"""Progress in words: what is done, how fast, how long still."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from saccade.jobs.monitoring.progress import (
    PLAIN_SECONDS,
    Pace,
    Progress,
    duration,
    headline,
    image_line,
)
from saccade.jobs.monitoring.tally import ImageTally, Tally


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_follows_from_the_work_done_since_this_driver_began() -> None:
    pace = Pace.between((10, 1.0), (24, 3.0), seconds=7.0)
    assert (pace.tiles, pace.seconds_left(4.0)) == (14, 14.0)
    assert Pace(7.0, 0, 0.0).seconds_left(4.0) is None


def test_the_headline_says_images_speed_share_and_time_left() -> None:
    tally = Tally.of(["a", "b", "c"])
    tally.images["a"].state = "complete"
    tally.images["b"].state = "quarantined"
    tally.images["c"] = ImageTally(
        "c", "running", tiles={"f": {"selected": 3, "of": 12, "done": 7}}
    )
    assert headline(tally, Pace(2.0, 7, 2.0)) == (
        "1/3 images | 1 set aside | 7 tiles | 3.5 tiles/s | 25% refined | about 1 s left"
    )


def test_a_driver_that_did_nothing_claims_no_speed() -> None:
    assert headline(Tally.of(["a"]), Pace(2.0, 0, 0.0)) == "0/1 images | 0 tiles"


def test_an_image_says_its_stage_and_units() -> None:
    assert image_line(ImageTally("a")) == ("a", "prepare", "waiting")
    image = ImageTally("a", "running", stage="f", units={"f": [3, 7]})
    assert image_line(image) == ("a", "f", "3/7 units")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_a_plain_line_now_and_then_and_one_at_the_end() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(Console(file=out, width=200), clock)
    tally = Tally.of(["a"])
    for now in (0.0, 1.0, PLAIN_SECONDS, PLAIN_SECONDS + 1, PLAIN_SECONDS * 2):
        clock.now = now
        progress(tally, False)
    assert len(out.getvalue().splitlines()) == 2
    tally.images["a"].state = "complete"
    progress(tally, True)
    assert out.getvalue().splitlines()[-1].startswith("1/1 images")
    assert "\x1b" not in out.getvalue()


def test_between_two_lines_nobody_looks_at_the_whole_archive() -> None:
    class Counted(Tally):
        looks = 0

        @property
        def work_done(self) -> float:
            Counted.looks += 1
            return 0.0

    clock = Clock()
    progress = Progress(Console(file=io.StringIO()), clock)
    progress(Counted.of(["a"]), False)
    looks = Counted.looks
    for turn in range(1000):
        clock.now = turn * PLAIN_SECONDS / 1001
        progress(Counted.of(["a"]), False)
    assert Counted.looks == looks


def test_a_terminal_gets_a_live_screen_that_is_given_back() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=80, force_terminal=True), Clock())
    tally = Tally.of(["a"])
    tally.images["a"].state = "running"
    progress(tally, False)
    progress.close()
    progress.close()
    assert "0/1 images" in out.getvalue()
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back
