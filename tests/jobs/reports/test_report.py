"""What a report says: counted from the journal, escaped on the page, nothing fetched."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.jobs.journals.journal import Journal
from saccade.jobs.manifests.manifest import entry_to_json
from saccade.jobs.reports.chart import ceiling, chart, date_text
from saccade.jobs.reports.digest import Digest
from saccade.jobs.reports.model import Card, Report, make_report
from saccade.jobs.reports.page import COLUMNS, as_data, page, policy
from saccade.jobs.reports.parts import coded, verdict
from saccade.jobs.reports.pictures import Choice, Limits, Seen, choose, fit
from saccade.jobs.reports.remedies import (
    BAD_TILES,
    DAMAGED,
    DIED,
    KINDS,
    LATE,
    MEMORY,
    MISSING,
    OTHER,
    PIXEL_SIZE,
    UNFORESEEN,
    kind_of,
)
from saccade.jobs.reports.report import write_report
from saccade.jobs.reports.timeline import MOST_IDLE_BINS, Timeline
from saccade.pipeline import errors
from saccade.pipeline.errors import SaccadeError, UsageError
from saccade.pipeline.sources import open_source
from saccade.workers import events
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

ROOT = Path(__file__).parents[3]
Record = Mapping[str, Any]
NOTHING = Choice((), (), 0)
OPENED = {"kind": "opened", "epoch": 1, "started": "2026-11-21T08:00:00+00:00"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'\u2028"


def sweep(image: str, name: str = "glance", **more: Any) -> Record:
    return {
        "kind": "receipt",
        "image": image,
        "unit": f"{image}-{name}",
        "pass": name,
        "tiles": {"done": 7, "degraded": 0, "failed": 0},
        "pixels": 1100,
        "nbytes": 13,
        "errors": [],
        "splits": 0,
        "seconds": {"read": 1.0, "device": 2.0},
        **more,
    }


def planned(image: str, name: str, selected: int, of: int | None = None) -> Record:
    tiles = {"selected": selected} if of is None else {"selected": selected, "of": of}
    return {
        "kind": "receipt",
        "image": image,
        "unit": f"{image}-before-{name}",
        "step": "select",
        "plans": name,
        "units": 1,
        "tiles": tiles,
        "seconds": {"step": 0.5},
    }


def aside(image: str, reason: str) -> Record:
    return {"kind": "quarantine", "image": image, "reason": reason}


def failure(image: str, reason: str = "worker w1 died: killed") -> Record:
    return {"kind": "failure", "image": image, "unit": f"{image}-glance", "reason": reason}


def report_of(names: list[str], *records: Record) -> Report:
    return make_report("run", Digest.of(names, [OPENED, *records]), 1.8e9, ["glance", "refine"])


def html_of(report: Report, *seen: Seen) -> str:
    return "".join(page(report, NOTHING, seen))


def rows_of(html: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert found
    return [dict(zip(COLUMNS, row, strict=True)) for row in json.loads(found[1])["rows"]]


# ---------------------------------------------------------------------------------------- counting


def test_every_image_has_a_card_in_the_order_of_the_run() -> None:
    names = ["c", "a", "b"]
    told = report_of(names, sweep("a"), aside("b", "no such file"))
    assert [card.name for card in told.cards] == names
    assert [card.state for card in told.cards] == ["waiting", "running", "quarantined"]


def test_totals_are_the_sums_of_the_cards() -> None:
    told = report_of(
        ["a", "b"],
        planned("a", "glance", 7),
        sweep("a"),
        planned("a", "refine", 5, 20),
        sweep("a", "refine", tiles={"done": 3, "degraded": 1, "failed": 1}, pixels=170),
        sweep("b"),
    )
    assert told.tiles == 7 + 4 + 7
    assert told.pixels == 1100 + 170 + 1100
    assert told.seconds == sum(card.seconds for card in told.cards) == 3 * 3.0 + 2 * 0.5
    glance, refine = told.passes
    assert (glance.answered, refine.answered, refine.failed, refine.of) == (14, 4, 1, 20)
    assert told.refined == 5 / 20


def test_an_image_that_begins_anew_has_no_failures_left() -> None:
    told = report_of(["a"], failure("a"), aside("a", "x"), {"kind": "restart", "image": "a"})
    (card,) = told.cards
    assert (card.state, card.attempts_failed, card.seconds) == ("waiting", 0, 0)
    assert not told.troubles


def test_passes_that_nobody_came_to_are_listed_so_that_colours_stay() -> None:
    told = report_of(["a"], sweep("a"))
    assert [line.name for line in told.passes] == ["glance", "refine"]


@pytest.mark.parametrize(
    ("records", "ended", "finished"),
    [
        ([], False, False),
        ([{"kind": "closed"}], True, False),
        ([{"kind": "image", "image": "a"}], False, True),
        ([{"kind": "closed"}, OPENED], False, False),
        ([{"kind": "closed"}, {**OPENED, "shard": "1-of-2"}], False, False),
        ([{**OPENED, "shard": "1-of-2"}, {"kind": "closed", "shard": "1-of-2"}], False, False),
    ],
)
def test_partial_runs_are_told_apart_from_ended_ones(
    records: list[Record], ended: bool, finished: bool
) -> None:
    told = report_of(["a"], *records)
    assert (told.ended, told.finished) == (ended, finished)
    warned = " ".join(told.warnings)
    assert ("stopped before its end" in warned) == (ended and not finished)
    assert ("was going on" in warned) == (not ended and not finished)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "0 of 2 images complete; 2 still to do."),
        ([aside("a", "x")], "0 of 2 images complete, 1 set aside; 1 still to do."),
        ([{"kind": "image", "image": n} for n in "ab"], "All 2 complete."),
        (
            [{"kind": "image", "image": "a"}, aside("b", "x")],
            "1 of 2 images complete, 1 set aside.",
        ),
    ],
)
def test_one_sentence_says_how_the_run_stands(records: list[Record], words: str) -> None:
    assert verdict(report_of(["a", "b"], *records)) == words


def test_those_that_need_a_look_come_first_when_pictures_are_few() -> None:
    done = [{"kind": "image", "image": name} for name in "abd"]
    records = [sweep(name) for name in "abcd"] + [failure("d")] + done + [aside("e", "x")]
    told = report_of(list("abcdef"), *records)
    chosen = choose(told.cards, lambda name: True, Limits(large=1, small=2))
    names = [told.cards[n].name for n in (*chosen.large, *chosen.small)]
    assert names == ["d", "c", "a"]
    assert chosen.without == 1


# -------------------------------------------------------------------------------------------- time


def test_receipts_that_say_when_they_came_are_drawn_over_the_clock() -> None:
    told = report_of(["a"], sweep("a", at=1000.0), sweep("a", "refine", at=1003.0))
    assert told.throughput.by_clock
    assert told.last_seconds == 1003.0
    assert not any("Times unknown" in line for line in told.warnings)


def test_an_old_journal_without_times_still_has_its_throughput() -> None:
    told = report_of(["a"], sweep("a", at=1000.0), sweep("a", "refine"))
    assert not told.throughput.by_clock
    assert any("Times unknown" in line for line in told.warnings)
    assert "<svg" in html_of(told)


TIMES = st.lists(
    st.tuples(st.floats(-1e12, 1e12), st.sampled_from(["glance", "refine"]), st.integers(0, 10**6)),
    max_size=60,
)


@given(TIMES, st.randoms(use_true_random=False))
@example([(n * 2.0**36, "glance", 1) for n in range(-1, 7)] + [(-5e-324, "glance", 1)], Random(1))
def test_bins_lose_nothing_stay_few_and_do_not_know_the_order(
    told: list[tuple[float, str, int]], luck: Any
) -> None:
    first, second = Timeline(most_bins=8), Timeline(most_bins=8)
    for one in told:
        first.add(*one)
    luck.shuffle(told)
    for one in told:
        second.add(*one)
    assert first.stretches() == second.stretches()
    bins = [b for stretch in first.stretches() for b in stretch.bins]
    assert sum(sum(b.values()) for b in bins) == sum(amount for _, _, amount in told)
    assert len(first.bins) <= 8
    assert len(bins) <= 8 * (MOST_IDLE_BINS + 1)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 1000))
def test_work_that_is_spread_over_time_keeps_its_amount(
    since: float, length: float, amount: int
) -> None:
    line = Timeline()
    line.spread(since, since + length, "glance", amount)
    assert sum(b["glance"] for b in line.bins.values()) == pytest.approx(amount)


def test_a_long_pause_parts_two_stretches_and_takes_no_room() -> None:
    line = Timeline()
    for at in (10.0, 12.0, 7 * 86400.0):
        line.add(at, "glance", 1)
    first, second = line.stretches()
    assert (first.since_seconds, len(first.bins)) == (10.0, 5)
    assert (second.since_seconds, len(second.bins)) == (7 * 86400.0, 1)


@given(st.floats(1e-6, 1e12))
def test_the_top_of_the_plot_is_round_and_just_above_the_rates(rate: float) -> None:
    top, lines = ceiling(rate)
    assert rate * (1 - 1e-6) <= top <= 2.5 * rate
    assert float(f"{top / lines:.2g}") == pytest.approx(top / lines)


def test_nothing_computed_draws_nothing() -> None:
    assert chart(report_of(["a"]).throughput) == ""
    assert "Nothing was computed yet" in html_of(report_of(["a"]))


@pytest.mark.parametrize("seconds", [None, float("nan"), 1e30, -1e30])
def test_a_moment_that_no_calendar_holds_is_unknown(seconds: float | None) -> None:
    assert date_text(seconds) == "unknown"


# ---------------------------------------------------------------------------------------- failures


def test_failures_are_grouped_by_kind_the_commonest_first() -> None:
    told = report_of(
        list("abcd"),
        aside("a", "/a.svs: no such file; check the path"),
        aside("b", "/b.svs: a TIFF was expected, but it does not open (x)"),
        aside("c", "/c.svs: a TIFF was expected, but it does not open (y)"),
        failure("d"),
    )
    assert [(t.what, t.title, t.images) for t in told.troubles] == [
        ("set aside", DAMAGED.title, 2),
        ("set aside", MISSING.title, 1),
        ("tried again", "The worker died", 1),
    ]
    assert told.troubles[0].named == ("b", "c")


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_words_that_tell_a_kind_stand_in_a_message_of_this_package() -> None:
    paths = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    paths.append(ROOT / "jobs" / "journals" / "evidence.py")
    said = "\n".join(text for path in paths for text in strings(path))
    assert [word for kind in KINDS for word in kind.words if word not in said] == []


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("gone.tif", None, MISSING.title),
        ("letter.svs", b"Dear reader, this is no slide", DAMAGED.title),
        ("letter.txt", b"Dear reader, this is no slide", "No reader for this kind of image"),
        ("cut.tif", b"II*\0\x08\0\0\0\x05", DAMAGED.title),
    ],
)
def test_what_a_reader_says_is_known_again(
    tmp_path: Path, name: str, content: bytes | None, title: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SaccadeError) as caught:
        open_source(str(tmp_path / name))
    assert kind_of(str(caught.value)).title == title

    assert kind_of("in other words", type(caught.value).__name__).title == title


def test_the_class_of_an_error_decides_whatever_its_message_says() -> None:
    words = "/a.svs: no such file"
    assert kind_of(words, "MissingPixelSize") is PIXEL_SIZE
    assert kind_of(words, "SourceError") is OTHER, "of this package, and of no kind"
    assert kind_of(words, "OSError") is UNFORESEEN, "of somebody else's code"
    assert kind_of(words, "DeviceFull") is kind_of(words, "UnitTooLarge") is MEMORY
    assert kind_of(words, "WorkerLost") is DIED
    assert kind_of(words, "UnitTimedOut") is LATE


def test_every_class_of_a_kind_is_an_error_or_what_happened_instead() -> None:
    foreign = {"MemoryError", "OutOfMemoryError", events.UnitTimedOut.__name__}
    named = {name for kind in KINDS for name in kind.classes}
    assert not [name for name in named - foreign if not hasattr(errors, name)]


def test_troubles_are_grouped_by_class() -> None:
    told = report_of(
        list("ab"),
        {**aside("a", "/a.svs: no such file"), "error": "TooManyBadTiles"},
        {**failure("b"), "error": "UnitTimedOut"},
    )
    assert [(t.what, t.title) for t in told.troubles] == [
        ("set aside", BAD_TILES.title),
        ("tried again", LATE.title),
    ]


def test_a_reason_from_an_earlier_run_keeps_its_kind() -> None:
    told = "failed 3 times in earlier runs, the last time: mpp needs the image's pixel size"
    assert kind_of(told) is PIXEL_SIZE
    assert kind_of("the moon was full") is OTHER


# ------------------------------------------------------------------------------------ what is safe


class Tags(HTMLParser):
    """Elements and attributes of a page; text in scripts is theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]
        self.handlers += [k for k, _ in attrs if k.startswith("on") or k == "style"]


