"""The still parts of a report's page: what stands there without a script, and on paper. Pure.

Every text that comes from a run is escaped here; names in a manifest are anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from saccade.jobs.monitoring.progress import duration
from saccade.jobs.pictures.colours import heat_table, pass_colours
from saccade.jobs.pictures.words import percent
from saccade.jobs.reports.chart import chart, date_text, pixels_text
from saccade.jobs.reports.findings import Trouble
from saccade.jobs.reports.model import STATES, PassLine, Report
from saccade.workers.memory_size import format_nbytes

STATE_WORDS: Mapping[str, str] = {
    "complete": "complete",
    "running": "in progress",
    "waiting": "waiting",
    "quarantined": "set aside",
}


def plural(count: int, noun: str) -> str:
    """'1 image', '2,000 images'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def verdict(report: Report) -> str:
    """How the run stands, in one sentence."""
    counts = report.counts
    aside = f"{counts['quarantined']:,} set aside"
    if not report.images:
        return "This run has no images."
    if not report.finished:
        left = counts["running"] + counts["waiting"]
        ended = f", {aside}" if counts["quarantined"] else ""
        return (
            f"{counts['complete']:,} of {plural(report.images, 'image')} complete{ended}; "
            f"{left:,} still to do."
        )
    if counts["quarantined"]:
        return f"{counts['complete']:,} of {plural(report.images, 'image')} complete, {aside}."
    return "The image is complete." if report.images == 1 else f"All {report.images:,} complete."


def badge(report: Report) -> tuple[str, str]:
    """A word on how the run stands, and what its colour is called."""
    if not report.finished:
        return ("Stopped", "waiting") if report.ended else ("Unfinished", "running")
    return (
        ("Finished with failures", "failures")
        if report.counts["quarantined"]
        else ("Complete", "complete")
    )


def states_bar(report: Report) -> str:
    """Images by state as one bar, and in words."""
    parts, start = [], 0.0
    for state in STATES:
        share = 100 * report.counts[state] / max(1, report.images)
        parts.append(f'<rect class="{state}" x="{start:.3f}%" width="{share:.3f}%" height="8"/>')
        start += share
    words = "".join(
        f'<li><i class="{state}"></i>{report.counts[state]:,} {STATE_WORDS[state]}</li>'
        for state in STATES
        if report.counts[state]
    )
    return (
        '<svg class="states" width="100%" height="8" aria-hidden="true">'
        f'{"".join(parts)}</svg><ul class="key">{words}</ul>'
    )


def dates(report: Report) -> str:
    """When it began, when the newest record was written, and this page."""
    told = {
        "Began": report.began_seconds,
        "Last sign of work": report.last_seconds,
        "This report": report.written_seconds,
    }
    return " · ".join(
        f"{word} {date_text(seconds)}" for word, seconds in told.items() if seconds is not None
    )


def figures(report: Report) -> str:
    """The run in numbers."""
    told = {
        "images": f"{report.images:,}",
        "tiles answered": f"{report.tiles:,}",
        "of tiles refined": "-" if report.refined is None else percent(report.refined),
        "pixels through models": pixels_text(report.pixels),
        "busy, all workers": duration_fine(report.seconds),
        "written": format_nbytes(report.nbytes),
    }
    if (elapsed := _elapsed(report)) is not None:
        told["from start to last sign"] = duration(elapsed)
    return "".join(
        f"<div><dt>{escape(word)}</dt><dd>{escape(value)}</dd></div>"
        for word, value in told.items()
    )


def _elapsed(report: Report) -> float | None:
    """Seconds between the two; None where one is unknown, or a clock was set back."""
    if report.began_seconds is None or report.last_seconds is None:
        return None
    seconds = report.last_seconds - report.began_seconds
    return seconds if seconds > 0 else None


def warning_list(report: Report) -> str:
    """What to know first; nothing where there is nothing."""
    if not report.warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.warnings)
    return f'<section id="warnings"><h2>Good to know</h2><ul>{lines}</ul></section>'


def trouble_list(report: Report) -> str:
    """Failures by kind, each with what to do."""
    if not report.troubles:
        return ""
    told = "".join(map(_trouble, report.troubles))
    return f'<section id="failures"><h2>Failures</h2><div class="troubles">{told}</div></section>'


def _trouble(trouble: Trouble) -> str:
    names = ", ".join(f"<b>{escape(name)}</b>" for name in trouble.named)
    more = trouble.images - len(trouble.named)
    return (
        f'<article class="trouble {trouble.what.replace(" ", "-")}">'
        f"<h3>{escape(trouble.title)}</h3>"
        f'<p class="who">{plural(trouble.images, "image")} {trouble.what}: '
        f"{names}{f', and {more:,} more' if more else ''}</p>"
        f'<p class="remedy">{coded(trouble.remedy)}</p>'
        f"<details><summary>A message</summary><p>{coded(trouble.example)}</p></details></article>"
    )


def throughput_figure(report: Report) -> str:
    """Tiles per second over time, by pass."""
    drawing = chart(report.throughput)
    if not drawing:
        return "<p>Nothing was computed yet.</p>"
    passes = "".join(
        f'<li><i class="pass-{index}"></i>{escape(name)}</li>'
        for index, name in enumerate(report.throughput.passes)
    )
    basis = (
        "Pixels through models per second, halos included, in bins of "
        f"{duration_fine(report.throughput.width_seconds)}; a dashed line is a longer pause."
        if report.throughput.by_clock
        else "Pixels through models per busy second, halos included; the times of day are unknown."
    )
    return (
        f'<figure>{drawing}<figcaption><ul class="key">{passes}</ul>{basis}</figcaption></figure>'
    )


def duration_fine(seconds: float) -> str:
    """As ``duration``; a few seconds with a digit more."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def coded(text: str) -> str:
    """A text for the page; what stands between backticks is set as code."""
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return "".join(
        f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces)
    )


def pass_rows(report: Report) -> str:
    """A row per pass of all images together."""
    most = sum(sum(line.seconds.values()) for line in report.passes)
    return "".join(_pass_row(i, line, most) for i, line in enumerate(report.passes))


def _pass_row(index: int, line: PassLine, most_seconds: float) -> str:
    seconds = sum(line.seconds.values())
    lanes = ", ".join(f"{lane} {duration_fine(value)}" for lane, value in line.seconds.items())
    cells = (
        f"{line.answered:,}",
        percent(line.answered / line.of) if line.of else "-",
        f"{line.degraded:,}" if line.degraded else "",
        f"{line.failed:,}" if line.failed else "",
        pixels_text(line.pixels),
        f"{duration_fine(seconds)}{f', {percent(seconds / most_seconds)}' if most_seconds else ''}",
        lanes,
    )
    numbers = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row"><i class="pass-{index}"></i>{escape(line.name)}</th>{numbers}</tr>'


def colour_rules(passes: int) -> str:
    """Style of everything that has a pass's colour, and of the heat map's scale."""
    rules: Iterator[str] = (
        f".pass-{index}{{fill:rgb{colour};background:rgb{colour}}}"
        for index, colour in enumerate(pass_colours(max(1, passes)))
    )
    steps = ",".join(f"rgb{tuple(map(int, heat_table()[step]))}" for step in range(0, 256, 15))
    return f"{''.join(rules)}.heat{{background:linear-gradient(90deg,{steps})}}"
