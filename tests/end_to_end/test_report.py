"""The page of a report in a real browser: of a real run, and of ten thousand images."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import FLAGS, Browser, browser_path, opened_browser
from PIL import Image

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.reports.digest import Digest
from saccade.jobs.reports.model import STATES, make_report
from saccade.jobs.reports.page import page
from saccade.jobs.reports.pictures import Choice, Limits
from saccade.jobs.reports.report import write_report

HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
LARGE = 10_000
NAMES = "[...document.querySelectorAll('.card h3')].map((one) => one.textContent)"
FOUND = "document.getElementById('found').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(
    inputs: Path, make_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of three images that are well and one that is cut short."""
    folder = tmp_path_factory.mktemp("report")
    images = [inputs / "one.tif", inputs / "two.tif", make_image(folder / "three.tif", seed=13)]
    cut = folder / "cut.tif"
    cut.write_bytes(images[0].read_bytes()[:5000])
    options = RunOptions(workers="local:1", device="cpu")
    return run(inputs / "recipe.yaml", [*images, cut], folder / "run", options).folder


@pytest.fixture(scope="module")
def written(finished: Path) -> Path:
    return write_report(finished)


def records(name: str, number: int) -> Iterator[dict[str, Any]]:
    luck = random.Random(number)
    base = {"kind": "receipt", "image": name, "unit": f"{name}-1"}
    if number % 400 == 7:
        yield {"kind": "quarantine", "image": name, "reason": "no such file"}
        return
    if number % 100 == 3:
        return
    selected = luck.randrange(100)
    yield {
        **base,
        "step": "select",
        "plans": "refine",
        "units": 1,
        "tiles": {"selected": selected, "of": 100},
    }
    tiles = {"done": selected, "degraded": 0, "failed": 0}
    lanes = {"read": luck.random(), "device": luck.random() * 100}
    more = {"pixels": 1000, "errors": [], "at": 1.8e9 + number}
    yield {**base, "pass": "refine", "tiles": tiles, "seconds": lanes, **more}
    if number % 50:
        yield {"kind": "image", "image": name}