def tags(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    return parser


def hostile() -> Report:
    names = [HOSTILE, "calm"]
    records = [sweep(HOSTILE, at=5.0, errors=[HOSTILE]), failure(HOSTILE, HOSTILE)]
    records += [aside("calm", HOSTILE), planned("calm", HOSTILE, 3)]
    return make_report(HOSTILE, Digest.of(names, [OPENED, *records]), 1.8e9, ["glance", HOSTILE])


def test_names_from_anywhere_make_no_element_and_no_handler() -> None:
    harmless = tags(html_of(report_of(["a", "b"], sweep("a", at=5.0), aside("b", "x"))))
    page_ = html_of(hostile(), Seen(0, problem=HOSTILE))
    found = tags(page_)
    assert set(found.tags) <= {*harmless.tags, "b"}
    assert found.tags.count("script") == harmless.tags.count("script") + 1  # the block of pictures
    assert found.handlers == []
    assert "alert(1)</script>" not in page_
    assert rows_of(page_)[0]["name"] == HOSTILE


@given(st.recursive(st.text() | st.integers(), st.lists))
def test_data_can_be_read_back_and_never_ends_its_element(tree: Any) -> None:
    text = as_data(tree)
    assert json.loads(text) == tree
    assert not set("<>&\u2028\u2029") & set(text)


@given(st.text(alphabet="ab`<&\"' "))
def test_code_between_backticks_leaves_the_text_as_it_is(text: str) -> None:
    found = Tags()
    heard: list[str] = []
    found.handle_data = heard.append  # type: ignore[method-assign]
    found.feed(coded(text))
    found.close()
    assert set(found.tags) <= {"code"}
    assert "".join(heard).replace("`", "") == text.replace("`", "")


def test_the_page_links_to_nothing_and_its_policy_permits_nothing_else() -> None:
    found = tags(html_of(hostile()))
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert "default-src 'none'" in policy("", "")
    assert "unsafe" not in policy("", "")
    assert "*" not in policy("", "")


# ---------------------------------------------------------------------------------------- the file


def make_run(root: Path, names: list[str]) -> RunFolder:
    folder = RunFolder(root)
    folder.images.write_text("".join(f"{entry_to_json(ImageEntry(n, f'/{n}'))}\n" for n in names))
    with Journal.open(folder.journal) as journal:
        journal.append({"kind": "image", "image": names[0]})
    return folder


def test_a_report_changes_nothing_but_its_own_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path, ["a", "b"])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    path = write_report(tmp_path)
    assert path == folder.report
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p != path}
    assert after == before
    assert [row["state"] for row in rows_of(path.read_text())] == ["complete", "waiting"]


def test_a_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    make_run(tmp_path / "run", ["a"])
    asked = tmp_path / "mail" / "page.html"
    asked.parent.mkdir()
    assert write_report(tmp_path / "run", asked) == asked
    assert not RunFolder(tmp_path / "run").report.exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(16, 500))
def test_a_picture_fits_its_room(height: int, width: int, px: int) -> None:
    assert max(fit((height, width), px)) == px


def test_ten_thousand_cards_take_few_bytes() -> None:
    names = [f"slide-{number:05d}" for number in range(10_000)]
    records = [one for n in names for one in (planned(n, "glance", 7), sweep(n))]
    assert len(html_of(report_of(names, *records))) < 200 * len(names)


def test_care_puts_failures_before_what_is_well() -> None:
    def card(state: str, attempts: int = 0) -> Card:
        return Card("a", state, "", 0.0, (), None, 0.0, attempts)

    order = [card("quarantined"), card("complete", 1), card("running"), card("complete")]
    assert [one.care for one in order] == sorted(one.care for one in order)
