"""The tables and plots that a person reads, from all rows. Pure but for the files it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from common import table
from quality_plot import Line, Panel, draw
from quality_tables import Table, shown

WAYS = {
    "learned": "#1f5fbf",
    "oracle": "#8a8a8a",
    "uncertainty": "#8e44ad",
    "contrast": "#d1771a",
    "random": "#b03a2e",
}
"""Ways to choose tiles, in the order of legends, with their colours."""
SHARE = "share of foreground tiles"
"""The metric that curves are drawn over."""
TARGETS = {
    "AP retained": ((0.2, 0.98), (0.3, 0.995)),
    "lesion pixels covered": ((0.3, 0.90), (0.5, 0.97)),
    "object recall of an image gained, worst": ((0.3, -0.10),),
}
"""Per metric, share of tiles and what is aimed at there."""
CURVE = (
    ("AP", "AP", "{:.3f}"),
    ("retained", "AP retained", "{:.3f}"),
    ("Dice", "Dice", "{:.3f}"),
    ("lesion px covered", "lesion pixels covered", "{:.3f}"),
    ("objects covered", "objects covered", "{:.3f}"),
    ("object recall", "object recall", "{:.3f}"),
    ("worst image, recall", "object recall of an image gained, worst", "{:+.3f}"),
    ("p5", "object recall of an image gained, p5", "{:+.3f}"),
    ("labels equal", "labels equal", "{:.4f}"),
    ("passes", "whole-image passes", "{:.2f}"),
    ("by FLOP", "whole-image passes, by FLOP", "{:.2f}"),
    ("MB decoded", "MB decoded", "{:.0f}"),
    ("wall s", "wall s", "{:.1f}"),
    ("peak MB", "peak MB", "{:.0f}"),
)
"""Columns of the curve: head, metric, format."""
SINGLE = ("glance", "distilled glance", "as written", "one pass", "dense")
"""Ways that have no share, worst first."""


def tables(found: Table) -> list[str]:
    """Every table, in the order in which they are read."""
    return [curve_table(found), method_table(found), class_table(found), size_table(found)]


def curve_table(found: Table) -> str:
    """The recipe at every share, between glance and dense."""
    rows = [_row(found, way, None, way) for way in SINGLE[:2] if _has(found, way)]
    rows += [_row(found, "learned", s, f"{s:.0%} of tiles") for s in found.shares("learned")]
    rows += [_row(found, way, None, way) for way in SINGLE[2:] if _has(found, way)]
    lines = [_gate_line(found), _gap_line(found)]
    return "\n\n".join([table(["", *(head for head, _, _ in CURVE)], rows), *filter(None, lines)])


def _has(found: Table, way: str) -> bool:
    return any(row.way == way for row in found.rows)


def _row(found: Table, way: str, share: float | None, name: str) -> list[str]:
    cells = [shown(found.values(way, share, metric), text) for _, metric, text in CURVE]
    return [name, *cells]


def _gate_line(found: Table) -> str:
    """Whether dense fine beats dense glance, and so whether anything can be retained."""
    metric = "gate, gain over glance"
    gain, low, high = (found.values("dense", None, metric, end) for end in ("mean", "low", "high"))
    closed = sum(end <= 0 for end in low) + len({row.seed for row in found.rows}) - len(low)
    seeds = "; ".join(
        f"{g:+.3f} ({a:+.3f} to {b:+.3f})" for g, a, b in zip(gain, low, high, strict=True)
    )
    line = f"AP of dense fine minus dense glance, paired over images, per seed (95 %): {seeds}."
    return f"{line} Retention is undefined for {closed} of them." if closed else line


def _gap_line(found: Table) -> str:
    """How much of the gap between glance and dense a distilled glance closes, or nothing."""
    before, after, top = (
        found.values(way, None, "AP") for way in ("glance", "distilled glance", "dense")
    )
    gaps = [(b, a, t) for b, a, t in zip(before, after, top, strict=False) if t > b]
    if not gaps:
        return ""
    closed = shown([(a - b) / (t - b) for b, a, t in gaps], "{:.0%}")
    return f"Of the gap between glance and dense, distilling the glance closes {closed}."


def method_table(found: Table) -> str:
    """Ways to choose tiles beside each other, at every share."""
    columns = (
        (SHARE, "{:.2f}"),
        ("AP retained", "{:.3f}"),
        ("lesion pixels covered", "{:.3f}"),
        ("objects covered", "{:.3f}"),
        ("object recall of an image gained, mean", "{:+.3f}"),
        ("object recall of an image gained, worst", "{:+.3f}"),
        ("whole-image passes", "{:.2f}"),
    )
    rows = []
    for share, way in _pairs(found):
        values = [shown(found.values(way, share, metric), text) for metric, text in columns]
        rows.append([f"{way}, {share:.0%}", *values])
    return table(["chosen by", *(metric for metric, _ in columns)], rows)


def class_table(found: Table) -> str:
    """Average precision of every class, from glance to dense."""
    classes = dict.fromkeys(
        cell.group for row in found.rows for cell in row.cells if cell.metric == "AP" and cell.group
    )
    ways: list[tuple[str, float | None]] = [("glance", None)]
    ways += [("learned", share) for share in found.shares("learned")]
    ways += [("one pass", None), ("dense", None)]
    rows = [
        [
            way if share is None else f"{way}, {share:.0%}",
            *(shown(found.values(way, share, "AP", one)) for one in classes),
        ]
        for way, share in ways
    ]
    return table(["AP", *classes], rows)


def size_table(found: Table) -> str:
    """Lesions by size: how many, and how many of them are looked at, and still found."""
    sizes = dict.fromkeys(
        cell.group for row in found.rows for cell in row.cells if cell.metric == "objects"
    )
    shares = [share for share in found.shares("learned") if share < 1]
    head = ["lesions of", "count", *(f"covered, {share:.0%}" for share in shares)]
    head += [f"found of dense, {share:.0%}" for share in shares]
    rows = []
    for size in sizes:
        covered = [found.values("learned", s, "objects covered", size) for s in shares]
        kept = [found.values("learned", s, "object recall kept", size) for s in shares]
        count = shown(found.values("dense", None, "objects", size)[:1], "{:.0f}")
        rows.append([size, count, *(shown(one, "{:.2f}") for one in (*covered, *kept))])
    return table(head, rows)


def _pairs(found: Table) -> Iterator[tuple[float, str]]:
    """Share and way of every row that has a share, shares rising, ways in the order of the run."""
    every = dict.fromkeys((row.share, row.way) for row in found.rows if row.share is not None)
    order = {way: index for index, way in enumerate(dict.fromkeys(way for _, way in every))}
    return iter(sorted(every, key=lambda pair: (pair[0], order[pair[1]])))


def charts(path: Path, found: Table) -> None:
    """Kept against share and against cost, coverage and the worst image against share."""
    worst = "object recall of an image gained, worst"
    kept = "AP retained" if _defined(found, "AP retained") else "AP"
    draw(
        path,
        [
            _against(found, SHARE, kept, "kept of the dense run", SHARE),
            _against(
                found,
                "whole-image passes",
                kept,
                "kept of the dense run, and its cost",
                "cost in whole-image fine passes, halos and glance included",
            ),
            _against(
                found,
                SHARE,
                "lesion pixels covered",
                "lesions that the last pass looked at",
                SHARE,
            ),
            _against(
                found,
                SHARE,
                worst,
                "the worst image",
                SHARE,
            ),
        ],
    )


def _defined(found: Table, metric: str) -> bool:
    return any(found.values("learned", share, metric) for share in found.shares("learned"))


def _against(found: Table, x: str, y: str, title: str, axis: str) -> Panel:
    lines = [line for way in WAYS if (line := _line(found, way, x, y)).points]
    if x == "whole-image passes":
        lines += [line for way in ("one pass",) if (line := _mark(found, way, x, y)).points]
    targets = TARGETS.get(y, ()) if x == SHARE else ()
    return Panel(title, axis, _axis_name(y, found), tuple(lines), targets)


def _axis_name(metric: str, found: Table) -> str:
    seeds = len({row.seed for row in found.rows})
    names = {
        "AP retained": "average precision, share of the dense run's",
        "AP": "average precision (retention is undefined)",
        "lesion pixels covered": "lesion pixels in chosen tiles, share",
        "object recall of an image gained, worst": "object recall minus the dense run's",
    }
    return names[metric] + (f"; mean of {seeds} seeds, band: their range" if seeds > 1 else "")


def _line(found: Table, way: str, x: str, y: str) -> Line:
    points, band = [], []
    for share in found.shares(way):
        across, up = found.values(way, share, x), found.values(way, share, y)
        if across and up:
            points.append((sum(across) / len(across), sum(up) / len(up)))
            band.append((min(up), max(up)))
    shown_band = tuple(band) if way == "learned" else ()
    return Line(way, tuple(points), WAYS[way], shown_band, dashed=way == "oracle")


def _mark(found: Table, way: str, x: str, y: str) -> Line:
    across, up = found.values(way, None, x), found.values(way, None, y)
    points = ((sum(across) / len(across), sum(up) / len(up)),) if across and up else ()
    return Line(f"{way}, all foreground", points, "#222222", joined=False)


def written(path: Path, head: str, parts: Sequence[str]) -> None:
    """Everything that was printed, as Markdown."""
    text = "\n\n".join([f"```\n{head}\n```", *parts])
    path.write_text(text + "\n", encoding="utf-8")