def write_large(path: Path) -> Path:
    names = [f"slide-{number:05d}" for number in range(LARGE - 1)] + [HOSTILE]
    told = (one for number, name in enumerate(names) for one in records(name, number))
    report = make_report("archive", Digest.of(names, told), 1.8e9, ["refine"])
    path.write_text("".join(page(report, Choice((), (), 0), ())), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large(tmp_path_factory.mktemp("large") / "report.html")


# ------------------------------------------------------------------------------------- a real run


@pytest.mark.slow
def test_a_real_run_shows_four_pictures_of_each_image_and_why_one_failed(
    browser: Browser, written: Path
) -> None:
    browser.open(written.as_uri())
    assert sorted(browser.run(NAMES)) == ["cut", "one", "three", "two"]
    widths = browser.run(
        "Promise.all([...document.querySelectorAll('.card img')].map(async (shown) => {"
        " const one = new Image(); one.src = shown.src; await one.decode();"
        " return one.naturalWidth; }))"
    )
    assert len(widths) == 3 * 4
    assert min(widths) >= 300
    aside = browser.run("document.querySelector('.card .reason').textContent")
    assert "cut.tif" in aside
    assert browser.run("document.querySelector('.card .remedy').textContent")
    assert browser.run("document.querySelectorAll('.trouble.set-aside').length") == 1
    assert browser.run("document.querySelectorAll('svg.chart path').length") == 3


@pytest.mark.slow
def test_nothing_leaves_the_file_and_nothing_is_complained_of(
    browser: Browser, written: Path
) -> None:
    browser.open(written.as_uri())
    browser.run("document.querySelector('button.pictures').click()")
    assert {one for one in browser.requests if not one.startswith("data:image/webp")} == {
        written.as_uri()
    }
    assert browser.complaints == []


@pytest.mark.slow
def test_what_the_policy_does_not_permit_is_refused(browser: Browser, written: Path) -> None:
    browser.open(written.as_uri())
    refused = browser.run(
        "new Promise((done) => { const one = new Image(); one.onload = () => done(false);"
        " one.onerror = () => done(true); one.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert refused
    assert any("Content Security Policy" in one for one in browser.complaints)


@pytest.mark.slow
def test_pictures_enlarge_and_close_by_key(browser: Browser, written: Path) -> None:
    browser.open(written.as_uri())
    browser.run("document.querySelector('button.pictures').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('zoom').open")
    assert browser.run("document.querySelectorAll('#zoom img').length") == 4
    browser.press("Escape")
    assert not browser.run("document.getElementById('zoom').open")


@pytest.mark.slow
def test_pictures_are_as_many_as_asked_for_and_the_rest_is_said(
    browser: Browser, finished: Path, tmp_path: Path
) -> None:
    browser.open(write_report(finished, tmp_path / "few.html", Limits(1, 1)).as_uri())
    assert browser.run("document.querySelectorAll('.card .pictures').length") == 2
    assert browser.run("document.querySelectorAll('.card img').length") == 5
    assert "1 left without" in browser.run("document.querySelector('footer').textContent")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "media"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_page_fits_its_window_and_heeds_the_dark(
    browser: Browser, written: Path, tmp_path: Path, width: int, media: str
) -> None:
    browser.open(written.as_uri())
    shown = browser.screenshot(tmp_path / "page.png", width, 900, media)
    pixels = np.asarray(Image.open(shown).convert("L"))
    assert pixels.shape == (900, width)
    assert (np.median(pixels) < 64) == (media == "dark")
    assert len(np.unique(pixels)) > 32
    assert browser.run("document.documentElement.scrollWidth") <= width


# --------------------------------------------------------------------------------- ten thousand


@pytest.mark.slow
def test_of_ten_thousand_images_one_page_is_drawn(browser: Browser, large: Path) -> None:
    browser.open(large.as_uri())
    assert browser.run("document.querySelectorAll('.card').length") == 12
    assert browser.run("document.querySelectorAll('*').length") < 1500
    assert browser.run(FOUND) == "10,000 images; 1 to 12 are shown."
    assert browser.complaints == []


@pytest.mark.slow
def test_names_are_never_taken_for_code(browser: Browser, large: Path) -> None:
    browser.open(f"{large.as_uri()}#q=script")
    assert browser.run(NAMES) == [HOSTILE]
    assert browser.run("window.hit") is None
    assert browser.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("sort", ["name", "-name", "run", "-run", "refined", "-seconds", "state"])
def test_pages_follow_each_other_in_order_and_lose_nobody(
    browser: Browser, large: Path, sort: str
) -> None:
    browser.open(f"{large.as_uri()}#sort={sort}&per=96&q=slide-000")
    seen = []
    for number in (1, 2):
        browser.run(f"location.hash = '#sort={sort}&per=96&q=slide-000&page={number}'")
        browser.run("new Promise((done) => setTimeout(done, 0))")
        seen += browser.run(NAMES)
    assert sorted(seen) == [f"slide-{number:05d}" for number in range(100)]
    if sort.lstrip("-") in ("name", "run"):
        assert seen == sorted(seen, reverse=sort.startswith("-"))


@pytest.mark.slow
def test_filters_keep_exactly_what_they_ask_for(browser: Browser, large: Path) -> None:
    def count(asked: str) -> int:
        browser.open(f"{large.as_uri()}#{asked}")
        found = browser.run(FOUND).split()[0]
        return 0 if found == "None" else int(found.replace(",", ""))

    by_state = {state: count(f"state={state}") for state in STATES}
    assert sum(by_state.values()) == LARGE
    assert by_state["quarantined"] == 25
    assert by_state["waiting"] == 100
    whole = count("refined=0-100")
    assert whole == LARGE - 125
    # a share is a whole number of hundredths here, so that the two parts meet without overlap
    assert count("refined=0-29") + count("refined=30-100") == whole
    assert 0 < count("refined=30-50&seconds=40-60&state=complete") < whole / 10
    assert count("failures=1") == 0


@pytest.mark.slow
def test_a_filter_that_nothing_fits_says_so(browser: Browser, large: Path) -> None:
    browser.open(f"{large.as_uri()}#q=nobody")
    assert browser.run(NAMES) == []
    assert "None of 10,000 images fits" in browser.run(FOUND)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked", ["page=99999", "page=-3", "per=x&sort=%00", "state=nonsense&page"]
)
def test_an_address_that_makes_no_sense_breaks_nothing(
    browser: Browser, large: Path, asked: str
) -> None:
    browser.open(f"{large.as_uri()}#{asked}")
    assert browser.run(FOUND)
    assert browser.complaints == []


@pytest.mark.slow
def test_a_person_filters_and_pages_by_keyboard_and_the_address_keeps_it(
    browser: Browser, large: Path
) -> None:
    browser.open(large.as_uri())
    browser.press("/")
    for letter in "001":
        browser.press(letter)
    browser.press("Enter")
    assert browser.run("location.hash") == "#q=001"
    assert browser.run("document.activeElement.name") == "q"
    fitting = sum("001" in f"{number:05d}" for number in range(LARGE - 1))
    assert browser.run(FOUND) == f"{fitting} of 10,000 images; 1 to 12 are shown."
    browser.run("document.querySelector('#pager button[aria-label=\"Next page\"]').focus()")
    browser.press("Enter")
    assert browser.run("location.hash") == "#q=001&page=2"
    assert browser.run(FOUND) == f"{fitting} of 10,000 images; 13 to 24 are shown."


@pytest.mark.slow
def test_without_a_debugger_the_page_says_the_same(large: Path, tmp_path: Path) -> None:
    path = browser_path()
    if path is None:
        pytest.skip("no browser found; Debian has chromium")
    flags = [flag for flag in FLAGS if "debugging" not in flag]
    url = f"{large.as_uri()}#sort=-seconds&state=complete&page=2"
    command = [path, *flags, f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=300)
    assert done.stdout.count('<article class="card"') == 12
    assert "13 to 24 are shown." in done.stdout
    assert "CONSOLE" not in done.stderr
