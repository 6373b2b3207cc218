"""Counters summed up, and told in the text format of Prometheus. Pure.

The format is that of https://prometheus.io/docs/instrumenting/exposition_formats/, as node
exporter's textfile collector reads it: no timestamps, one run per file.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from saccade.jobs.monitoring.metrics import REGISTRY, SECONDS, Metric, Sample

Labels = tuple[str, ...]


@dataclass
class Seen:
    """What a histogram saw."""

    bins: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    """How many values up to each bound, and beyond the last."""
    total: float = 0.0
    """Their sum."""

    def add(self, value: float) -> None:
        """Count a value in."""
        self.bins[bisect_left(SECONDS, value)] += 1
        self.total += value


@dataclass
class Totals:
    """Counters and histograms so far."""

    sums: dict[tuple[str, Labels], float] = field(default_factory=dict)
    """Of counters, by name and labels."""
    seen: dict[tuple[str, Labels], Seen] = field(default_factory=dict)
    """By histograms, likewise."""

    def add(self, sample: Sample) -> None:
        """Count a sample in."""
        key = (sample.metric.name, sample.labels)
        if sample.metric.kind == "histogram":
            self.seen.setdefault(key, Seen()).add(sample.value)
        else:
            self.sums[key] = self.sums.get(key, 0.0) + sample.value


def as_text(totals: Totals, gauges: Iterable[Sample], run: Mapping[str, str]) -> str:
    """Every metric, with its meaning.

    Args:
        totals: of counters and histograms.
        gauges: their values now.
        run: labels that tell this run from others.
    """
    values = dict(totals.sums)
    values |= {(s.metric.name, s.labels): s.value for s in gauges}
    return "".join(
        line + "\n" for metric in REGISTRY for line in _told(metric, values, totals, run)
    )


def _told(
    metric: Metric,
    values: Mapping[tuple[str, Labels], float],
    totals: Totals,
    run: Mapping[str, str],
) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    if metric.kind == "histogram":
        for (name, labels), seen in totals.seen.items():
            if name == metric.name:
                yield from _bins(metric, seen, {**run, **_named(metric, labels)})
        return
    if not metric.labels:
        values = {(metric.name, ()): 0.0, **values}
    for (name, labels), value in values.items():
        if name == metric.name:
            yield f"{name}{_braced({**run, **_named(metric, labels)})} {_number(value)}"


def _bins(metric: Metric, seen: Seen, labels: Mapping[str, str]) -> Iterator[str]:
    below = 0
    for bound, count in zip((*map(_number, SECONDS), "+Inf"), seen.bins, strict=True):
        below += count
        yield f"{metric.name}_bucket{_braced({**labels, 'le': bound})} {below}"
    yield f"{metric.name}_sum{_braced(labels)} {_number(seen.total)}"
    yield f"{metric.name}_count{_braced(labels)} {below}"


def _named(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


def _braced(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))
