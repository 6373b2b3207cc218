"""A report as one HTML file: nothing in it is fetched, and nothing from a run is taken for code.

Cards travel as data and are drawn by a script of the page, a page of them at a time; pictures lie
in blocks of their own, decoded when their card is shown. A policy in the head lets the browser load
nothing and run only that script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from saccade.jobs.reports import parts
from saccade.jobs.reports.model import Card, Report
from saccade.jobs.reports.pictures import LARGE_PX, SMALL_PX, Choice, Picture, Seen

COLUMNS = (
    "name",
    "state",
    "stage",
    "done",
    "refined",
    "seconds",
    "attempts",
    "failed",
    "degraded",
    "care",
    "reason",
    "remedy",
    "notes",
    "passes",
)
"""Of a row of ``card_row``; the script knows them by these names."""
PICTURES = "<!-- pictures -->"
"""Where the template has room for them."""


def page(report: Report, choice: Choice, seen: Iterable[Seen]) -> Iterator[str]:
    """The page, piece by piece; pictures are taken as they come."""
    before, after = _filled(report, choice).split(PICTURES)
    yield before
    yield from map(picture_block, seen)
    yield after


def _filled(report: Report, choice: Choice) -> str:
    style = _text("report.css") + parts.colour_rules(len(report.passes))
    script = _text("report.js")
    word, state = parts.badge(report)
    return Template(_text("report.html")).substitute(
        policy=policy(style, script),
        style=style,
        script=script,
        name=escape(report.name),
        badge=word,
        badge_state=state,
        verdict=parts.verdict(report),
        states=parts.states_bar(report),
        dates=parts.dates(report),
        figures=parts.figures(report),
        warnings=parts.warning_list(report),
        failures=parts.trouble_list(report),
        throughput=parts.throughput_figure(report),
        passes=parts.pass_rows(report),
        pictures_note=escape(pictures_note(choice)),
        data=as_data(data_tree(report)),
    )


def _text(name: str) -> str:
    return files("saccade.jobs.reports").joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """What the browser may do: this style, this script, pictures inside the file; no more."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def as_data(tree: Any) -> str:
    """JSON that can't end the element it stands in, whatever it says."""
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_tree(report: Report) -> dict[str, Any]:
    """All cards, for the script: rows, and what many of them share said once."""
    names = [line.name for line in report.passes]
    remedies: dict[str, int] = {}
    rows = [card_row(card, names, remedies) for card in report.cards]
    return {
        "columns": COLUMNS,
        "rows": rows,
        "passes": names,
        "remedies": list(remedies),
        "states": parts.STATE_WORDS,
    }


def card_row(card: Card, passes: list[str], remedies: dict[str, int]) -> list[Any]:
    """One image, in the order of ``COLUMNS``; each remedy is numbered when it first comes."""
    remedy = remedies.setdefault(card.remedy, len(remedies)) if card.remedy else -1
    lines = [
        [
            passes.index(line.name),
            line.answered,
            line.selected,
            line.of,
            round(sum(line.seconds.values()), 1),
        ]
        for line in card.passes
    ]
    return [
        card.name,
        card.state,
        card.stage,
        round(card.share_done, 3),
        None if card.refined is None else round(card.refined, 4),
        round(card.seconds, 1),
        card.attempts_failed,
        card.tiles_failed,
        card.tiles_degraded,
        card.care,
        card.reason,
        remedy,
        card.notes,
        lines,
    ]


def picture_block(seen: Seen) -> str:
    """What is shown of one image, as data that waits until its card is drawn."""
    tree = {
        "pictures": [_picture_tree(picture) for picture in seen.pictures],
        "classes": [[one.name, one.colour, round(one.share, 5)] for one in seen.classes],
        "problem": seen.problem,
    }
    return f'<script type="application/json" id="image-{seen.number}">{as_data(tree)}</script>\n'


def _picture_tree(picture: Picture) -> list[Any]:
    height, width = picture.shape
    encoded = base64.b64encode(picture.webp).decode()
    return [picture.title, width, height, f"data:image/webp;base64,{encoded}"]


def pictures_note(choice: Choice) -> str:
    """What was left out, and how to get it."""
    told = [f"{parts.plural(len(choice.large), 'image')} with four pictures of {LARGE_PX} px"]
    if choice.small:
        told.append(f"{len(choice.small):,} with a small one of {SMALL_PX} px")
    if choice.without:
        told.append(f"{choice.without:,} left without, so that this file can be mailed")
    more = (
        "Those that most need a look come first; --pictures N and --thumbnails N give more. "
        if len(told) > 1
        else ""
    )
    return f"{', '.join(told)}. {more}saccade show RUN NAME draws an image at full size."
